"""A listener in a Flask app, which takes the messages; ``fotahook listen`` handles them, in a process of its own.

``flask --app listener_flask run`` and ``fotahook listen listener_flask:listener``; register ``https://…/thingspace/``.
"""

from flask import Flask
from werkzeug.middleware.dispatcher import DispatcherMiddleware

import fotahook
from fotahook.listener.adapters.wsgi import WsgiListener

listener = fotahook.Listener(inbox="sqlite:///inbox.db")


@listener.on_any
def record(message: fotahook.CallbackMessage) -> None:
    devices = " ".join(f"{device.device_id} {device.status}" for device in message.devices)
    # Threads run side by side, so a line is printed in one go.
    print(f"{message.kind} {devices}\n", end="", flush=True)


app = Flask(__name__)
app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {"/thingspace": WsgiListener(listener)})  # type: ignore[method-assign]


@app.get("/")
def index() -> str:
    return "the rest of the app"

"""A listener in a Flask app that accepts messages; ``fotahook listen`` handles them in a separate process.

Run ``flask --app listener_flask run`` and ``fotahook listen listener_flask:listener``; register
``https://…/thingspace/``.
"""

from flask import Flask
from werkzeug.middleware.dispatcher import DispatcherMiddleware

import fotahook
from fotahook.listener.adapters.wsgi import WsgiListener

listener = fotahook.Listener(inbox="sqlite:///inbox.db")


@listener.on_any
def record(message: fotahook.CallbackMessage) -> None:
    devices = " ".join(f"{device.device_id} {device.status}" for device in message.devices)
    # Threads run concurrently, so print each line with one call.
    print(f"{message.kind} {devices}\n", end="", flush=True)


app = Flask(__name__)
app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {"/thingspace": WsgiListener(listener)})  # type: ignore[method-assign]


@app.get("/")
def index() -> str:
    return "the rest of the app"

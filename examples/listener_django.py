"""A listener beside Django under ASGI. Run it with ``uvicorn listener_django:app``, register ``https://…/thingspace/``.

In a project of its own, settings and views are where they always are, and ``app`` stands in ``asgi.py``.
"""

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path
from starlette.types import Receive, Scope, Send

import fotahook

settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="an example's")
django.setup()

MOUNT = "/thingspace"
listener = fotahook.Listener(inbox="sqlite:///inbox.db")


@listener.on_any
def record(message: fotahook.CallbackMessage) -> None:
    # A plain function runs in a thread, where Django's ORM may be used.
    devices = " ".join(f"{device.device_id} {device.status}" for device in message.devices)
    # Threads run side by side, so a line is printed in one go.
    print(f"{message.kind} {devices}\n", end="", flush=True)


def index(request: HttpRequest) -> HttpResponse:
    return HttpResponse("the rest of the app")


urlpatterns = [path("", index)]
rest = get_asgi_application()


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    # Django takes no lifespan events, the listener does.
    if scope["type"] == "lifespan":
        await listener(scope, receive, send)
    elif scope["path"].startswith(f"{MOUNT}/"):
        await listener({**scope, "root_path": MOUNT}, receive, send)
    else:
        await rest(scope, receive, send)

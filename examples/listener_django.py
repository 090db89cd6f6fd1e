"""A listener next to Django under ASGI. Run it with ``uvicorn listener_django:app``; register ``https://…/thingspace/``.

In a real project, settings and views are in their usual modules, and ``app`` is in ``asgi.py``.
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
    # A plain function runs in a thread, where it can use Django's ORM.
    devices = " ".join(f"{device.device_id} {device.status}" for device in message.devices)
    # Threads run concurrently, so print each line with one call.
    print(f"{message.kind} {devices}\n", end="", flush=True)


def index(request: HttpRequest) -> HttpResponse:
    return HttpResponse("the rest of the app")


urlpatterns = [path("", index)]
rest = get_asgi_application()


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    # Django does not handle lifespan events; the listener does.
    if scope["type"] == "lifespan":
        await listener(scope, receive, send)
    elif scope["path"].startswith(f"{MOUNT}/"):
        await listener({**scope, "root_path": MOUNT}, receive, send)
    else:
        await rest(scope, receive, send)

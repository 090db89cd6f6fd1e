"""A listener in a Litestar app. Run it with ``uvicorn listener_litestar:app``; register ``https://…/thingspace/``."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from litestar import Litestar, asgi, get
from litestar.types import Receive, Scope, Send

import fotahook

listener = fotahook.Listener(inbox="sqlite:///inbox.db")


@listener.on_any
async def record(message: fotahook.CallbackMessage) -> None:
    print(message.kind, *(f"{device.device_id} {device.status}" for device in message.devices), flush=True)


@asynccontextmanager
async def lifespan(app: Litestar) -> AsyncIterator[None]:
    async with listener.running():
        yield


@asgi("/thingspace", is_mount=True, copy_scope=True)
async def thingspace(scope: Scope, receive: Receive, send: Send) -> None:
    await listener(scope, receive, send)  # type: ignore[arg-type]  # Litestar has its own types for ASGI


@get("/")
async def index() -> str:
    return "the rest of the app"


app = Litestar(route_handlers=[thingspace, index], lifespan=[lifespan])

"""A listener in a Starlette app. Run it with ``uvicorn listener_starlette:app``; register ``https://…/thingspace/``."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

import fotahook

listener = fotahook.Listener(inbox="sqlite:///inbox.db")


@listener.on_any
async def record(message: fotahook.CallbackMessage) -> None:
    print(message.kind, *(f"{device.device_id} {device.status}" for device in message.devices), flush=True)


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    async with listener.running():
        yield


async def index(request: Request) -> PlainTextResponse:
    return PlainTextResponse("the rest of the app")


app = Starlette(routes=[Mount("/thingspace", listener), Route("/", index)], lifespan=lifespan)

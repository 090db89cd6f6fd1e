"""A listener in a FastAPI app. Run it with ``uvicorn listener_fastapi:app``; register ``https://…/thingspace/``."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

import fotahook

listener = fotahook.Listener(inbox="sqlite:///inbox.db")


@listener.on_any
async def record(message: fotahook.CallbackMessage) -> None:
    print(message.kind, *(f"{device.device_id} {device.status}" for device in message.devices), flush=True)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with listener.running():
        yield


app = FastAPI(lifespan=lifespan)
app.mount("/thingspace", listener)


@app.get("/")
async def index() -> str:
    return "the rest of the app"

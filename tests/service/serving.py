"""A development service behind a real server."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import uvicorn

from fotahook.contract.addresses import EVERYWHERE
from fotahook.service import Settings, build_app
from fotahook.service.credentials import provision_dev
from fotahook.store import SqliteStore, Store
from tests.deadlines import DEADLINE

SECRET_KEY = bytes(range(32))


class Server(uvicorn.Server):
    """A server that says when it listens."""

    def __init__(self, config: uvicorn.Config, listening: "SimpleQueue[Server]", closing: asyncio.Event) -> None:
        super().__init__(config)
        self._listening = listening
        self._closing = closing

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self._listening.put(self)

    async def shutdown(self, sockets: Any = None) -> None:
        self._closing.set()
        await super().shutdown(sockets)

    @property
    def url(self) -> str:
        host, port = self.servers[0].sockets[0].getsockname()
        return f"http://{host}:{port}"


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The base URL of a service on a free port of this machine, in a thread of its own."""
    listening: SimpleQueue[Server] = SimpleQueue()
    thread = threading.Thread(target=lambda: asyncio.run(_serve(folder / "served.db", listening)))
    thread.start()
    server = listening.get(timeout=DEADLINE)
    try:
        yield server.url
    finally:
        server.should_exit = True
        thread.join(DEADLINE)


def server_of(store: Store, listening: "SimpleQueue[Server]") -> Server:
    """A server of the service over a store, on a free port of this machine."""
    settings = Settings(secret_key=SECRET_KEY, allow_http=True, allowed_networks=EVERYWHERE)
    closing = asyncio.Event()
    config = uvicorn.Config(
        build_app(store, settings, closing=closing), host="127.0.0.1", port=0, log_config=None, access_log=False
    )
    return Server(config, listening, closing)


async def _serve(file: Path, listening: "SimpleQueue[Server]") -> None:
    store = await SqliteStore.open(file)
    try:
        await provision_dev(store)
        await server_of(store, listening).serve()
    finally:
        await store.close()

"""Receivers of all accounts at one port: they note what arrives, and answer as they are told to."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from .links import reset

_ANSWER: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
LIES: Final = {
    "2xx cut off": b"HTTP/1.1 200 OK\r\nContent-Le",
    "200, then reset": b"HTTP/1.1 200 OK\r\nContent-Length: 200\r\n\r\n{}",
    "garbage": bytes(range(128, 256)) * 4,
}
"""What is sent before the connection ends."""


class Receivers:
    """An HTTP server: the path of a request is its account's name."""

    def __init__(self, arrived: Callable[[str, str, bytes], None]) -> None:
        self.port = 0
        self.lies: dict[str, str] = {}
        """How the receivers of these accounts answer; the others do as they should."""
        self.seconds = 0.0
        """How long each takes to answer."""
        self.answering = asyncio.Event()
        """Answers wait for it."""
        self.answering.set()
        self._arrived = arrived
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    @asynccontextmanager
    async def listening(self) -> AsyncIterator["Receivers"]:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            self.answering.set()
            for writer in self._connections.values():
                reset(writer)
            await asyncio.gather(*self._connections)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = writer
        try:
            while await self._answer(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError):
            return
        finally:
            del self._connections[task]
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; whether the connection lives on."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        line, *fields = head.split("\r\n")
        headers = {name.lower(): value for name, _, value in (field.partition(": ") for field in fields)}
        body = await reader.readexactly(int(headers["content-length"]))
        account = line.split()[1].removeprefix("/")
        self._arrived(account, headers["webhook-id"], body)
        await asyncio.sleep(self.seconds)
        await self.answering.wait()
        lie = self.lies.get(account)
        writer.write(_ANSWER if lie is None else LIES[lie])
        await writer.drain()
        if lie == "200, then reset":
            reset(writer)
        return lie is None

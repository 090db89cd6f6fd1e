"""TCP between two machines, which can be cut in the ways in which networks are."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER with no time: closing sends RST."""


def reset(writer: asyncio.StreamWriter) -> None:
    """End a connection at once, as a machine does that knows nothing of it."""
    found = writer.get_extra_info("socket")
    if found is not None and found.fileno() >= 0:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()


class Link:
    """Listens at a port of 127.0.0.1 and carries bytes to another one, in both directions unless it is cut."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self._dropping = False
        self._open = {"out": asyncio.Event(), "in": asyncio.Event()}
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.heal()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator["Link"]:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            self.heal()
            self._dropping = True
            for writer in self._writers:
                reset(writer)
            await asyncio.gather(*self._tasks)

    def cut(self, how: str) -> None:
        """One of schedule.CUTS."""
        if how == "drop":
            self._dropping = True
            for writer in self._writers:
                reset(writer)
            return
        self._open["in"].clear()
        if how == "black hole":
            self._open["out"].clear()

    def heal(self) -> None:
        """Carry on, with what was held back too, as TCP does."""
        self._dropping = False
        for gate in self._open.values():
            gate.set()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        other = None
        self._writers.add(writer)
        try:
            if self._dropping:
                reset(writer)
                return
            await self._open["out"].wait()
            onwards, other = await asyncio.open_connection("127.0.0.1", self.target)
            self._writers.add(other)
            await asyncio.gather(self._carry(reader, other, "out"), self._carry(onwards, writer, "in"))
        except OSError:
            # What one side does is done to the other.
            reset(writer)
        finally:
            self._tasks.discard(task)
            for one in (writer, other):
                if one is not None:
                    self._writers.discard(one)
                    one.close()

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, direction: str) -> None:
        while data := await source.read(65536):
            await self._open[direction].wait()
            sink.write(data)
            await sink.drain()
        await self._open[direction].wait()
        with contextlib.suppress(OSError):
            sink.write_eof()

"""A name server for the receivers' names, which can stop to answer."""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Final, cast

_ANSWERED: Final = b"\x81\x80"  # a response, recursion desired and available, no error
_A: Final = b"\x00\x01"
_ADDRESS: Final = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x00\x00\x04" + bytes((127, 0, 0, 1))
"""An A record for the name at offset 12, which may not be remembered: 127.0.0.1."""


class NameServer(asyncio.DatagramProtocol):
    """Answers 127.0.0.1 for each name, over UDP; queries for the names in `silent` are swallowed."""

    def __init__(self) -> None:
        self.port = 0
        self.silent: Collection[str] = ()
        self.swallowed = 0

    @asynccontextmanager
    async def listening(self) -> AsyncIterator["NameServer"]:
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: self, ("127.0.0.1", 0))
        self.port = transport.get_extra_info("sockname")[1]
        try:
            yield self
        finally:
            transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str | int, int]) -> None:
        name, end = _name(data)
        if name in self.silent:
            self.swallowed += 1
            return
        records = _ADDRESS if data[end : end + 2] == _A else b""
        counts = b"\x00\x01" + len(records[:1]).to_bytes(2) + bytes(4)
        self._transport.sendto(data[:2] + _ANSWERED + counts + data[12 : end + 4] + records, addr)


def _name(query: bytes) -> tuple[str, int]:
    """The name that a query asks for, and where it ends."""
    labels, at = [], 12
    while (size := query[at]) > 0:
        labels.append(query[at + 1 : at + 1 + size].decode().lower())
        at += 1 + size
    return ".".join(labels), at + 1

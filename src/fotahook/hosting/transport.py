"""A transport that sends a response's head and body, which uvicorn writes separately, in one packet."""

import asyncio
from typing import Any

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT


class BufferedTransport:
    """A transport that joins what is written in one turn of the loop."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._buffer = bytearray()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if not self._buffer:
            self._loop.call_soon(self._flush)
        self._buffer += data
        if len(self._buffer) > HIGH_WATER_LIMIT:
            # The transport tells uvicorn when to pause.
            self._flush()

    def write_eof(self) -> None:
        self._flush()
        self._transport.write_eof()

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def get_write_buffer_size(self) -> int:
        return len(self._buffer) + self._transport.get_write_buffer_size()

    def _flush(self) -> None:
        data, self._buffer = self._buffer, bytearray()
        if data and not self._transport.is_closing():
            self._transport.write(data)

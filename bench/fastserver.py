"""A minimal server for the SDK's calls: constant responses, on uvloop.

`python -m bench.fastserver CORE` prints its URL and serves on that core until its stdin closes.
"""

import asyncio
import os
import sys
from typing import cast

import uvloop


def _answer(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


_URL = _answer(b'{"url": "https://10.120.102.183:50559/CallbackListener/FirmwareServiceMessages.asmx"}')
_TOKEN = _answer(b'{"access_token": "a-token-for-the-bench", "token_type": "Bearer", "expires_in": 3600}')
_SESSION = _answer(b'{"sessionToken": "0f2a7b1e-0000-4000-8000-000000000000"}')


class _Protocol(asyncio.Protocol):
    def __init__(self) -> None:
        self._seen = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not subclasses of asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._seen += data
        head, end, rest = self._seen.partition(b"\r\n\r\n")
        if not end:
            return
        length = head.lower().partition(b"content-length: ")[2].split(b"\r\n", 1)[0]
        if len(rest) < int(length or 0):
            return
        self._seen = b""
        path = head.split(b" ", 2)[1]
        if path.endswith(b"/token"):
            self._transport.write(_TOKEN)
        elif path.endswith(b"/login"):
            self._transport.write(_SESSION)
        else:
            self._transport.write(_URL)


async def _main() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Protocol, "127.0.0.1", 0, backlog=1024)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        os.sched_setaffinity(0, {int(sys.argv[1])})
    uvloop.run(_main())

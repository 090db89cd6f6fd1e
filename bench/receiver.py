"""A minimal receiver of callbacks, in a separate process.

`python -m bench.receiver [CORE]` prints its URL and serves until its stdin closes. ``/slow/SECONDS`` answers after that
time, ``/flaky/SHARE`` answers 503 to that share of requests, every other path is answered 200 at once; connections stay
open. ``/count`` returns the number of other responses so far.
"""

import asyncio
import os
import random
import sys
from typing import cast

import uvloop

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
REFUSAL = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
_random = random.Random(7)


class _Protocol(asyncio.Protocol):
    answered = 0

    def __init__(self) -> None:
        self._seen = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not subclasses of asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._seen += data
        head, end, body = self._seen.partition(b"\r\n\r\n")
        if not end:
            return
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        if len(body) < int(length or 0):
            return
        self._seen = b""
        if head.startswith(b"GET /count "):
            count = str(_Protocol.answered).encode()
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(count), count))
            return
        match head.split(b" ", 2)[1].split(b"/"):
            case [_, b"slow", seconds]:
                asyncio.get_running_loop().call_later(float(seconds), self._answer, ANSWER)
            case [_, b"flaky", share] if _random.random() < float(share):
                self._answer(REFUSAL)
            case _:
                self._answer(ANSWER)

    def _answer(self, answer: bytes) -> None:
        _Protocol.answered += 1
        # The client may have closed the connection meanwhile.
        if not self._transport.is_closing():
            self._transport.write(answer)


async def _main() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Protocol, "127.0.0.1", 0, backlog=1024)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        os.sched_setaffinity(0, {int(sys.argv[1])})
    uvloop.run(_main())

"""Sends requests at a fixed rate, each measured from the time it was due, while slow clients are connected.

`python -m bench.service_load PORT RATE SECONDS SLOW FILE` sends the requests of a JSON file in turn and prints the
p99 of each in milliseconds. wrk sends a request only when the previous one is answered, which would hide stalls.
"""

import asyncio
import json
import math
import os
import sys
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import msgspec
import uvloop

CONNECTIONS = 64
DRIP_SECONDS = 1.0
SLOW_HEAD = "GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX: "


class LoadFile(msgspec.Struct):
    """The content of the file: complete requests by name, and the beginning of one whose body never ends."""

    requests: dict[str, str]
    slow_body: str


class Load:
    """An open-loop load: sends each request when it is due, over an idle connection, or queues it for one."""

    def __init__(self, requests: Mapping[str, bytes], rate: float) -> None:
        self._requests = list(requests.items())
        self._rate = rate
        self._sent = 0
        self._waiting: deque[tuple[str, bytes, float]] = deque()
        self.idle: list[Connection] = []
        self.took: dict[str, list[float]] = {name: [] for name in requests}

    async def run(self, seconds: float) -> None:
        begun = time.perf_counter()
        # A busy loop: the event loop's clock and timers are as coarse as a response takes.
        while (now := time.perf_counter()) < begun + seconds:
            while begun + self._sent / self._rate <= now:
                name, request = self._requests[self._sent % len(self._requests)]
                self._waiting.append((name, request, begun + self._sent / self._rate))
                self._sent += 1
            self.send()
            await asyncio.sleep(0)

    def send(self) -> None:
        while self._waiting and self.idle:
            self.idle.pop().ask(*self._waiting.popleft())

    def answered(self, name: str, due: float) -> None:
        self.took[name].append(time.perf_counter() - due)


class Connection(asyncio.Protocol):
    """One request at a time."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._seen = b""
        self._asked: tuple[str, float] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not subclasses of asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        self._load.idle.append(self)

    def ask(self, name: str, request: bytes, due: float) -> None:
        self._asked = name, due
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._seen += data
        head, end, body = self._seen.partition(b"\r\n\r\n")
        if not end or len(body) < int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]):
            return
        if not head.startswith(b"HTTP/1.1 2") or self._asked is None:
            raise SystemExit(f"unexpected response: {self._seen.decode()}")
        self._load.answered(*self._asked)
        self._seen, self._asked = b"", None
        self._load.idle.append(self)
        self._load.send()


async def hang_on(port: int, begun: bytes, drip: bytes, after: float) -> None:
    """A slow client: sends the beginning of a request, then a byte now and then; reconnects when it is refused."""
    await asyncio.sleep(after)
    while True:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(begun)
        while not writer.transport.is_closing():
            await asyncio.sleep(DRIP_SECONDS)
            writer.write(drip)


async def measure(port: int, rate: float, seconds: float, slow: int, file: LoadFile) -> dict[str, float]:
    load = Load({name: request.encode() for name, request in file.requests.items()}, rate)
    ways = ((SLOW_HEAD.encode(), b"x"), (file.slow_body.encode(), b" "))
    # Spread over time.
    hanging = [
        asyncio.create_task(hang_on(port, *ways[number % 2], number / slow * DRIP_SECONDS)) for number in range(slow)
    ]
    loop = asyncio.get_running_loop()
    for _ in range(CONNECTIONS):
        await loop.create_connection(lambda: Connection(load), "127.0.0.1", port)
    # Warm-up: connections are opened.
    await load.run(2 * DRIP_SECONDS)
    for took in load.took.values():
        took.clear()
    await load.run(seconds)
    for task in hanging:
        task.cancel()
    return {name: 1000 * sorted(took)[math.ceil(0.99 * len(took)) - 1] for name, took in load.took.items()}


if __name__ == "__main__":
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    port, rate, seconds, slow, path = sys.argv[1:]
    file = msgspec.json.decode(Path(path).read_bytes(), type=LoadFile)
    print(json.dumps(uvloop.run(measure(int(port), float(rate), float(seconds), int(slow), file))))

"""Requests at a fixed rate, each counted from the moment when it was due, while slow clients hang on.

`python -m bench.service_load PORT RATE SECONDS SLOW FILE` sends those of a JSON file in turn, and prints the p99 of
each, in milliseconds. wrk, which sends a request when the last one is answered, would wait with a server that stalls.
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
SLOW_HEAD = "GET /healthz HTTP/1.1\r\nHost: bench\r\nX: "


class Told(msgspec.Struct):
    """What the file says: whole requests by name, and the beginning of one whose body never ends."""

    requests: dict[str, str]
    slow_body: str


class Load:
    """An open loop: what is due is sent over an idle connection, or waits for one."""

    def __init__(self, requests: Mapping[str, bytes], rate: float) -> None:
        self._requests = list(requests.items())
        self._rate = rate
        self._sent = 0
        self._waiting: deque[tuple[str, bytes, float]] = deque()
        self.idle: list[Connection] = []
        self.took: dict[str, list[float]] = {name: [] for name in requests}

    async def run(self, seconds: float) -> None:
        begun = time.perf_counter()
        # It spins, and not by the loop's clock: that and its timers are as coarse as an answer takes.
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
        # uvloop's transports are no subclass of asyncio's.
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
            raise SystemExit(f"it answered {self._seen.decode()}")
        self._load.answered(*self._asked)
        self._seen, self._asked = b"", None
        self._load.idle.append(self)
        self._load.send()


async def hang_on(port: int, begun: bytes, drip: bytes, after: float) -> None:
    """A slow client: the beginning of a request, then a byte now and then, and anew when it is refused."""
    await asyncio.sleep(after)
    while True:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(begun)
        while not writer.transport.is_closing():
            await asyncio.sleep(DRIP_SECONDS)
            writer.write(drip)


async def measure(port: int, rate: float, seconds: float, slow: int, told: Told) -> dict[str, float]:
    load = Load({name: request.encode() for name, request in told.requests.items()}, rate)
    ways = ((SLOW_HEAD.encode(), b"x"), (told.slow_body.encode(), b" "))
    # Not all in the same moment.
    hanging = [
        asyncio.create_task(hang_on(port, *ways[number % 2], number / slow * DRIP_SECONDS)) for number in range(slow)
    ]
    loop = asyncio.get_running_loop()
    for _ in range(CONNECTIONS):
        await loop.create_connection(lambda: Connection(load), "127.0.0.1", port)
    # What does not count: connections are made, code gets warm.
    await load.run(2 * DRIP_SECONDS)
    for took in load.took.values():
        took.clear()
    await load.run(seconds)
    for task in hanging:
        task.cancel()
    return {name: 1000 * sorted(took)[math.ceil(0.99 * len(took)) - 1] for name, took in load.took.items()}


if __name__ == "__main__":
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    port, rate, seconds, slow, file = sys.argv[1:]
    told = msgspec.json.decode(Path(file).read_bytes(), type=Told)
    print(json.dumps(uvloop.run(measure(int(port), float(rate), float(seconds), int(slow), told))))

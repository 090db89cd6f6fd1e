"""The listener compared with a bare Starlette app and with what users write instead: 64 connections over real sockets.

Each contestant is one worker with all its threads on one core; the load runs on another.
`python -m bench.listener CONTESTANT` measures one contestant in messages per second; `python -m bench.listener ledger`
compares the CPU of accepting with the ledger and without.
"""

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import cast

import uvloop

from bench import rig
from bench.listener_apps import PATH
from bench.report import Figure, Report
from fotahook.testing import campaign

ROUNDS = 5
CONNECTIONS = 64
WARM_UP = 2_000
HEAD = b"POST %b HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
SLICE = 512
SLICES = 80
MESSAGES = {"bare": 20_000, "accepting": 20_000, "handling": 20_000, "sqlalchemy": 2_000}
TITLES = {
    "bare": "bare Starlette: reads the body, answers 200",
    "accepting": "listener, durable accepts (SQLite, synced)",
    "handling": "listener, accepted and handled by a trivial handler",
    "sqlalchemy": "FastAPI, a commit for each message through SQLAlchemy async",
}
PEERS = ("aiosqlite", "fastapi", "sqlalchemy", "starlette", "uvicorn")


def main(report: Report) -> None:
    rounds = [{name: rig.run("bench.listener", name)["per_second"] for name in MESSAGES} for _ in range(ROUNDS)]
    ledger = [rig.run("bench.listener", "ledger")["cpu"] for _ in range(ROUNDS)]
    header = (f"listener, {CONNECTIONS} connections", "messages/s")
    report.table(header, [(TITLES[name], rates) for name, rates in rig.by_name(rounds).items()])
    report.compare(
        [
            Figure("durable accepts, x bare Starlette", rig.ratios(rounds, "accepting", "bare"), at_least=0.65),
            Figure("durable accepts, x SQLAlchemy", rig.ratios(rounds, "accepting", "sqlalchemy"), at_least=5),
            Figure("CPU of an accepted message with the ledger, x without", ledger, at_most=1.1),
            Figure("handled, x bare Starlette", rig.ratios(rounds, "handling", "bare"), at_least=0.3),
        ]
    )


@contextmanager
def serving(contestant: str, folder: str) -> Iterator[tuple[int, int]]:
    """The port and the process id of a contestant that runs in a separate process."""
    command = [sys.executable, "-W", "ignore", "-m", "bench.listener_apps", contestant, folder]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            yield int(process.stdout.readline().rsplit(":", 1)[1].strip(" /\n")), process.pid
        finally:
            # It serves until its stdin closes.
            process.stdin.close()


class Connection(asyncio.Protocol):
    """Sends the next request as soon as the previous one is answered."""

    def __init__(self, requests: Iterator[bytes], done: asyncio.Future[None]) -> None:
        self._requests = requests
        self._done = done
        self._seen = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not subclasses of asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        self._next()

    def data_received(self, data: bytes) -> None:
        self._seen += data
        head, end, body = self._seen.partition(b"\r\n\r\n")
        if not end or len(body) < int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]):
            return
        if not head.startswith(b"HTTP/1.1 2"):
            self._done.set_exception(RuntimeError(self._seen.decode()))
            return
        self._seen = b""
        self._next()

    def connection_lost(self, error: Exception | None) -> None:
        if not self._done.done():
            self._done.set_exception(error or RuntimeError("the server hung up"))

    def _next(self) -> None:
        request = next(self._requests, None)
        if request is None:
            self._done.set_result(None)
            self._transport.close()
        else:
            self._transport.write(request)


async def post(port: int, requests: list[bytes]) -> None:
    """Send all requests over all connections."""
    loop, left = asyncio.get_running_loop(), iter(requests)
    done = [loop.create_future() for _ in range(CONNECTIONS)]
    for one in done:
        await loop.create_connection(lambda one=one: Connection(left, one), "127.0.0.1", port)  # type: ignore[misc]
    await asyncio.gather(*done)


async def handled(port: int, count: int) -> None:
    """Wait until the handler has seen `count` messages."""
    while True:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
        seen = int((await reader.read()).rpartition(b"\r\n")[2])
        writer.close()
        if seen >= count:
            return
        await asyncio.sleep(0.01)


def requests(count: int) -> list[bytes]:
    bodies = (message.body for message in campaign("0000123456-00001", devices=count // 3 + 1, failures=0))
    return [HEAD % (PATH.encode(), len(body)) + body for body in islice(bodies, count)]


async def measure(contestant: str) -> float:
    count = MESSAGES[contestant]
    everything = requests(WARM_UP + count)
    with tempfile.TemporaryDirectory(prefix="fotahook-bench-") as folder, serving(contestant, folder) as (port, _):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        await post(port, everything[:WARM_UP])
        if contestant == "handling":
            await handled(port, WARM_UP)
        begun = time.perf_counter()
        await post(port, everything[WARM_UP:])
        if contestant == "handling":
            await handled(port, WARM_UP + count)
        return count / (time.perf_counter() - begun)


async def measure_ledger() -> float:
    """The CPU that one process takes with the ledger, by that which another takes without it, for the same messages.

    They take turns many times, and each slice is compared with its neighbour: a slow moment affects both sides.
    """
    everything = requests(WARM_UP + SLICE * SLICES)
    with (
        tempfile.TemporaryDirectory(prefix="fotahook-bench-") as folder,
        tempfile.TemporaryDirectory(prefix="fotahook-bench-") as other,
        serving("accepting", folder) as ours,
        serving("without_ledger", other) as bare,
    ):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        for port, _ in (ours, bare):
            await post(port, everything[:WARM_UP])
        ratios = []
        for number in range(SLICES):
            part = everything[WARM_UP + SLICE * number :][:SLICE]
            took = {}
            for contestant in (ours, bare) if number % 2 else (bare, ours):
                port, process = contestant
                before = rig.scheduled_seconds(process)
                await post(port, part)
                took[contestant] = rig.scheduled_seconds(process) - before
            ratios.append(took[ours] / took[bare])
        return statistics.median(ratios)


if __name__ == "__main__":
    if sys.argv[1] == "ledger":
        print(json.dumps({"cpu": uvloop.run(measure_ledger())}))
    else:
        print(json.dumps({"per_second": uvloop.run(measure(sys.argv[1]))}))

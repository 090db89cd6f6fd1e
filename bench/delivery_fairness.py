"""Fairness: how receivers that hang, and one account with a long backlog, affect healthy accounts.

`python -m bench.delivery_fairness WORLD RECEIVER` measures one world: the 99th percentile of the time from accepted to
delivered, over HEALTHY accounts that each get a message now and then and answer after a while, as receivers do.
"""

import asyncio
import json
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import quantiles

import uvloop

from bench import rig
from bench.delivery_accept import BODY
from bench.delivery_rate import sender
from bench.report import Figure, Report
from fotahook.delivery import Dispatcher, Outcome
from fotahook.store import Store, open_store
from fotahook.store.records import Delivery, Health, LaneVerdict, Lease, NewMessage

ROUNDS = 3
HEALTHY = [f"healthy-{number:03}" for number in range(200)]
TARPITS = [f"tarpit-{number:03}" for number in range(200)]
HOLES = [f"hole-{number:03}" for number in range(1000)]
"""Their receiver swallows connections."""
BUSY = "busy-0"
HEALTHY_SECONDS = 0.02
"""Response time of a receiver on the Internet."""
SLACK_MS = 50
SECONDS = 8.0
PER_SECOND = 200
BACKLOG = 100_000


def figures(report: Report) -> list[Figure]:
    with rig.receiver() as receiver:
        rounds = [
            {world: rig.run("bench.delivery_fairness", world, receiver)["p99_ms"] for world in WORLDS}
            for _ in range(ROUNDS)
        ]
    report.table(
        (f"{len(HEALTHY)} healthy accounts, {PER_SECOND} messages/s, answered after 20 ms", "p99, ms"),
        [(WORLDS[world], p99) for world, p99 in rig.by_name(rounds).items()],
    )

    def beside(world: str) -> list[float]:
        return [(found[world] - SLACK_MS) / found["alone"] for found in rounds]

    return [
        Figure(f"healthy p99 beside {title}, less 50 ms, x without", beside(world), at_most=1.5)
        for world, title in (
            ("tarpits", "200 tarpits"),
            ("holes", "1,000 black holes"),
            ("busy", "a backlog of 100,000"),
        )
    ]


async def measure(world: str, receiver: str, url: str) -> rig.Found:
    store = await open_store(url)
    for account in HEALTHY:
        await store.register(account, f"{receiver}/slow/{HEALTHY_SECONDS}", actor="bench")
    with _black_hole() as hole:
        await _add_others(store, world, receiver, hole)
        found = await _measure(store)
    await store.close()
    return found


async def _measure(store: Store) -> rig.Found:
    seconds: list[float] = []

    async def deliver(lease: Lease, delivery: Delivery) -> Outcome:
        outcome = await posts.deliver(lease, delivery)
        if lease.account in accounts and outcome.code == "delivered":
            seconds.append(time.time() - delivery.accepted_at)
        return outcome

    accounts = set(HEALTHY)
    async with sender() as posts:
        dispatching = asyncio.create_task(Dispatcher(store, deliver).run())
        await _accept_steadily(store, warm_up=len(HEALTHY))
        await asyncio.sleep(1)
        # Tarpits hold attempts for half a minute: do not wait for those.
        dispatching.cancel()
        await asyncio.gather(dispatching, return_exceptions=True)
    expected = len(HEALTHY) + int(PER_SECOND * SECONDS)
    if len(seconds) < expected:
        raise RuntimeError(f"{len(seconds)} of {expected} messages were delivered")
    return {"p99_ms": quantiles(seconds[len(HEALTHY) :], n=100)[-1] * 1000}


async def _accept_steadily(store: Store, *, warm_up: int) -> None:
    for number in range(warm_up):
        await store.accept([NewMessage(account=HEALTHY[number], body=BODY)])
    begun = time.perf_counter()
    for number in range(int(PER_SECOND * SECONDS)):
        await asyncio.sleep(begun + number / PER_SECOND - time.perf_counter())
        await store.accept([NewMessage(account=HEALTHY[number * 7 % len(HEALTHY)], body=BODY)])


async def _add_others(store: Store, world: str, receiver: str, hole: str) -> None:
    if world == "tarpits":
        # Half of them time out; half answer just in time, which no policy counts as a failure.
        for number, account in enumerate(TARPITS):
            await store.register(account, f"{receiver}/slow/{30 if number % 2 else 14}", actor="bench")
        await _fill(store, TARPITS, 50)
    if world == "holes":
        for account in HOLES:
            await store.register(account, hole, actor="bench")
        await _fill(store, HOLES, 10)
    if world == "busy":
        await store.register(BUSY, f"{receiver}/slow/{HEALTHY_SECONDS}", actor="bench")
        await _fill(store, [BUSY], BACKLOG)


@contextmanager
def _black_hole() -> Iterator[str]:
    """The URL of a port that takes no more connections and refuses none: its queue is full."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            yield f"http://127.0.0.1:{port}/"


async def _fill(store: Store, accounts: Sequence[str], depth: int) -> None:
    """Backlogs of lanes that were healthy before, so that each starts with its full window."""
    for account in accounts:
        for _ in range(0, depth, 1000):
            await store.accept([NewMessage(account=account, body=BODY) for _ in range(min(depth, 1000))])
    for lease in await store.lease(len(accounts), 30):
        await store.settle(lease, [], LaneVerdict(health=Health(window=8)), keep=0)


WORLDS = {
    "alone": "nobody else",
    "tarpits": "beside 200 tarpits of 14 and 30 s",
    "holes": "beside 1,000 that swallow connections",
    "busy": "beside an account with a backlog of 100,000",
}

if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="fotahook-bench-") as directory:
        print(json.dumps(uvloop.run(measure(sys.argv[1], sys.argv[2], f"sqlite:///{Path(directory)}/store.db"))))

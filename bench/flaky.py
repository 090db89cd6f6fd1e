"""Receivers that fail now and then: what one account still gets delivered, and when; and what a dead one is sent.

`python -m bench.flaky WORLD RECEIVER` measures one world, in one process with the store and the dispatcher.
"""

import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import quantiles

import uvloop

from bench import rig
from bench.delivery_accept import BODY
from bench.delivery_rate import sender
from bench.report import Figure, Report
from fotahook.delivery import Dispatcher, Outcome, Rules
from fotahook.store import Store, open_store
from fotahook.store.records import Delivery, Lease, NewMessage

ROUNDS = 3
ACCOUNT = "0000123456-00001"
IN_FLIGHT = 8
SHARES = {0.0: 1.0, 0.001: 0.9, 0.01: 0.8, 0.05: 0.5}
"""Shares of requests answered 503, and the delivered rate wanted, relative to none."""
RATE_SECONDS = 10.0
BACKLOG = 3000
STEADY_SECONDS = 20.0
DEAD_SECONDS = 60.0
DEAD = [f"dead-{number:02}" for number in range(20)]
NOBODY = "http://127.0.0.1:9/"
"""Nothing listens there."""


def main(report: Report) -> None:
    with rig.receiver() as receiver:

        def measure(world: str) -> float:
            return rig.run("bench.flaky", world, receiver)["value"]

        rounds = [{f"{share}": measure(f"rate:{share}") for share in SHARES} for _ in range(ROUNDS)]
        steady = [measure("steady") for _ in range(ROUNDS)]
        ordered = [measure("ordered") for _ in range(ROUNDS)]
        dead = measure("dead")
    report.table(
        ("share of requests answered 503; one account, 8 in flight", "delivered messages/s"),
        [(f"{float(share):.1%}", rates) for share, rates in rig.by_name(rounds).items()],
    )
    report.compare(
        [
            *(
                Figure(f"delivered rate at {p:.1%}, x at none", rig.ratios(rounds, f"{p}", "0.0"), at_least=wanted)
                for p, wanted in SHARES.items()
                if p
            ),
            Figure("20 messages/s at 5 %: p95 from accepted to delivered, s", steady, at_most=1.5),
            Figure("100 messages/s of one key at 1 %: all delivered after the last publish, s", ordered, at_most=5),
            Figure("attempts of a dead endpoint in its first minute, the most of 20", dead, at_most=12),
        ]
    )


class World:
    """A store with a dispatcher; `delivered` are the times of delivery by message, `attempts` counts by account."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.delivered: dict[str, float] = {}
        self.attempts: Counter[str] = Counter()

    async def run(self, work: Callable[["World"], Awaitable[float]]) -> float:
        async with sender() as posts:

            async def deliver(lease: Lease, delivery: Delivery) -> Outcome:
                self.attempts[delivery.account] += 1
                outcome = await posts.deliver(lease, delivery)
                if outcome.code == "delivered":
                    self.delivered[delivery.message] = time.time() - delivery.accepted_at
                return outcome

            dispatching = asyncio.create_task(Dispatcher(self.store, deliver, rules=Rules(in_flight=IN_FLIGHT)).run())
            try:
                return await work(self)
            finally:
                dispatching.cancel()
                await asyncio.gather(dispatching, return_exceptions=True)

    async def accept(self, count: int, *, ordering_key: str | None = None) -> None:
        message = NewMessage(account=ACCOUNT, body=BODY, ordering_key=ordering_key)
        await self.store.accept([message] * count)

    async def accept_steadily(self, per_second: float, *, ordering_key: str | None = None) -> int:
        begun, count = time.perf_counter(), int(per_second * STEADY_SECONDS)
        for number in range(count):
            await asyncio.sleep(begun + number / per_second - time.perf_counter())
            await self.accept(1, ordering_key=ordering_key)
        return count


async def rate(world: World) -> float:
    """Delivered messages/s while a backlog lasts."""
    begun, accepted = time.perf_counter(), 0
    while (passed := time.perf_counter() - begun) < RATE_SECONDS:
        if accepted - len(world.delivered) < BACKLOG:
            await world.accept(1000)
            accepted += 1000
        await asyncio.sleep(0.02)
    return len(world.delivered) / passed


async def steady(world: World) -> float:
    """The 95th percentile of the seconds from accepted to delivered."""
    count = await world.accept_steadily(20)
    await _until(lambda: len(world.delivered) == count)
    return quantiles(world.delivered.values(), n=20)[-1]


async def ordered(world: World) -> float:
    """Seconds from the last publish until the last delivery."""
    count = await world.accept_steadily(100, ordering_key="one")
    begun = time.perf_counter()
    await _until(lambda: len(world.delivered) == count)
    return time.perf_counter() - begun


async def dead(world: World) -> float:
    for account in DEAD:
        await world.store.register(account, NOBODY, actor="bench")
        await world.store.accept([NewMessage(account=account, body=BODY)] * 100)
    await asyncio.sleep(DEAD_SECONDS)
    return max(world.attempts.values())


async def _until(done: Callable[[], bool]) -> None:
    while not done():  # noqa: ASYNC110  # a bench may poll
        await asyncio.sleep(0.01)


async def _measure(name: str, receiver: str, url: str) -> float:
    kind, _, share = name.partition(":")
    shares = {"rate": share, "steady": "0.05", "ordered": "0.01", "dead": "0"}
    works = {"rate": rate, "steady": steady, "ordered": ordered, "dead": dead}
    store = await open_store(url)
    await store.register(ACCOUNT, f"{receiver}/flaky/{shares[kind]}", actor="bench")
    value = await World(store).run(works[kind])
    await store.close()
    return value


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="fotahook-bench-") as directory:
        value = uvloop.run(_measure(sys.argv[1], sys.argv[2], f"sqlite:///{Path(directory)}/store.db"))
    print(json.dumps({"value": value}))

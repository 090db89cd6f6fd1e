"""A campaign on a virtual clock: real dispatchers with the real policy, over a store and receivers that are simulated.

SIMULATION=whole simulates 10 million messages in 100,000 lanes, in about ten minutes; otherwise it is a small campaign.
`python -m bench.simulation LANES MESSAGES` simulates one and prints JSON. Messages arrive over CAMPAIGN_SECONDS;
hours of it take minutes, since the event loop does not wait but moves its clock on to the next timer.
"""

import asyncio
import heapq
import json
import logging
import math
import os
import random
import selectors
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Final, cast

from bench import capacity, rig
from bench.report import Figure, Report
from fotahook.delivery import Dispatcher, Outcome
from fotahook.store import Store
from fotahook.store.records import Delivery, HandOver, Health, LaneVerdict, Lease, LeaseRequest, Limits, Settlement

CAMPAIGN_SECONDS: Final = 3600.0
BURST: Final = 25
"""Messages of one account that are published together."""
DISPATCHERS: Final = 4
STORE_SECONDS: Final = 0.01
"""A call of the store, which commits those that wait together."""
KINDS: Final = {"healthy": 0.90, "flaky": 0.05, "slow": 0.02, "hanging": 0.02, "down": 0.01}
"""Shares of the lanes by what their receivers are like."""
ANSWER_SECONDS: Final = 0.05
SLOW_SECONDS: Final = 2.0
HANG_SECONDS: Final = 15.0
FLAKY_FAILURES: Final = 0.05
REPAIRED_AT: Final = CAMPAIGN_SECONDS / 2
"""When receivers that are down come back."""
_BUCKETS_PER_FOLD: Final = 20


SMALL, WHOLE = (2_000, 200_000), (100_000, 10_000_000)
WHOLE_SECONDS: Final = 7200.0


def main(report: Report) -> None:
    report.compare([*campaign(report), *shard(report)])


def campaign(report: Report) -> list[Figure]:
    lanes, messages = WHOLE if os.environ.get("SIMULATION") == "whole" else SMALL
    found = rig.run("bench.simulation", lanes, messages, seconds=WHOLE_SECONDS)
    report.say(
        f"Simulated on a virtual clock: {found['messages']:,.0f} messages in {lanes:,} lanes within an hour, with "
        f"{DISPATCHERS} dispatchers; {found['seconds']:.0f} s in fact."
    )
    rows = [
        (f"{kind} ({KINDS[kind]:.0%} of the lanes)", found[f"{kind} p50"], found[f"{kind} p99"])
        for kind in ("healthy", "flaky", "slow", "down")
    ]
    report.table(("from published to delivered, s", "p50", "p99"), rows)
    report.table(
        ("for each delivered message", ""),
        [
            ("attempts", found["attempts"]),
            ("transactions that settle", found["settles"]),
            ("fetches", found["fetches"]),
        ],
    )
    return [
        Figure("simulated: healthy p99, s", found["healthy p99"], at_most=1),
        Figure("simulated: attempts of a hanging receiver in an hour", found["attempts_hanging"], at_most=60),
    ]


def shard(report: Report) -> list[Figure]:
    """Accounts with as different loads as in reality, over several databases by the hash of their names."""
    chance = random.Random(7)
    weights = {f"{number:010}-00001": chance.paretovariate(1.2) for number in range(100_000)}
    # The largest accounts are placed by hand, see docs/scale.md.
    largest = sorted(weights, key=weights.__getitem__)[-20:]
    small = {account: weight for account, weight in weights.items() if account not in largest}
    rows = []
    for count in (2, 4, 8):
        databases = [f"database-{number}" for number in range(count)]
        more = [*databases, f"database-{count}"]
        moved = sum(
            capacity.database_of(account, databases) != capacity.database_of(account, more) for account in small
        )
        rows.append(
            (str(count), capacity.imbalance(weights, databases), capacity.imbalance(small, databases), moved / 1e5)
        )
    report.table(
        ("databases", "largest load, x even", "without the 20 largest accounts", "accounts moved by one more"), rows
    )
    return [Figure("the most loaded of 8 databases, the 20 largest accounts aside, x even", rows[-1][2], at_most=1.2)]


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop that never waits: its time is that of the next timer."""

    def __init__(self) -> None:
        super().__init__(_Skip(self))
        self.now = 0.0

    def time(self) -> float:
        return self.now


class _Skip(selectors.SelectSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("nothing will ever happen")
        self._loop.now += timeout
        return []


class Lane:
    """One account's queue: `total` messages that arrive in bursts, `open` those that are fetched and not settled."""

    __slots__ = (
        *("account", "fetched", "gap", "health", "kind", "leased_until", "number", "open", "queued", "start", "token"),
        *("total", "wait_until"),
    )

    def __init__(self, number: int, kind: str, total: int, gap: float, start: float) -> None:
        self.number, self.kind, self.total, self.gap, self.start = number, kind, total, gap, start
        self.account = f"account-{number}"
        self.health = Health()
        self.token = self.fetched = 0
        self.leased_until = self.wait_until = self.queued = 0.0
        self.open: dict[int, tuple[float, int, int]] = {}
        """By number: when it is due, its attempts, its strikes."""

    def arrival(self, number: int) -> float:
        return self.start + number // BURST * self.gap

    def arrived(self, now: float) -> int:
        """How many messages are there by then."""
        return max(0, min(self.total, (math.floor((now - self.start) / self.gap) + 1) * BURST))

    def next_due(self) -> float:
        new = self.arrival(self.fetched) if self.fetched < self.total else math.inf
        return max(self.wait_until, min(new, min((due for due, _, _ in self.open.values()), default=math.inf)))


class SimulatedStore:
    """The verbs that dispatchers use, in memory; every call takes STORE_SECONDS."""

    has_many_dispatchers = True

    def __init__(self, lanes: Sequence[Lane], clock: Callable[[], float]) -> None:
        self._lanes = lanes
        self._clock = clock
        self._due: list[tuple[float, int]] = []
        for lane in lanes:
            self._queue(lane, lane.next_due())
        self.left = sum(lane.total for lane in lanes)
        """Messages that are neither delivered nor dead."""
        self.calls: Counter[str] = Counter()

    def hand_over(
        self, request: Callable[[], LeaseRequest | None], receive: Callable[[Sequence[HandOver]], None]
    ) -> None:
        """Messages are only fetched here."""

    async def wake_origin(self, origin: str, limit: int) -> int:
        return 0

    async def lease(self, limit: int, seconds: float) -> list[Lease]:
        await self._call("lease")
        now, found = self._clock(), list[Lease]()
        while self._due and self._due[0][0] <= now and len(found) < limit:
            due, number = heapq.heappop(self._due)
            lane = self._lanes[number]
            if due != lane.queued:
                continue
            if lane.leased_until <= now:
                lane.token += 1
                lane.leased_until = now + seconds
                found.append(self._lease(lane))
            # In case it is never given back.
            self._queue(lane, lane.leased_until)
        return found

    def _queue(self, lane: Lane, due: float) -> None:
        """The lane can be leased from then on; it is no longer queued for another time."""
        lane.queued = due
        if due < math.inf:
            heapq.heappush(self._due, (due, lane.number))

    def _lease(self, lane: Lane) -> Lease:
        return Lease(
            lane=lane.number,
            token=lane.token,
            account=lane.account,
            consumer="",
            open=True,
            url=lane.kind,
            revision=1,
            signing_keys=(),
            limits=Limits(),
            health=lane.health,
            read_at=self._clock(),
        )

    async def fetch(
        self, lease: Lease, limit: int, *, without: Collection[int] = (), max_bytes: int = 0
    ) -> list[Delivery]:
        await self._call("fetch")
        lane, now = self._lanes[lease.lane], self._clock()
        again = [number for number, (due, _, _) in lane.open.items() if due <= now and number not in without][:limit]
        new = range(lane.fetched, max(lane.fetched, min(lane.arrived(now), lane.fetched + limit - len(again))))
        lane.fetched = new.stop
        lane.open.update((number, (now, 0, 0)) for number in new)
        return [self._delivery(lane, number, now) for number in (*again, *new)]

    def _delivery(self, lane: Lane, number: int, now: float) -> Delivery:
        _, attempts, strikes = lane.open[number]
        accepted_at = lane.arrival(number)
        return Delivery(
            lane=lane.number,
            seq=number,
            message="",
            account=lane.account,
            type=None,
            ordering_key=None,
            body=b"",
            accepted_at=accepted_at,
            attempts=attempts,
            strikes=strikes,
            age=now - accepted_at,
        )

    async def settle(
        self, lease: Lease, settlements: Sequence[Settlement], verdict: LaneVerdict, *, keep: float
    ) -> Lease | None:
        await self._call("settle")
        lane, now = self._lanes[lease.lane], self._clock()
        if lane.token != lease.token:
            return None
        for each in settlements:
            if each.state == "pending":
                lane.open[each.delivery.seq] = now + each.delay, each.attempts, each.strikes
            else:
                del lane.open[each.delivery.seq]
                self.left -= 1
        lane.health = verdict.health
        if verdict.wait > 0:
            lane.wait_until = now + verdict.wait
        if keep > 0:
            lane.leased_until = now + keep
            return self._lease(lane)
        lane.token += 1
        lane.leased_until = 0.0
        self._queue(lane, lane.next_due())
        return None

    async def due_in(self) -> float | None:
        return max(0.0, self._due[0][0] - self._clock()) if self._due else None

    async def wait(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def _call(self, verb: str) -> None:
        self.calls[verb] += 1
        await asyncio.sleep(STORE_SECONDS)


class Receivers:
    """What the lanes' receivers answer, and how long messages took from arrival to delivery, by kind of lane."""

    def __init__(self, clock: Callable[[], float], random: random.Random) -> None:
        self._clock = clock
        self._random = random
        self.attempts: Counter[str] = Counter()
        self.delivered: Counter[str] = Counter()
        self._waits: dict[str, Counter[int]] = {kind: Counter() for kind in KINDS}

    async def deliver(self, lease: Lease, delivery: Delivery) -> Outcome:
        kind = lease.url or ""
        self.attempts[kind] += 1
        outcome = await self._answer(kind)
        if outcome.code == "delivered":
            self.delivered[kind] += 1
            milliseconds = 1000 * (self._clock() - delivery.accepted_at)
            self._waits[kind][round(_BUCKETS_PER_FOLD * math.log(max(1.0, milliseconds)))] += 1
        return outcome

    async def _answer(self, kind: str) -> Outcome:
        if kind == "hanging":
            await asyncio.sleep(HANG_SECONDS)
            return _HANGS
        if kind == "down" and self._clock() < REPAIRED_AT:
            await asyncio.sleep(ANSWER_SECONDS)
            return _REFUSED
        seconds = SLOW_SECONDS if kind == "slow" else ANSWER_SECONDS
        await asyncio.sleep(seconds * self._random.uniform(0.9, 1.1))
        return _BUSY if kind == "flaky" and self._random.random() < FLAKY_FAILURES else _DELIVERED

    def wait(self, kind: str, share: float) -> float:
        """Seconds within which this share of the delivered messages of such lanes were delivered, within 5 %."""
        waits = self._waits[kind]
        left = share * waits.total()
        for bucket in sorted(waits):
            left -= waits[bucket]
            if left <= 0:
                return math.exp(bucket / _BUCKETS_PER_FOLD) / 1000
        return math.nan


_DELIVERED: Final = Outcome(code="delivered", status=200)
_BUSY: Final = Outcome(code="http_503", status=503)
_REFUSED: Final = Outcome(code="connection_refused")
_HANGS: Final = Outcome(code="timeout_response")


def lanes_of(count: int, messages: int, random: random.Random) -> list[Lane]:
    """Lanes of each kind, with as many messages as in reality: a few have most."""
    kinds = random.choices(list(KINDS), list(KINDS.values()), k=count)
    weights = [random.paretovariate(1.2) for _ in range(count)]
    whole = sum(weights)
    lanes = []
    for number, (kind, weight) in enumerate(zip(kinds, weights, strict=True)):
        total = max(1, round(messages * weight / whole))
        gap = CAMPAIGN_SECONDS / math.ceil(total / BURST)
        lanes.append(Lane(number, kind, total, gap, random.uniform(0, gap)))
    return lanes


async def simulate(count: int, messages: int, seed: int) -> dict[str, float]:
    """Run a campaign until only hanging lanes have something left; what became of it."""
    loop = asyncio.get_running_loop()
    chance = random.Random(seed)
    lanes = lanes_of(count, messages, chance)
    store = SimulatedStore(lanes, loop.time)
    receivers = Receivers(loop.time, chance)
    dispatchers = [
        Dispatcher(cast("Store", store), receivers.deliver, clock=loop.time, monotonic=loop.time, jitter=chance.random)
        for _ in range(DISPATCHERS)
    ]
    running = [asyncio.create_task(one.run()) for one in dispatchers]
    began, cpu = time.perf_counter(), time.process_time()
    hanging = sum(lane.total for lane in lanes if lane.kind == "hanging")
    while store.left > hanging:  # noqa: ASYNC110  # on a virtual clock this costs nothing
        await asyncio.sleep(1.0)
    ended = loop.time()
    for one in running:
        one.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    done = receivers.delivered.total()
    down = [lane for lane in lanes if lane.kind == "down"]
    found = {
        "messages": sum(lane.total for lane in lanes),
        "delivered": done,
        "virtual_seconds": ended,
        "seconds": time.perf_counter() - began,
        "cpu_us": (time.process_time() - cpu) / done * 1e6,
        "settles": store.calls["settle"] / done,
        "fetches": store.calls["fetch"] / done,
        "leases": store.calls["lease"] / done,
        "attempts": receivers.attempts.total() / done,
        "attempts_down": receivers.attempts["down"] / max(1, sum(lane.total for lane in down)),
        "attempts_hanging": receivers.attempts["hanging"] / max(1, sum(lane.kind == "hanging" for lane in lanes)),
    }
    for kind in ("healthy", "flaky", "slow", "down"):
        found |= {f"{kind} p50": receivers.wait(kind, 0.5), f"{kind} p99": receivers.wait(kind, 0.99)}
    return found


def run(count: int, messages: int, seed: int = 7) -> dict[str, float]:
    """Simulate on a loop of its own. The same seed gives the same campaign."""
    logging.getLogger("fotahook.delivery").setLevel(logging.CRITICAL)
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(simulate(count, messages, seed))


if __name__ == "__main__":
    print(json.dumps(run(int(sys.argv[1]), int(sys.argv[2]))))

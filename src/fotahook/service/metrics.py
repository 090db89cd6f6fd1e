"""What a process knows of itself in numbers, for Prometheus: counted around the store, so that nothing else need know.

Each app has a registry of its own. Names of accounts are no labels. What the whole store is like is read when somebody
asks for it, and not again for some seconds, since anybody may ask.
"""

import asyncio
import time
from collections import Counter as Tally
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client import ProcessCollector as Process

from ..store.base import Store
from ..store.records import Accepted, Callback, LaneVerdict, Lease, NewMessage, Settlement, StoreError

FRESH_SECONDS: Final = 5.0
"""For so long what was read of the store is told again, or for twenty times as long as it took."""
LATENCIES: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 3600, 6 * 3600, 24 * 3600)
COMMITS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
UNKNOWN: Final = float("nan")


class Metrics:
    """Counters of one process. `clock` tells the time by which messages were accepted."""

    def __init__(
        self, *, clock: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.registry = CollectorRegistry()
        self._clock = clock
        self.monotonic = monotonic
        self._looking = asyncio.Lock()
        self._look_again_at = float("-inf")
        self._leased: set[int] = set()
        Process(registry=self.registry)
        self._accepted = self._counter("messages_accepted", "Messages accepted, without those that came again.")
        self._duplicates = self._counter("messages_duplicate", "Messages that came again under their idempotency key.")
        self._dead = self._counter("messages_dead", "Deliveries given up.")
        self._attempts = self._counter("attempts", "Attempts by what they came to.", "code")
        self._leases = self._counter("leases", "Leases of lanes taken by this process.")
        self._lanes = self._gauge("leased_lanes", "Lanes that this process has leased.")
        self._latency = Histogram(
            "fotahook_delivery_latency_seconds",
            "From the acceptance of a message to its delivery.",
            registry=self.registry,
            buckets=LATENCIES,
        )
        self._commits = Histogram(
            "fotahook_store_commit_seconds",
            "From handing a write to the store until it is on disk.",
            ["verb"],
            registry=self.registry,
            buckets=COMMITS,
        )
        self._up = self._gauge("store_up", "Whether the store could be read.")
        self._backlog = self._gauge("backlog", "Deliveries in the whole store by state.", "state")
        self._oldest = self._gauge("oldest_undelivered_seconds", "Age of the oldest undelivered message in the store.")
        self._streams = self._gauge("event_streams", "Streams of events that are open.")

    def around(self, store: Store) -> Store:
        """The same store, with its writes and leases counted."""
        return cast(Store, _CountedStore(store, self))

    def committed(self, verb: str, seconds: float) -> None:
        """A write is on disk."""
        self._commits.labels(verb).observe(seconds)

    def accepted(self, answers: Sequence[Accepted]) -> None:
        """Messages were taken."""
        again = sum(answer.duplicate for answer in answers)
        self._accepted.inc(len(answers) - again)
        self._duplicates.inc(again)

    def leased(self, leases: Sequence[Lease]) -> None:
        """Lanes are this process's."""
        self._leases.inc(len(leases))
        self._leased.update(lease.lane for lease in leases)

    def released(self, lane: int) -> None:
        """A lane is not this process's any more."""
        self._leased.discard(lane)

    def settled(self, settlements: Sequence[Settlement]) -> None:
        """Attempts were written down."""
        now = self._clock()
        codes = Tally[str]()
        for settlement in settlements:
            codes[settlement.attempt.error_code or settlement.attempt.outcome] += 1
            if settlement.state == "delivered":
                self._latency.observe(max(0.0, now - settlement.delivery.accepted_at))
            elif settlement.state == "dead":
                self._dead.inc()
        for code, count in codes.items():
            self._attempts.labels(code).inc(count)

    async def text(self, store: Store, streams: int) -> bytes:
        """All of it as Prometheus reads it."""
        async with self._looking:
            began = self.monotonic()
            if began >= self._look_again_at:
                await self._look(store)
                took = self.monotonic() - began
                self._look_again_at = began + max(FRESH_SECONDS, 20 * took)
        self._lanes.set(len(self._leased))
        self._streams.set(streams)
        return generate_latest(self.registry)

    async def _look(self, store: Store) -> None:
        try:
            backlog = await store.backlog()
        except StoreError:
            self._tell(0, UNKNOWN, UNKNOWN, UNKNOWN)
        else:
            self._tell(1, backlog.pending, backlog.dead, backlog.oldest_age or 0.0)

    def _tell(self, up: int, pending: float, dead: float, oldest: float) -> None:
        self._up.set(up)
        self._backlog.labels("pending").set(pending)
        self._backlog.labels("dead").set(dead)
        self._oldest.set(oldest)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"fotahook_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"fotahook_{name}", text, labels, registry=self.registry)


class _CountedStore:
    """A store whose callers do not notice that it is counted."""

    def __init__(self, store: Store, metrics: Metrics) -> None:
        self._store = store
        self._metrics = metrics

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def register(self, account: str, url: str, *, actor: str) -> Callback:
        began = self._metrics.monotonic()
        callback = await self._store.register(account, url, actor=actor)
        self._metrics.committed("register", self._metrics.monotonic() - began)
        return callback

    async def accept(self, messages: Sequence[NewMessage]) -> list[Accepted]:
        began = self._metrics.monotonic()
        answers = await self._store.accept(messages)
        self._metrics.committed("accept", self._metrics.monotonic() - began)
        self._metrics.accepted(answers)
        return answers

    async def lease(self, limit: int, seconds: float) -> list[Lease]:
        leases = await self._store.lease(limit, seconds)
        if leases:
            self._metrics.leased(leases)
        return leases

    async def settle(
        self, lease: Lease, settlements: Sequence[Settlement], verdict: LaneVerdict, *, keep: float
    ) -> Lease | None:
        began = self._metrics.monotonic()
        kept = await self._store.settle(lease, settlements, verdict, keep=keep)
        self._metrics.committed("settle", self._metrics.monotonic() - began)
        self._metrics.settled(settlements)
        if kept is None:
            self._metrics.released(lease.lane)
        return kept

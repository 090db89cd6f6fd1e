"""Metrics of one process, for Prometheus, counted by a wrapper around the store. No label names an account."""

import asyncio
import contextlib
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final, TypeVar, cast

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from ..store.base import AskForLeases, Receive, Store
from ..store.records import (
    Accepted,
    AuditEntry,
    Callback,
    HandOver,
    LaneVerdict,
    Lease,
    NewMessage,
    Settlement,
    StoreError,
)

T = TypeVar("T")

CACHE_SECONDS: Final = 5.0
"""Anybody may ask for the backlog: it is cached for so long, or for twenty times as long as reading it took."""
LATENCIES: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 3600, 6 * 3600, 24 * 3600)
COMMITS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """The metrics of one process. `clock` is the one by which messages are accepted."""

    def __init__(
        self, *, clock: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        registry = CollectorRegistry()
        self.clock, self.monotonic = clock, monotonic
        self._registry = registry
        self._reading = asyncio.Lock()
        self._read_again_at = float("-inf")
        self.leased_lanes: set[int] = set()
        ProcessCollector(registry=registry)

        counter = partial(Counter, namespace="fotahook", registry=registry)
        gauge = partial(Gauge, namespace="fotahook", registry=registry)
        histogram = partial(Histogram, namespace="fotahook", registry=registry)
        self.accepted = counter("messages_accepted", "Messages accepted, duplicates excluded.")
        self.duplicates = counter("messages_duplicate", "Messages that repeated an idempotency key.")
        self.dead = counter("messages_dead", "Deliveries given up.")
        self.attempts = counter("attempts", "Delivery attempts by outcome.", ["code"])
        self.leases = counter("leases", "Leases of lanes taken by this process.")
        self.latency = histogram("delivery_latency_seconds", "Time from acceptance to delivery.", buckets=LATENCIES)
        self.commits = histogram(
            "store_commit_seconds", "Time until a write to the store is on disk.", ["verb"], buckets=COMMITS
        )
        self._lanes = gauge("leased_lanes", "Lanes leased by this process.")
        self._up = gauge("store_up", "Whether a write to the store reaches the disk.")
        self._backlog = gauge("backlog", "Deliveries in the whole store by state.", ["state"])
        self._oldest = gauge("oldest_undelivered_seconds", "Age of the oldest undelivered message in the store.")
        self._streams = gauge("event_streams", "Open event streams.")

    def around(self, store: Store) -> Store:
        """The store, with its writes and leases counted."""
        return cast(Store, _CountedStore(store, self))

    async def text(self, store: Store, streams: int, *, is_up: bool) -> bytes:
        """All metrics in Prometheus's text format."""
        async with self._reading:
            began = self.monotonic()
            if began >= self._read_again_at:
                await self._read_backlog(store)
                self._read_again_at = began + max(CACHE_SECONDS, 20 * (self.monotonic() - began))
        self._lanes.set(len(self.leased_lanes))
        self._streams.set(streams)
        self._up.set(is_up)
        return generate_latest(self._registry)

    async def _read_backlog(self, store: Store) -> None:
        backlog = None
        with contextlib.suppress(StoreError):
            backlog = await store.backlog()
        self._backlog.labels("pending").set(backlog.pending if backlog else math.nan)
        self._backlog.labels("dead").set(backlog.dead if backlog else math.nan)
        self._oldest.set((backlog.oldest_age or 0.0) if backlog else math.nan)


class _CountedStore:
    """Counts what passes through four methods of a store; every other method is the store's own."""

    def __init__(self, store: Store, metrics: Metrics) -> None:
        self._store = store
        self._metrics = metrics

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def audited(self, entry: AuditEntry) -> Store:
        return self._metrics.around(self._store.audited(entry))

    async def register(self, account: str, url: str, *, actor: str) -> Callback:
        return await self._timed("register", self._store.register(account, url, actor=actor))

    async def accept(self, messages: Sequence[NewMessage]) -> list[Accepted]:
        accepted = await self._timed("accept", self._store.accept(messages))
        duplicates = sum(one.duplicate for one in accepted)
        self._metrics.accepted.inc(len(accepted) - duplicates)
        self._metrics.duplicates.inc(duplicates)
        return accepted

    def hand_over(self, request: AskForLeases, receive: Receive) -> None:
        def count(handed: Sequence[HandOver]) -> None:
            self._count_leases([one.lease for one in handed if one.lease is not None])
            receive(handed)

        self._store.hand_over(request, count)

    async def lease(self, limit: int, seconds: float) -> list[Lease]:
        leases = await self._store.lease(limit, seconds)
        self._count_leases(leases)
        return leases

    def _count_leases(self, leases: Sequence[Lease]) -> None:
        self._metrics.leases.inc(len(leases))
        self._metrics.leased_lanes.update(lease.lane for lease in leases)

    async def settle(
        self, lease: Lease, settlements: Sequence[Settlement], verdict: LaneVerdict, *, keep: float
    ) -> Lease | None:
        kept = await self._timed("settle", self._store.settle(lease, settlements, verdict, keep=keep))
        if kept is None:
            self._metrics.leased_lanes.discard(lease.lane)
        now = self._metrics.clock()
        for settlement in settlements:
            self._metrics.attempts.labels(settlement.attempt.error_code or settlement.attempt.outcome).inc()
            if settlement.state == "delivered":
                self._metrics.latency.observe(max(0.0, now - settlement.delivery.accepted_at))
            elif settlement.state == "dead":
                self._metrics.dead.inc()
        return kept

    async def _timed(self, verb: str, write: Awaitable[T]) -> T:
        began = self._metrics.monotonic()
        result = await write
        self._metrics.commits.labels(verb).observe(self._metrics.monotonic() - began)
        return result

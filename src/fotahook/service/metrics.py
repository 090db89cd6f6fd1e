"""Metrics of one process, for Prometheus, counted by a wrapper around the store. No label names an account."""

import asyncio
import collections
import contextlib
import math
import time
from collections.abc import Awaitable, Sequence
from functools import partial
from typing import Any, Final, TypeVar, cast

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from ..contract.operator import Attempt, Backlog, Latency, RegisteredCallback, StateCounts
from ..store import records
from ..store.base import AskForLeases, Clock, Receive, Store
from ..store.records import Lease
from ..store.views import to_datetime
from .limits import put_newest

T = TypeVar("T")
Overview = tuple[StateCounts, Backlog, Latency]

CACHE_SECONDS: Final = 5.0
"""Anybody may ask for the backlog: it is cached for so long, or for twenty times as long as reading it took."""
OVERVIEW_SECONDS: Final = 2.0
DELIVERIES: Final = 1000
LATENCIES: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 3600, 6 * 3600, 24 * 3600)
COMMITS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """The metrics of one process. `clock` is the one by which messages are accepted."""

    def __init__(self, *, clock: Clock = time.time, monotonic: Clock = time.monotonic) -> None:
        self.clock, self.monotonic = clock, monotonic
        self._registry = registry = CollectorRegistry()
        self._reading = asyncio.Lock()
        self._read_again_at = -math.inf
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
        commits = histogram("store_commit_seconds", "Time until a write is on disk.", ["verb"], buckets=COMMITS)
        self.commits = {verb: commits.labels(verb) for verb in ("register", "accept", "settle")}
        self._lanes = gauge("leased_lanes", "Lanes leased by this process.")
        self._up = gauge("store_up", "Whether a write to the store reaches the disk.")
        self._backlog = gauge("backlog", "Deliveries in the whole store by state.", ["state"])
        self._oldest = gauge("oldest_undelivered_seconds", "Age of the oldest undelivered message in the store.")
        self._streams = gauge("event_streams", "Open event streams.")

    def around(self, store: Store) -> Store:
        return cast(Store, _CountedStore(store, self))

    async def text(self, store: Store, streams: int, *, is_up: bool) -> bytes:
        async with self._reading:
            began = self.monotonic()
            if began >= self._read_again_at:
                pending = dead = oldest = math.nan
                with contextlib.suppress(records.StoreError):
                    backlog = await store.backlog()
                    pending, dead, oldest = backlog.pending, backlog.dead, backlog.oldest_age or 0.0
                self._backlog.labels("pending").set(pending)
                self._backlog.labels("dead").set(dead)
                self._oldest.set(oldest)
                self._read_again_at = began + max(CACHE_SECONDS, 20 * (self.monotonic() - began))
        self._lanes.set(len(self.leased_lanes))
        self._streams.set(streams)
        self._up.set(is_up)
        return generate_latest(self._registry)


class _CountedStore:
    """Counts what passes through four methods of a store; every other method is the store's own."""

    def __init__(self, store: Store, metrics: Metrics) -> None:
        self._store, self._metrics = store, metrics

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def audited(self, entry: records.AuditEntry) -> Store:
        return self._metrics.around(self._store.audited(entry))

    async def register(self, account: str, url: str, *, actor: str) -> RegisteredCallback:
        return await self._timed("register", self._store.register(account, url, actor=actor))

    async def accept(self, messages: Sequence[records.NewMessage]) -> list[records.Accepted]:
        accepted = await self._timed("accept", self._store.accept(messages))
        duplicates = sum(one.duplicate for one in accepted)
        self._metrics.accepted.inc(len(accepted) - duplicates)
        self._metrics.duplicates.inc(duplicates)
        return accepted

    def hand_over(self, request: AskForLeases, receive: Receive) -> None:
        def count(handed: Sequence[records.HandOver]) -> None:
            self._count_leases([one.lease for one in handed if one.lease is not None])
            receive(handed)

        self._store.hand_over(request, count)

    async def lease(self, limit: int, seconds: float) -> list[Lease]:
        return self._count_leases(await self._store.lease(limit, seconds))

    def _count_leases(self, leases: list[Lease]) -> list[Lease]:
        self._metrics.leases.inc(len(leases))
        self._metrics.leased_lanes.update(lease.lane for lease in leases)
        return leases

    async def settle(
        self, lease: Lease, settlements: Sequence[records.Settlement], verdict: records.LaneVerdict, *, keep: float
    ) -> Lease | None:
        kept = await self._timed("settle", self._store.settle(lease, settlements, verdict, keep=keep))
        if kept is None:
            self._metrics.leased_lanes.discard(lease.lane)
        now = self._metrics.clock()
        codes = collections.Counter(one.attempt.error_code or one.attempt.outcome for one in settlements)
        for code, number in codes.items():
            self._metrics.attempts.labels(code).inc(number)
        for settlement in settlements:
            if settlement.state == "delivered":
                self._metrics.latency.observe(max(0.0, now - settlement.delivery.accepted_at))
            elif settlement.state == "dead":
                self._metrics.dead.inc()
        return kept

    async def _timed(self, verb: str, write: Awaitable[T]) -> T:
        began = self._metrics.monotonic()
        result = await write
        self._metrics.commits[verb].observe(self._metrics.monotonic() - began)
        return result


class Overviews:
    """Reads overviews, and keeps each for two seconds, since a page asks again with every event. For one event loop."""

    def __init__(self, store: Store, clock: Clock, consumer: str) -> None:
        self._store, self._clock, self._consumer = store, clock, consumer
        self._kept: dict[tuple[str, tuple[str, ...] | None], tuple[float, Overview]] = {}

    async def read(self, account: str, among: tuple[str, ...] | None) -> Overview:
        """The overview of one account, or of those that a caller may see; None means all."""
        now, store = self._clock(), self._store
        at, kept = self._kept.get((account, among), (-math.inf, None))
        if kept is not None and at <= now < at + OVERVIEW_SECONDS:
            return kept
        if among is None:
            whole = await store.backlog()
            began = None if whole.oldest_age is None else to_datetime(now - whole.oldest_age)
            backlog = Backlog(whole.pending, whole.dead, began)
        else:
            accounts = await store.accounts(among=among, consumer=self._consumer, limit=len(among))
            found = [one.backlog for one in accounts]
            oldest = min((one.oldest_accepted_at for one in found if one.oldest_accepted_at is not None), default=None)
            backlog = Backlog(sum(one.pending for one in found), sum(one.dead for one in found), oldest)
        # A caller of some accounts gets no latency over all of them.
        attempts = await store.recent_attempts(account or None, limit=DELIVERIES) if account or among is None else ()
        counts = await store.state_counts(among, consumer=self._consumer)
        overview = counts, backlog, latency_of(attempts)
        put_newest(self._kept, (account, among), (now, overview))
        return overview


def latency_of(attempts: Sequence[tuple[float, Attempt]]) -> Latency:
    """The median and the 99th percentile over the deliveries among some attempts, each behind its acceptance."""
    times = sorted(
        max(0.0, 1000 * (one.started_at.timestamp() - accepted_at) + (one.phases.total or 0.0))
        for accepted_at, one in attempts
        if one.error_code is None
    )
    if not times:
        return Latency()
    return Latency(p50=times[len(times) // 2], p99=times[min(len(times) - 1, len(times) * 99 // 100)])

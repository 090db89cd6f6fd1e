"""How things stand now: accounts by state, the backlog, and the latency of the last deliveries."""

import math
from collections.abc import Callable, Sequence
from typing import Final

from ..contract.operator import Backlog, Latency, StateCounts
from ..store.base import Store
from ..store.records import RecentAttempt
from ..store.views import to_datetime_or_none

CACHE_SECONDS: Final = 2.0
CACHE_LIMIT: Final = 1000
DELIVERIES: Final = 1000
"""The last attempts whose latencies are looked at."""

Overview = tuple[StateCounts, Backlog, Latency]


class Overviews:
    """Reads overviews, and keeps each for two seconds, since a page asks again with every event. For one event loop."""

    def __init__(self, store: Store, clock: Callable[[], float], consumer: str) -> None:
        self._store = store
        self._consumer = consumer
        self._clock = clock
        self._kept: dict[tuple[str, tuple[str, ...] | None], tuple[float, Overview]] = {}

    async def read(self, account: str, among: tuple[str, ...] | None) -> Overview:
        """The overview of one account, or of those that a caller may see; None means all."""
        now = self._clock()
        at, kept = self._kept.get((account, among), (-math.inf, None))
        if kept is not None and at <= now < at + CACHE_SECONDS:
            return kept
        counts = await self._store.state_counts(among, consumer=self._consumer)
        found = counts, await self._backlog(among), await self._latency(account, among)
        if len(self._kept) >= CACHE_LIMIT:
            self._kept.clear()
        self._kept[account, among] = now, found
        return found

    async def _backlog(self, among: tuple[str, ...] | None) -> Backlog:
        if among is None:
            whole = await self._store.backlog()
            oldest = None if whole.oldest_age is None else self._clock() - whole.oldest_age
            return Backlog(pending=whole.pending, dead=whole.dead, oldest_accepted_at=to_datetime_or_none(oldest))
        lanes = [one.lane for one in await self._store.accounts(among=among, consumer=self._consumer, limit=len(among))]
        times = [lane.oldest_accepted_at for lane in lanes if lane.oldest_accepted_at is not None]
        return Backlog(
            pending=sum(lane.pending for lane in lanes),
            dead=sum(lane.dead for lane in lanes),
            oldest_accepted_at=to_datetime_or_none(min(times, default=None)),
        )

    async def _latency(self, account: str, among: tuple[str, ...] | None) -> Latency:
        if not account and among is not None:
            return Latency()
        return latency_of(await self._store.recent_attempts(account or None, limit=DELIVERIES))


def latency_of(attempts: Sequence[RecentAttempt]) -> Latency:
    """The median and the 99th percentile over the deliveries among some attempts."""
    delivered = [one for one in attempts if one.attempt.error_code is None]
    times = sorted(
        max(0.0, 1000 * (one.attempt.started_at - one.accepted_at) + one.attempt.phases.get("total", 0.0))
        for one in delivered
    )
    if not times:
        return Latency()
    return Latency(p50=times[len(times) // 2], p99=times[min(len(times) - 1, len(times) * 99 // 100)])

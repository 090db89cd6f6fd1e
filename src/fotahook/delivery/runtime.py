"""What lanes are served with, whether to believe a clock, and the maintenance of a store."""

import asyncio
import contextlib
import logging
import math
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import KW_ONLY, dataclass, field
from typing import Final

import msgspec

from fotahook.store.base import Store
from fotahook.store.records import Delivery, Lease, Retention, StoreError

from .outcomes import Attempt, Outcome
from .places import Places
from .policy import DAY

log = logging.getLogger("fotahook.delivery")

JUMP_SECONDS: Final = 30.0
"""Clocks may differ by so much between two readings: adjustments, and a process that was suspended for a moment."""
TRUST_SECONDS: Final = 600.0
"""How long a clock that jumped must run steadily before it is believed."""
PAUSE_SECONDS: Final = 1.0
LONGEST_WAIT: Final = 31 * DAY
"""Longer than any lane waits, whatever the schedule of its dispatcher."""
LEDGER_SECONDS: Final = 180 * DAY
"""How long the ledger keeps a status. ThingSpace keeps its own history for six months."""
_STEP: Final = 1000

Deliver = Callable[[Lease, Delivery], Awaitable[Outcome]]
"""Makes one attempt, within its deadline, and reports everything in its Outcome. An Attempt costs no task."""


class TaskAttempt(Attempt):
    """An attempt that a task makes, or another future. An exception becomes its outcome."""

    def __init__(self, work: Awaitable[Outcome], lease: Lease, delivery: Delivery) -> None:
        super().__init__()
        self._lease = lease
        self._delivery = delivery
        self._task = asyncio.ensure_future(work)
        self._task.add_done_callback(self._on_end)

    def cancel(self) -> None:
        self._task.cancel()

    def _on_end(self, task: asyncio.Future[Outcome]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.error("delivering message %s failed in fotahook itself", self._delivery.message, exc_info=error)
            self.end(Outcome(code="internal_error", url=self._lease.url))
        else:
            self.end(None if task.cancelled() else task.result())


class Timings(msgspec.Struct, frozen=True, kw_only=True):
    """Durations of leases and attempts, in seconds."""

    lease: float = 30.0
    renew: float = 10.0
    attempt: float = 15.0
    """The longest that one attempt takes; an attempt starts only if the lease outlives it."""


class ClockWatch:
    """Compares a store's clock with the monotonic one. It is steady once it has run for ten minutes without a jump."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._offset: float | None = None
        self._lowest = math.inf
        self._jumped_at = monotonic()
        self.went_back = False
        """Whether the clock jumped back before the last reading: what was written until then may be ahead of it."""
        self.ahead = 0.0
        """Seconds that the clock jumped forward in all: what was written before is so much younger than it says."""

    def is_steady(self, reading: float) -> bool:
        """Whether to believe a reading of the store's clock that was taken just now."""
        now = self._monotonic()
        offset = reading - now
        if self._offset is not None and abs(offset - self._offset) > JUMP_SECONDS:
            self._jumped_at = now
        self.went_back = self._offset is not None and offset < self._offset - JUMP_SECONDS
        self._offset, self._lowest = offset, min(offset, self._lowest)
        self.ahead = offset - self._lowest if offset - self._lowest > JUMP_SECONDS else 0.0
        return now - self._jumped_at >= TRUST_SECONDS

    async def trusts(self, store: Store) -> bool:
        """Whether to believe a store's clock now; not if it cannot be read."""
        with contextlib.suppress(StoreError):
            return self.is_steady(await store.now())
        return False


@dataclass(eq=False)
class Runtime(ABC):
    """What all lanes of a dispatcher share."""

    store: Store
    deliver: Deliver
    _: KW_ONLY
    timings: Timings = field(default_factory=Timings)
    clock: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    jitter: Callable[[], float] = random.random
    places: Places = field(init=False)
    watch: ClockWatch = field(init=False)
    stopping = False

    @abstractmethod
    def room(self) -> int:
        """How many more lanes may be served; with none, others may wait for the turn of one to end."""

    @abstractmethod
    def on_recovered(self, lease: Lease) -> None:
        """A lane's endpoint accepts again after a failure."""


async def run_maintenance(
    store: Store, retention: Retention, *, longest_wait: float, monotonic: Callable[[], float] = time.monotonic
) -> None:
    """Run maintenance until cancelled. Deliveries can run between any two steps.

    What was written while the clock was ahead becomes now: when it jumps back all of the future, at the start what is
    beyond `longest_wait` seconds, later what is due beyond LONGEST_WAIT, as other processes may have other schedules.
    Nothing is removed for its age until the clock has run steadily for ten minutes: it may be wrong from the start.
    """
    watch, was_steady, forget_at = ClockWatch(monotonic), False, monotonic()
    beyond: float | None = longest_wait
    while True:
        try:
            now = await store.now()
            is_steady = watch.is_steady(now)
            if was_steady and not is_steady:
                log.warning("the store's clock jumped: nothing old is removed until it is steady for ten minutes")
            was_steady = is_steady
            beyond = JUMP_SECONDS if watch.went_back else beyond
            recalled = await store.recall(beyond or max(LONGEST_WAIT, longest_wait), resting=beyond is not None)
            beyond = None
            if recalled:
                log.warning("%d lanes waited for a time that the clock jumped back from: they are due now", recalled)
            more = await store.tidy(retention, now=now - watch.ahead if is_steady else -math.inf)
            if is_steady and not more and monotonic() >= forget_at:
                forget_at = monotonic() + DAY
                await forget_reports(store, LEDGER_SECONDS + watch.ahead)
        except StoreError as error:
            log.warning("redelivery and retention wait for the store: %s", error)
            more = False
        if not more:
            await asyncio.sleep(PAUSE_SECONDS)


async def forget_reports(store: Store, seconds: float) -> None:
    """Remove the statuses from the ledger that are so old."""
    after = 0
    while found := await store.ledger_campaigns(after=after, limit=100):
        after = found[-1].id
        for one in found:
            while await store.forget_reports(one.id, seconds, _STEP):
                pass

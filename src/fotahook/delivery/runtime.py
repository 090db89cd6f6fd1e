"""What lanes are served with: how an attempt is made, durations, clocks, and what all lanes of a dispatcher share."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from fotahook.contract.addresses import origin
from fotahook.store.base import Store
from fotahook.store.records import Delivery, Lease, StoreError

from .outcomes import Outcome
from .places import FetchBudget, Places
from .policy import Decision

log = logging.getLogger("fotahook.delivery")

JUMP_SECONDS: Final = 30.0
"""Clocks may differ by so much between two readings: adjustments, and a process that was suspended for a moment."""
TRUST_SECONDS: Final = 600.0
"""How long a clock that jumped must run steadily before it is believed."""

Deliver = Callable[[Lease, Delivery], Awaitable[Outcome]]
"""Makes one attempt. It ends within the attempt's deadline and reports everything in its Outcome.

A coroutine runs as a task; a future costs none.
"""


def begin_attempt(deliver: Deliver, lease: Lease, delivery: Delivery) -> asyncio.Future[Outcome]:
    """Begin an attempt: a future of its outcome."""
    try:
        attempt = deliver(lease, delivery)
        return attempt if isinstance(attempt, asyncio.Future) else asyncio.ensure_future(attempt)
    except Exception as error:
        failed: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        failed.set_exception(error)
        return failed


def outcome_of(attempt: asyncio.Future[Outcome], lease: Lease, delivery: Delivery) -> Outcome:
    """The outcome of an attempt that has ended and was not cancelled; an exception becomes one."""
    error = attempt.exception()
    if error is None:
        return attempt.result()
    log.error("delivering message %s failed in fotahook itself", delivery.message, exc_info=error)
    return Outcome(code="internal_error", url=lease.url)


def log_failure(lease: Lease, delivery: Delivery, decision: Decision, outcome: Outcome) -> None:
    """Say which attempt failed, and what follows."""
    log.warning(
        "attempt failed: message %s of %s to %s: %s; %s",
        delivery.message,
        delivery.account,
        lease.consumer if outcome.url is None else origin(outcome.url),
        outcome.code,
        "the message is dead" if decision.state == "dead" else outcome.fix or "it is retried",
    )


class ClockWatch:
    """Compares a store's clock with the monotonic one. A clock is steady unless it jumped in the last ten minutes.

    One that may have been wrong from the start (not `believed`) becomes steady ten minutes later.
    """

    def __init__(self, monotonic: Callable[[], float], *, believed: bool) -> None:
        self._monotonic = monotonic
        self._offset: float | None = None
        self._jumped_at: float | None = None if believed else monotonic()
        self.went_back = False
        """Whether the clock jumped back before the last reading: what was written until then may be ahead of it."""

    def is_steady(self, reading: float) -> bool:
        """Whether to believe a reading of the store's clock that was taken just now."""
        now = self._monotonic()
        offset = reading - now
        if self._offset is not None and abs(offset - self._offset) > JUMP_SECONDS:
            self._jumped_at = now
        self.went_back = self._offset is not None and offset < self._offset - JUMP_SECONDS
        self._offset = offset
        if self._jumped_at is not None and now - self._jumped_at >= TRUST_SECONDS:
            self._jumped_at = None
        return self._jumped_at is None


class Timings(msgspec.Struct, frozen=True, kw_only=True):
    """Durations of leases and attempts, in seconds."""

    lease: float = 30.0
    renew: float = 10.0
    attempt: float = 15.0
    """The longest that one attempt takes; an attempt starts only if the lease outlives it."""


class Runtime(msgspec.Struct, frozen=True, kw_only=True):
    """Clock and random source, injected, and what all lanes of a dispatcher share."""

    clock: Callable[[], float]
    monotonic: Callable[[], float]
    jitter: Callable[[], float]
    places: Places
    quick_budget: FetchBudget
    """Memory for the bodies of quick lanes; those of all others have a budget of their own."""
    other_budget: FetchBudget
    watch: ClockWatch
    others_wait: Callable[[], bool] = lambda: False
    """Whether other lanes wait for this one's turn to end."""
    stopping: Callable[[], bool] = lambda: False
    recovered: Callable[[Lease], None] = lambda lease: None
    """Called when a lane's endpoint accepts again after a failure."""

    def budget(self, lane: int) -> FetchBudget:
        """The memory that a lane's bodies take from."""
        return self.quick_budget if self.places.pace(lane) == "quick" else self.other_budget

    async def clock_is_steady(self, store: Store) -> bool:
        """Whether to believe a store's clock now; not if it cannot be read."""
        with contextlib.suppress(StoreError):
            return self.watch.is_steady(await store.now())
        return False

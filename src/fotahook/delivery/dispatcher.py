"""The dispatcher: leases the lanes that have due deliveries and serves them concurrently."""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Final

from fotahook.store.base import Store
from fotahook.store.records import DispatchedElsewhere, Lease, StoreError

from .lane import Deliver, LaneWorker, Timings
from .policy import Rules

log = logging.getLogger("fotahook.delivery")

POLL_SECONDS: Final = 1.0
"""Maximum delay before due deliveries are found if the store's hint is lost."""
LEASE_MARGIN: Final = 5.0
"""Seconds by which a lease must be longer than an attempt."""
STUCK_SECONDS: Final = 20.0
"""A dispatcher that has not polled for this long is stuck: it is longer than a store may take to answer."""


@dataclass(eq=False)
class Dispatcher:
    """Delivers the messages of a store, lane by lane, each at least once.

    Several dispatchers may share a store that allows it; each lane is served by one of them at a time.
    """

    store: Store
    deliver: Deliver
    _: KW_ONLY
    rules: Rules = field(default_factory=Rules)
    rules_of: Mapping[str, Rules] = field(default_factory=dict)
    """The rules of consumers that differ from `rules`."""
    timings: Timings = field(default_factory=Timings)
    lanes: int = 512
    """Lanes that are served at once."""
    in_flight: int = 512
    """Attempts that run at once."""
    clock: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    jitter: Callable[[], float] = random.random
    """Returns random numbers in 0..1."""

    def __post_init__(self) -> None:
        if self.timings.lease < self.timings.attempt + LEASE_MARGIN:
            raise ValueError(f"a lease must be at least {LEASE_MARGIN:.0f} s longer than an attempt")
        self._running = asyncio.Semaphore(self.in_flight)
        self._workers: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._store_error: str | None = None
        self._polled_at = self.monotonic()
        self._wakeup = asyncio.Event()

    def is_leasing(self) -> bool:
        """Whether the last poll was recent and succeeded."""
        return self._store_error is None and self.monotonic() - self._polled_at < STUCK_SECONDS

    def stop(self) -> None:
        """Start no more attempts; ``run`` returns when the running ones have ended."""
        self._stopping = True
        self._wakeup.set()

    def wake(self) -> None:
        """Poll now: a test moved the clock forward."""
        self._wakeup.set()

    async def run(self) -> None:
        """Deliver until ``stop`` is called. Cancelling it abandons the running attempts until their leases end."""
        try:
            while not self._stopping:
                if not await self._lease():
                    await self._wait()
            if self._workers:
                await asyncio.wait(self._workers)
        finally:
            for task in self._workers:
                task.cancel()
            await asyncio.gather(*self._workers, return_exceptions=True)

    async def _lease(self) -> bool:
        """Lease lanes with due deliveries, as many as there is room for. Returns whether there were any."""
        # Read before the query, so that no lease seems to last longer than the store says.
        self._polled_at = asked_at = self.monotonic()
        room = self.lanes - len(self._workers)
        if room <= 0:
            return False
        try:
            leases = await self.store.lease(room, self.timings.lease)
        except StoreError as error:
            if str(error) != self._store_error:
                _log_store_error(error)
            self._store_error = str(error)
            await asyncio.sleep(POLL_SECONDS)
            return False
        self._store_error = None
        for lease in leases:
            self._serve(lease, asked_at)
        return bool(leases)

    def _serve(self, lease: Lease, leased_at: float) -> None:
        worker = LaneWorker(
            lease,
            leased_at,
            store=self.store,
            deliver=self.deliver,
            service_rules=self.rules_of.get(lease.consumer, self.rules),
            timings=self.timings,
            clock=self.clock,
            monotonic=self.monotonic,
            jitter=self.jitter,
            in_flight=self._running,
            others_wait=self._is_full,
            stopping=lambda: self._stopping,
        )
        task = asyncio.create_task(worker.run(), name=f"lane {lease.account}")
        self._workers.add(task)
        task.add_done_callback(self._on_done)

    def _on_done(self, task: asyncio.Task[None]) -> None:
        if self._is_full():
            self._wakeup.set()
        self._workers.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # Its lease expires by itself, and the lane is leased again.
            log.error("%s was dropped", task.get_name(), exc_info=error)

    def _is_full(self) -> bool:
        return len(self._workers) >= self.lanes

    async def _wait(self) -> None:
        """Wait for a hint, a free worker, the next due time or ``stop``, but at most a second."""
        self._wakeup.clear()
        if self._stopping:
            return
        seconds = await self._seconds_to_wait()
        hints = [asyncio.ensure_future(self._wakeup.wait()), asyncio.ensure_future(self.store.wait(seconds))]
        try:
            await asyncio.wait(hints, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for hint in hints:
                hint.cancel()
            await asyncio.gather(*hints, return_exceptions=True)

    async def _seconds_to_wait(self) -> float:
        if self._is_full():
            return POLL_SECONDS
        try:
            due_in = await self.store.due_in()
        except StoreError:
            return POLL_SECONDS
        return POLL_SECONDS if due_in is None else min(POLL_SECONDS, due_in)


def _log_store_error(error: StoreError) -> None:
    if isinstance(error, DispatchedElsewhere):
        # Normal if several processes receive for one inbox.
        log.info("another process delivers the messages of this store; this one takes over when that one ends")
    else:
        log.warning("deliveries wait for the store: %s", error)

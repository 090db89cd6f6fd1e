"""Leases the lanes that have something due and serves them side by side."""

import asyncio
import contextlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from typing import Final

from fotahook.contract.addresses import origin
from fotahook.store.records import DispatchedElsewhere, HandOver, Lease, LeaseRequest, StoreError

from .lane import LaneWorker
from .places import Places
from .policy import Rules
from .runtime import ClockWatch, Runtime

log = logging.getLogger("fotahook.delivery")

POLL_SECONDS: Final = 1.0
LEASE_MARGIN: Final = 5.0
STUCK_SECONDS: Final = 20.0
"""Longer than a store may take to answer: a dispatcher that has not leased for so long is stuck."""
LANES_LIMIT: Final = 8192
RECOVERED_LANES: Final = 500
"""Lanes of one origin that are woken at once when one of them recovers; the next ones follow after a moment."""
RECOVERED_SECONDS: Final = 0.5


@dataclass(eq=False)
class Dispatcher(Runtime):
    """Drives deliveries from a store to `deliver`, at least once each, lane by lane. Several dispatchers may share a
    store that allows it; each lane is served by one of them at a time."""

    _: KW_ONLY
    rules: Rules = field(default_factory=Rules)
    rules_of: Mapping[str, Rules] = field(default_factory=dict)
    lanes: int = 512
    """Lanes that are served at once, besides slow ones; no more than find places in flight within two turns."""
    in_flight: int = 512

    def __post_init__(self) -> None:
        if self.timings.lease < self.timings.attempt + LEASE_MARGIN:
            raise ValueError(f"a lease must be at least {LEASE_MARGIN:.0f} s longer than an attempt")
        self._workers: set[LaneWorker] = set()
        self._serving: dict[int, LaneWorker] = {}
        """The worker of each lane; one that lost its lease may be ending besides."""
        self._recovering: dict[str, asyncio.Task[None]] = {}
        self._store_error: str | None = None
        self._polled_at = self.monotonic()
        self._quick_lanes = min(self.lanes, 2 * self.in_flight)
        self._wakeup = asyncio.Event()
        # Lanes that hang make room for others.
        self.places = Places(self.in_flight, on_slow=self._wakeup.set)
        self.watch = ClockWatch(self.monotonic)

    @property
    def longest_wait(self) -> float:
        """Seconds in which each lane that it leaves is due."""
        waits = ((rules.backoff_cap, *rules.schedule) for rules in (self.rules, *self.rules_of.values()))
        return max(self.timings.lease, *map(max, waits)) + 1

    def is_leasing(self) -> bool:
        """Whether it could lease when it last tried, and tried not long ago."""
        return self._store_error is None and self.monotonic() - self._polled_at < STUCK_SECONDS

    def stop(self) -> None:
        """Lease no more and start no more attempts; ``run`` returns when those in flight have ended."""
        self.stopping = True
        self._wakeup.set()

    def wake(self) -> None:
        """Look now for what is due: the clock was moved on."""
        self._wakeup.set()

    async def run(self) -> None:
        """Serve until ``stop`` is called. Cancelling it leaves what is in flight to the end of its lease."""
        self.store.hand_over(self._request, self._receive)
        try:
            while not self.stopping:
                if not await self._lease():
                    await self._idle()
            while self._workers:
                await asyncio.wait([worker.ended for worker in self._workers])
        finally:
            self.store.hand_over(lambda: None, lambda handed: None)
            recovering = list(self._recovering.values())
            for task in recovering:
                task.cancel()
            for worker in self._workers:
                worker.end()
            ending = [worker.ended for worker in self._workers]
            await asyncio.gather(*recovering, *ending, return_exceptions=True)

    def room(self) -> int:
        # Slow lanes count only towards the limit of all.
        return min(self._quick_lanes + self.places.slow_lanes, LANES_LIMIT) - len(self._workers)

    async def _lease(self) -> bool:
        """Take what is due; whether anything was."""
        # Read before the query: the lease must never seem to last longer than the store says.
        self._polled_at = asked_at = self.monotonic()
        room = self.room()
        if room <= 0:
            return False
        try:
            leases = await self.store.lease(room, self.timings.lease)
        except StoreError as error:
            if isinstance(error, DispatchedElsewhere) and str(error) != self._store_error:
                # Nothing is wrong, as where several processes receive for one inbox.
                log.info("another process handles the messages of this store; this one takes over when that one ends")
            elif str(error) != self._store_error:
                log.warning("nothing is delivered from here meanwhile: %s", error)
            self._store_error = str(error)
            await asyncio.sleep(POLL_SECONDS)
            return False
        self._store_error = None
        for lease in leases:
            self._serve(lease, asked_at)
        return bool(leases)

    def _request(self) -> LeaseRequest | None:
        if self.stopping:
            return None
        return LeaseRequest(lanes=max(0, self.room()), seconds=self.timings.lease, asked_at=self.monotonic())

    def _receive(self, handed: Sequence[HandOver]) -> None:
        for one in handed:
            if one.lease is not None:
                self._serve(one.lease, one.asked_at, one)
            elif (worker := self._serving.get(one.lane)) is not None and worker.lease.token == one.token:
                worker.hand(one.deliveries, more=one.more)

    def _serve(self, lease: Lease, leased_at: float, handed: HandOver | None = None) -> None:
        worker = LaneWorker(lease, leased_at, self, self.rules_of.get(lease.consumer, self.rules))
        self._workers.add(worker)
        self._serving[lease.lane] = worker
        worker.begin(handed).add_done_callback(partial(self._on_served, worker))

    def _on_served(self, worker: LaneWorker, ended: asyncio.Future[None]) -> None:
        if self.room() <= 0 or worker.retries:
            self._wakeup.set()
        self._workers.discard(worker)
        if self._serving.get(worker.lease.lane) is worker:
            del self._serving[worker.lease.lane]
        if (error := ended.exception()) is not None:
            # The lease runs out by itself, and then the lane is served again.
            log.error("lane %s was dropped", worker.lease.account, exc_info=error)

    def on_recovered(self, lease: Lease) -> None:
        if lease.url is None:
            return
        place = origin(lease.url)
        if place not in self._recovering:
            task = asyncio.create_task(self._wake_lanes_of(place), name=f"recovery of {place}")
            self._recovering[place] = task
            task.add_done_callback(lambda _: self._recovering.pop(place, None))

    async def _wake_lanes_of(self, place: str) -> None:
        woken = RECOVERED_LANES
        while woken == RECOVERED_LANES:
            try:
                woken = await self.store.wake_origin(place, RECOVERED_LANES)
            except StoreError as error:
                log.warning("the lanes that wait for %s stay as they are: %s", place, error)
                return
            await asyncio.sleep(RECOVERED_SECONDS)

    async def _idle(self) -> None:
        """Wait for something to do: a hint, room, the next due time, the stop; a second at most."""
        self._wakeup.clear()
        if self.stopping:
            return
        due_in = None
        if self.room() > 0:
            with contextlib.suppress(StoreError):
                due_in = await self.store.due_in()
        seconds = POLL_SECONDS if due_in is None else min(POLL_SECONDS, due_in)
        hints = [asyncio.ensure_future(self._wakeup.wait()), asyncio.ensure_future(self.store.wait(seconds))]
        try:
            await asyncio.wait(hints, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for hint in hints:
                hint.cancel()
            await asyncio.gather(*hints, return_exceptions=True)

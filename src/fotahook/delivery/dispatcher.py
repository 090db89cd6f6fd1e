"""The dispatcher: leases the lanes that have something due and serves them side by side."""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping
from typing import Final

from fotahook.store.base import Store
from fotahook.store.records import DispatchedElsewhere, Lease, StoreError

from .lane import Chance, Deliver, LaneServer, Timings
from .policy import Rules

log = logging.getLogger("fotahook.delivery")

POLL_SECONDS: Final = 1.0
"""The longest that work stays unseen when its hint is lost."""


LEASE_MARGIN: Final = 5.0

SILENCE_SECONDS: Final = 20.0
"""Longer than a store may take to answer: a dispatcher that has not looked for so long is stuck."""


class Dispatcher:
    """Drives deliveries from a store to `deliver`, at least once each, lane by lane.

    Several dispatchers may share a store that allows it; each lane is served by one of them at a time. `rules_of`:
    consumers whose lanes go by other rules.
    """

    def __init__(
        self,
        store: Store,
        deliver: Deliver,
        *,
        rules: Rules | None = None,
        rules_of: Mapping[str, Rules] | None = None,
        timings: Timings | None = None,
        lanes: int = 512,
        in_flight: int = 512,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        spread: Callable[[], float] = random.random,
    ) -> None:
        self._store = store
        self._deliver = deliver
        self._rules = rules or Rules()
        self._rules_of = rules_of or {}
        self._timings = timings or Timings()
        if self._timings.lease < self._timings.attempt + LEASE_MARGIN:
            raise ValueError(f"a lease must outlast an attempt by {LEASE_MARGIN:.0f} s")
        self._lanes = lanes
        self._in_flight = asyncio.Semaphore(in_flight)
        self._chance = Chance(clock=clock, monotonic=monotonic, spread=spread)
        self._serving: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._trouble: str | None = None
        self._looked_at = self._chance.monotonic()
        self._wake = asyncio.Event()

    def is_leasing(self) -> bool:
        """Whether it could lease when it looked last, and looked not long ago."""
        return self._trouble is None and self._chance.monotonic() - self._looked_at < SILENCE_SECONDS

    def stop(self) -> None:
        """Lease no more and start no more attempts; ``run`` returns when those in hand have ended."""
        self._stopping = True
        self._wake.set()

    def wake(self) -> None:
        """Look now for what is due: somebody moved the clock on."""
        self._wake.set()

    async def run(self) -> None:
        """Serve until ``stop`` is called. Cancelling it abandons what is in hand to the leases' end."""
        try:
            while not self._stopping:
                if not await self._lease():
                    await self._idle()
            if self._serving:
                await asyncio.wait(self._serving)
        finally:
            for task in self._serving:
                task.cancel()
            await asyncio.gather(*self._serving, return_exceptions=True)

    async def _lease(self) -> bool:
        """Take what is due, as far as there is room; whether anything was."""
        # Taken before the query: the lease must never seem to last longer than the store says.
        self._looked_at = asked_at = self._chance.monotonic()
        room = self._lanes - len(self._serving)
        if room <= 0:
            return False
        try:
            leases = await self._store.lease(room, self._timings.lease)
        except StoreError as error:
            if str(error) != self._trouble:
                _tell(error)
            self._trouble = str(error)
            await asyncio.sleep(POLL_SECONDS)
            return False
        self._trouble = None
        for lease in leases:
            self._serve(lease, asked_at)
        return bool(leases)

    def _serve(self, lease: Lease, leased_at: float) -> None:
        server = LaneServer(
            lease,
            leased_at,
            store=self._store,
            deliver=self._deliver,
            rules=self._rules_of.get(lease.consumer, self._rules),
            timings=self._timings,
            chance=self._chance,
            in_flight=self._in_flight,
            crowded=self._is_crowded,
            stopping=lambda: self._stopping,
        )
        task = asyncio.create_task(server.run(), name=f"lane {lease.account}")
        self._serving.add(task)
        task.add_done_callback(self._served)

    def _served(self, task: asyncio.Task[None]) -> None:
        if self._is_crowded():
            self._wake.set()
        self._serving.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # The lease runs out by itself, and then the lane is served again.
            log.error("%s was dropped", task.get_name(), exc_info=error)

    def _is_crowded(self) -> bool:
        return len(self._serving) >= self._lanes

    async def _idle(self) -> None:
        """Wait for something to do: a hint, a free place, the next due time, the stop; a second at the most."""
        self._wake.clear()
        if self._stopping:
            return
        seconds = await self._seconds_to_wait()
        hints = [asyncio.ensure_future(self._wake.wait()), asyncio.ensure_future(self._store.wait(seconds))]
        try:
            await asyncio.wait(hints, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for hint in hints:
                hint.cancel()
            await asyncio.gather(*hints, return_exceptions=True)

    async def _seconds_to_wait(self) -> float:
        if self._is_crowded():
            return POLL_SECONDS
        try:
            due_in = await self._store.due_in()
        except StoreError:
            return POLL_SECONDS
        return POLL_SECONDS if due_in is None else min(POLL_SECONDS, due_in)


def _tell(error: StoreError) -> None:
    if isinstance(error, DispatchedElsewhere):
        # Nothing is wrong, as where several processes receive for one inbox.
        log.info("another process handles the messages of this store; this one takes over when that one ends")
    else:
        log.warning("nothing is sent from here meanwhile: %s", error)

"""Serves one leased lane: attempts side by side, outcomes settled in batches, the lease renewed meanwhile."""

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Final

from fotahook.store.base import Store
from fotahook.store.records import Delivery, HandOver, LaneVerdict, Lease, Settlement, StoreError

from .outcomes import DELIVERED
from .places import FetchBudget
from .policy import Decision, Rules, decide, expired, limited, window
from .runtime import Deliver, Runtime, Timings, attempt
from .settlements import Backoff, Finished, expiry_of, log_failure, promotes, settlement_of

log = logging.getLogger("fotahook.delivery")

TURN_DELIVERIES: Final = 100
TURN_SECONDS: Final = 1.0
"""A callback is read afresh at least this often, so that no attempt starts on an old one later than that."""
FETCH_SECONDS: Final = 0.25
FETCH_SECONDS_CAP: Final = 1.0
"""Delay before new deliveries are looked for while attempts run; it doubles up to the cap while none are found."""
RETRY_SECONDS: Final = 0.5
"""Pause before a store that is away is tried again."""


@dataclass(eq=False)
class LaneWorker:
    """Serves one lane from its lease until it gives the lease back. One object, one ``run``."""

    lease: Lease
    leased_at: float
    _: KW_ONLY
    store: Store
    deliver: Deliver
    service_rules: Rules
    timings: Timings
    runtime: Runtime
    handed: HandOver | None = None
    """What came with the lease; None for a lane whose deliveries are to be fetched."""
    retries: bool = False
    """Whether it left deliveries that are due again later."""

    def __post_init__(self) -> None:
        self._rules = limited(self.service_rules, self.lease)
        self._health = self.lease.health
        self._leased_until = self.leased_at + self.timings.lease
        self._refreshed_at = self.leased_at
        self._turn_started = self.leased_at
        self._clock_is_steady = self.runtime.watch.is_steady(self.lease.read_at)
        self._started = 0
        self._ready: deque[Delivery] = deque()
        self._senders: set[asyncio.Task[None]] = set()
        self._in_flight = 0
        """Deliveries that are being attempted, or wait for a place."""
        self._renewed = asyncio.Event()
        """Replaced when it is set: the lease was read afresh."""
        self._awaiting_renewal = 0
        self._error: BaseException | None = None
        self._wakeup = asyncio.Event()
        self._settlements: list[Settlement] = []
        self._settling: asyncio.Task[Lease | None] | None = None
        self._taken: dict[int, tuple[FetchBudget, int]] = {}
        """The deliveries that are fetched and not settled, by number: the budget they take from, and how much."""
        self._fetch_limit = TURN_DELIVERIES
        self._may_have_more = self.handed is None
        self._fetching = False
        self._handed: set[int] = set()
        """Deliveries that were handed over during a fetch, whose answer may have them too."""
        self._ending = False
        self._fetched_at = self.leased_at
        self._fetch_seconds = FETCH_SECONDS
        self._lost = False
        self._backoff: Backoff | None = None
        self._paused = False
        self._next_start = float("-inf")

    async def run(self) -> None:
        """Send what is due until the lane has nothing more, must wait, or its turn is over."""
        try:
            self.runtime.places.begin(self.lease.lane, self.lease.health)
            if self.handed is not None:
                handed, self.handed = self.handed, None
                self.hand(handed.deliveries, more=handed.more)
            while not self._lost:
                await self._fetch()
                self._start()
                if self._settling is None and self._can_give_back():
                    self._ending = True
                    self.retries = self.retries or self._pause_before_next() > 0
                    await self._settle(keep=0.0)
                    return
                self._begin_settling()
                await self._wait()
        finally:
            await self._abandon()

    # Fetching

    def hand(self, deliveries: Sequence[Delivery], *, more: bool) -> None:
        """Take new deliveries; what is not taken is fetched. While older ones wait in the store, none is taken."""
        few = len(self._taken) + len(deliveries) <= self._fetch_size()
        small = sum(len(one.body) for one in deliveries) <= self.runtime.budget(self.lease.lane).allowance()
        if self._ending or self._lost or self._may_have_more or not (few and small):
            self._may_have_more = True
            return
        self._may_have_more = more
        new = [delivery for delivery in deliveries if delivery.seq not in self._taken]
        if self._fetching:
            self._handed.update(delivery.seq for delivery in new)
        self._enqueue(new)
        self._start()
        self._wakeup.set()

    def _fetch_size(self) -> int:
        """How many deliveries to take at once: a lane that may hang takes no more than it is about to send."""
        quick = self.runtime.places.pace(self.lease.lane) == "quick"
        return min(self._fetch_limit, TURN_DELIVERIES if quick else 2 * self._window())

    async def _fetch(self) -> None:
        may_have_come = self._in_flight > 0 and self._now() - self._fetched_at >= self._fetch_seconds
        if not (self._needs_more() or (may_have_come and self._has_room())):
            return
        budget = self.runtime.budget(self.lease.lane)
        max_bytes = budget.allowance()
        if max_bytes == 0 and self._taken:
            # Memory is short: a lane goes on with one message at a time.
            return
        # A delivery that is settled while the answer is on its way may still be in that answer.
        taken = tuple(self._taken)
        self._may_have_more = False
        self._fetching = True
        self._fetched_at = self._now()
        limit = self._fetch_size()
        # Lanes that fetch at the same time must not all count on the same bytes.
        budget.take(max_bytes)
        try:
            found = await self.store.fetch(self.lease, limit, without=taken, max_bytes=max_bytes)
        except (StoreError, MemoryError) as error:
            if isinstance(error, MemoryError):
                self._fetch_limit = 1
            log.warning("lane %s could not fetch and tries again: %s", self.lease.account, repr(error))
            self._may_have_more = True
            await asyncio.sleep(RETRY_SECONDS)
            return
        finally:
            budget.give_back(max_bytes)
            self._fetching = False
        size = sum(len(delivery.body) for delivery in found)
        self._may_have_more |= bool(found) and (len(found) == limit or size >= max_bytes)
        self._fetch_seconds = FETCH_SECONDS if found else min(2 * self._fetch_seconds, FETCH_SECONDS_CAP)
        self._enqueue([delivery for delivery in found if delivery.seq not in self._handed])
        self._handed.clear()

    def _enqueue(self, deliveries: Sequence[Delivery]) -> None:
        budget = self.runtime.budget(self.lease.lane)
        for delivery in deliveries:
            size = len(delivery.body)
            budget.take(size)
            self._taken[delivery.seq] = budget, size
            # A clock that just jumped may be wrong, and a message is dead for good.
            if self._clock_is_steady and expired(delivery, self._rules):
                self._settlements.append(expiry_of(delivery, self.runtime.clock()))
            else:
                self._ready.append(delivery)

    def _release(self, seq: int) -> None:
        if (taken := self._taken.pop(seq, None)) is not None:
            budget, size = taken
            budget.give_back(size)

    # Starting attempts

    def _is_open(self) -> bool:
        """Whether anything new may be started."""
        over = self._started >= TURN_DELIVERIES or self._now() - self._turn_started >= TURN_SECONDS
        return self._may_send() and not (over and self.runtime.others_wait())

    def _may_send(self) -> bool:
        return self.lease.open and self._backoff is None and not (self._paused or self.runtime.stopping())

    def _is_finished(self) -> bool:
        more = self._ready or self._may_have_more or any(map(promotes, self._settlements))
        return not self._is_open() or not more or self._pause_before_next() > 0

    def _window(self) -> int:
        size = window(self._health, self._rules)
        share = self.runtime.places.share(self.lease.lane)
        return size if share is None else min(size, share)

    def _pause_before_next(self) -> float:
        """Seconds until the account's rate limit allows another attempt."""
        return max(0.0, self._next_start - self._now())

    def _has_room(self) -> bool:
        """Whether another attempt could start if there were something to send."""
        room = not self._ready and self._in_flight < self._window()
        return room and self._is_open() and self._pause_before_next() == 0

    def _needs_more(self) -> bool:
        """Whether to fetch what waits in the store: a little early, so that no place is free meanwhile."""
        size = self._window()
        few = len(self._ready) + self._in_flight < size + size // 4
        return self._may_have_more and few and self._is_open() and self._pause_before_next() == 0

    def _start(self) -> None:
        """Start as many senders as there are deliveries and places in the window for."""
        while self._in_flight < self._window() and (delivery := self._next()) is not None:
            self._in_flight += 1
            task = asyncio.create_task(self._send(delivery))
            task.add_done_callback(self._on_sender_end)
            self._senders.add(task)

    def _next(self) -> Delivery | None:
        """The next delivery, if an attempt at it may start now."""
        if not (self._ready and self._is_open() and self._is_fresh() and self._now() >= self._next_start):
            return None
        self._started += 1
        if self.lease.limits.per_second is not None:
            self._next_start = self._now() + 1 / self.lease.limits.per_second
        return self._ready.popleft()

    def _is_fresh(self) -> bool:
        """Whether the callback was read a moment ago, and the lease outlives an attempt that starts now."""
        now = self._now()
        return now - self._refreshed_at < TURN_SECONDS and now + self.timings.attempt < self._leased_until

    async def _send(self, delivery: Delivery | None) -> None:
        """Attempt one delivery after the other, as long as the window has room: cheaper than a task for each."""
        while delivery is not None:
            finished = await self._attempt(delivery)
            if finished is None:
                self._release(delivery.seq)
                self._may_have_more = True
                break
            size = self._window()
            self._on_outcome(delivery, finished, saturated=self._in_flight >= size)
            if finished.outcome.code != DELIVERED:
                size = self._window()
            delivery = self._next() if self._in_flight <= size else None
            if self._ready and self._in_flight < size:
                self._start()
            if self._settling is None or (self._may_have_more and self._needs_more()):
                self._wakeup.set()
        self._in_flight -= 1
        self._wakeup.set()

    async def _attempt(self, delivery: Delivery) -> Finished | None:
        """Make an attempt when there is a place for it; None if by then the lane may not start one any more."""
        places = self.runtime.places
        place = await places.acquire(self.lease.lane)
        may_start = False
        try:
            if self._is_open() and not self._is_fresh():
                # The wait for the place took long: the lease is read afresh first.
                self._awaiting_renewal += 1
                self._wakeup.set()
                await self._renewed.wait()
                self._awaiting_renewal -= 1
            lease = self.lease
            may_start = self._may_send() and self._is_fresh()
            if not may_start:
                return None
            wall, started_at = self.runtime.clock(), self._now()
            outcome = await attempt(self.deliver, lease, delivery)
            return Finished(wall, self._now() - started_at, lease.revision, outcome)
        finally:
            places.release(place, used=may_start)

    def _on_sender_end(self, task: asyncio.Task[None]) -> None:
        self._senders.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._error = error
            self._wakeup.set()

    # Outcomes

    async def _wait(self) -> None:
        """Wait until there is something to fetch or settle, or the lease must be renewed."""
        if self._in_flight == 0 and self._settling is None:
            return
        timeout = min(self._refresh_seconds(), self._pause_before_next() or self.timings.renew)
        if self._has_room():
            timeout = min(timeout, self._fetch_seconds)
        alarm = asyncio.get_running_loop().call_later(timeout, self._wakeup.set)
        try:
            await self._wakeup.wait()
        finally:
            alarm.cancel()
        self._wakeup.clear()
        if self._error is not None:
            raise self._error
        if self._settling is not None and self._settling.done():
            settled, self._settling = self._settling, None
            self._on_renewed(settled.result())

    def _on_outcome(self, delivery: Delivery, finished: Finished, *, saturated: bool) -> None:
        outcome = finished.outcome
        decision = decide(
            outcome,
            delivery,
            # Attempts that were under way when the lane began to wait are part of the same failure: it counts once.
            self._health if self._backoff is None else self._backoff.health_before,
            seconds=finished.seconds,
            saturated=saturated,
            jitter=self.runtime.jitter(),
            rules=self._rules,
        )
        self._settlements.append(settlement_of(delivery, decision, finished))
        self.retries = self.retries or decision.state == "pending"
        if finished.revision == self.lease.revision:
            self._judge(decision)
            if decision.state == "dead" or outcome.code != "delivered":
                log_failure(self.lease, delivery, decision, outcome)

    def _judge(self, decision: Decision) -> None:
        self._paused = self._paused or decision.pause
        if self._backoff is not None:
            return
        if decision.wait > 0:
            self._backoff = Backoff(health_before=self._health, until=self._now() + decision.wait)
        elif self._health.failures > 0 and decision.health.failures == 0:
            self.runtime.recovered(self.lease)
        self._health = decision.health

    # Settling

    def _begin_settling(self) -> None:
        stale = self._awaiting_renewal > 0 or self._now() - self._refreshed_at >= self._refresh_seconds()
        if self._settling is None and (self._settlements or stale) and not self._can_give_back():
            self._settling = asyncio.create_task(self._settle(keep=self.timings.lease))
            self._settling.add_done_callback(lambda _: self._wakeup.set())

    def _can_give_back(self) -> bool:
        """Whether nothing is left to do but the last settlement, which gives the lane back in the same transaction."""
        return self._in_flight == 0 and self._is_finished()

    def _refresh_seconds(self) -> float:
        """How old the lease may grow: attempts that are about to start need the callback as it is now."""
        return TURN_SECONDS / 2 if self._ready and self._in_flight < self._window() else self.timings.renew

    async def _settle(self, *, keep: float) -> Lease | None:
        """Write outcomes. A store that is away is tried again for as long as the lease lasts."""
        batch, self._settlements = self._settlements, []
        while True:
            asked_at = self._now()
            wait = 0.0 if self._backoff is None else max(0.0, self._backoff.until - asked_at)
            if keep == 0:
                # Given back, the lane rests for as long as it would have here.
                wait = max(wait, self._pause_before_next())
            verdict = LaneVerdict(health=self._health, wait=wait, pause=self._paused)
            try:
                lease = await self.store.settle(self.lease, batch, verdict, keep=keep)
            except StoreError as error:
                if self._now() >= self._leased_until:
                    log.warning("lane %s is lost: the store is unavailable: %s", self.lease.account, error)
                    return None
                await asyncio.sleep(RETRY_SECONDS)
                continue
            for settlement in batch:
                self._release(settlement.delivery.seq)
            # The next of a key was promoted with its head's settlement.
            self._may_have_more |= any(settlement.delivery.ordering_key is not None for settlement in batch)
            self._leased_until = asked_at + keep
            self._refreshed_at = asked_at
            return lease

    def _on_renewed(self, lease: Lease | None) -> None:
        if lease is None:
            self._lost = True
            log.warning("lane %s lost its lease; its running attempts may be sent twice", self.lease.account)
            return
        if lease.revision != self.lease.revision:
            # A new endpoint: the old one's health does not hold for it.
            self._backoff, self._paused, self._health = None, False, lease.health
        self.lease = lease
        self._renewed.set()
        self._renewed = asyncio.Event()
        self._rules = limited(self.service_rules, lease)
        self._clock_is_steady = self.runtime.watch.is_steady(lease.read_at)

    async def _abandon(self) -> None:
        """End what still runs: nothing, unless the lease was lost or the task is being cancelled."""
        self.runtime.places.end(self.lease.lane)
        running = [*self._senders, *([self._settling] if self._settling is not None else [])]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        for seq in list(self._taken):
            self._release(seq)

    def _now(self) -> float:
        return self.runtime.monotonic()

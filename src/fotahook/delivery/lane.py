"""Serves one leased lane: attempts side by side, outcomes settled in batches, the lease renewed meanwhile."""

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Final

from fotahook.store.base import Store
from fotahook.store.records import Delivery, HandOver, LaneVerdict, Lease, Settlement, StoreError

from .outcomes import DELIVERED, Outcome
from .places import Place
from .policy import Rules, decide, expired, expiry_of, limited, settlement_of, window
from .runtime import Deliver, Runtime, Timings, begin_attempt, log_failure, outcome_of
from .stock import TURN_DELIVERIES, Stock

log = logging.getLogger("fotahook.delivery")

TURN_SECONDS: Final = 1.0
"""A callback is read afresh at least this often, so that no attempt starts on an old one later than that."""
STAY_SECONDS: Final = 5.0
"""The longest that a lane which always has more to send stays with one of several dispatchers: a new one gets lanes."""
RETRY_SECONDS: Final = 0.5
"""Pause before a store that is away is tried again."""
SETTLE_DELIVERIES: Final = 16
SETTLE_SECONDS: Final = 0.02
"""Outcomes are written when there are so many, or after so long, while other attempts run."""

_Attempt = tuple[Delivery, Place, Lease, float, float]
"""What is attempted, with which place and lease, and when it started by the wall clock and by the monotonic one."""


@dataclass(eq=False)
class LaneWorker:
    """Serves one lane from its lease until it gives the lease back. One object, one ``begin``.

    It has no task of its own: whenever something has ended, it looks what comes next.
    """

    lease: Lease
    leased_at: float
    _: KW_ONLY
    store: Store
    deliver: Deliver
    service_rules: Rules
    timings: Timings
    runtime: Runtime
    retries: bool = False
    """Whether it left deliveries that are due again later."""

    def __post_init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = self._loop.create_future()
        self._lane = self.lease.lane
        self._places = self.runtime.places
        self._now = self.runtime.monotonic
        self._health = self.lease.health
        self._size: int
        """The window, by the lane's health alone."""
        self._apply(self.lease)
        self._leased_until = self.leased_at + self.timings.lease
        self._refreshed_at = self._turn_started = self._settled_at = self.leased_at
        self._fetched_at = self._now()
        self._started = 0
        self._stock = Stock(lambda: self.runtime.budget(self._lane))
        self._ready = self._stock.ready
        self._attempts: dict[asyncio.Future[Outcome], _Attempt] = {}
        self._waits = False
        """Whether it waits for a place."""
        self._place: Place | None = None
        """One that it waited for, while the lease is read afresh."""
        self._settlements: list[Settlement] = []
        self._settling: asyncio.Task[None] | None = None
        self._fetching: asyncio.Task[None] | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._looking = self._ending = self._over = False
        """Whether it looks soon what comes next, the lane is being given back, and it has ended."""
        self._judged_by = self._health
        """What outcomes are judged by: the health before the lane began to wait. Attempts that were under way then are
        part of the same failure, which counts once."""
        self._waits_until: float | None = None
        """When the backoff ends, if the endpoint failed."""
        self._paused = False
        self._next_start = float("-inf")
        """When the account's rate limit allows another attempt."""

    def begin(self, handed: HandOver | None = None) -> asyncio.Future[None]:
        """Send what is due until the lane has nothing more, must wait, or its turn is over; a future of that end."""
        self._places.begin(self._lane, self.lease.health)
        if handed is not None:
            self._stock.may_have_more = False
            self.hand(handed.deliveries, more=handed.more)
        self._look_soon()
        return self.ended

    async def abandon(self) -> None:
        """End at once, and return when nothing runs any more."""
        self._end()
        await asyncio.wait([self.ended])

    def _look_soon(self) -> None:
        if not self._looking:
            self._looking = True
            self._loop.call_soon(self._look)

    def _look(self) -> None:
        """Fetch, send, settle and give back, as far as it is time for that."""
        self._looking = False
        if self._over:
            return
        try:
            if self._fetching is None and self._should_fetch():
                self._fetching = self._run(self._fetch())
            self._start()
            if self._settling is None:
                if self._can_give_back():
                    self._ending = True
                    self.retries = self.retries or self._pause_before_next() > 0
                    self._settling = self._run(self._settle(keep=0.0))
                elif self._is_time_to_settle() or self._now() - self._refreshed_at >= self._refresh_seconds():
                    self._settling = self._run(self._settle(keep=self.timings.lease))
            if self._attempts or self._waits:
                self._set_alarm()
        except Exception as error:
            self._end(error)

    def _run(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        task.add_done_callback(self._on_task_end)
        return task

    def _on_task_end(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._end(error)
        self._look_soon()

    def _set_alarm(self) -> None:
        """Look again when the lease must be read afresh, the rate limit allows more, or it is time to fetch."""
        seconds = self._pause_before_next() or self.timings.renew
        if self._settling is None:
            seconds = min(seconds, SETTLE_SECONDS if self._settlements else self._refresh_seconds())
        if self._has_room():
            seconds = min(seconds, self._stock.fetch_seconds)
        now, alarm = self._loop.time(), self._alarm
        if alarm is None or not now < alarm.when() <= now + seconds:
            if alarm is not None:
                alarm.cancel()
            self._alarm = self._loop.call_later(seconds, self._look)

    def _end(self, error: BaseException | None = None) -> None:
        """End what still runs: nothing, unless the lease was lost, something broke or the worker is abandoned."""
        if self._over:
            return
        self._over = True
        self._places.end(self._lane)
        self._release_place()
        if self._alarm is not None:
            self._alarm.cancel()
        current = asyncio.current_task()
        running = [each for each in (*self._attempts, self._fetching, self._settling) if each not in (None, current)]
        for each in running:
            each.cancel()
        asyncio.gather(*running, return_exceptions=True).add_done_callback(lambda _: self._leave(error))

    def _leave(self, error: BaseException | None) -> None:
        self._stock.clear()
        if error is None:
            self.ended.set_result(None)
        else:
            self.ended.set_exception(error)

    # Fetching

    def hand(self, deliveries: Sequence[Delivery], *, more: bool) -> None:
        """Take new deliveries; what is not taken is fetched. While older ones wait in the store, none is taken."""
        new = None
        if not (self._ending or self._over or self._stock.may_have_more):
            new = self._stock.take(deliveries, self._fetch_size())
        self._stock.may_have_more = more or new is None
        if new:
            self._fetched_at = self._now()
            self._make_ready(new)
            self._start()
        self._look_soon()

    def _fetch_size(self) -> int:
        """How many deliveries to take at once: a lane that may hang takes no more than it is about to send."""
        quick = self._places.pace(self._lane) == "quick"
        return TURN_DELIVERIES if quick else min(TURN_DELIVERIES, 2 * self._window())

    def _should_fetch(self) -> bool:
        """Whether to look for more in the store: a little early, so that no place is free meanwhile."""
        now, attempts = self._now(), len(self._attempts)
        if self._stock.may_have_more:
            should = len(self._ready) + attempts < self._window() * 5 // 4 and self._may_start(now)
        else:
            should = attempts > 0 and now - self._fetched_at >= self._stock.fetch_seconds and self._has_room()
        # When memory is short, a lane goes on with one message at a time.
        return should and (not self._stock or self._stock.budget.allowance() > 0)

    async def _fetch(self) -> None:
        self._fetched_at = self._now()
        try:
            new = await self._stock.fetch(self.store, self.lease, self._fetch_size())
            if any(expired(delivery, self._rules) for delivery in new):
                # It may have jumped since the lease was read.
                self._clock_is_steady = await self.runtime.clock_is_steady(self.store)
            self._make_ready(new)
        except (StoreError, MemoryError) as error:
            log.warning("lane %s could not fetch and tries again: %s", self.lease.account, repr(error))
            await asyncio.sleep(RETRY_SECONDS)
        finally:
            self._fetching = None

    def _make_ready(self, new: Sequence[Delivery]) -> None:
        for delivery in new:
            # A clock that just jumped may be wrong, and a message is dead for good.
            if self._clock_is_steady and expired(delivery, self._rules):
                self._settlements.append(expiry_of(delivery, self.runtime.clock()))
            else:
                self._ready.append(delivery)

    # Starting attempts

    def _may_start(self, now: float) -> bool:
        """Whether anything new may be started."""
        if self._ending or self._paused or self._waits_until is not None or now < self._next_start:
            return False
        if not self.lease.open or self.runtime.stopping():
            return False
        turn = now - self._turn_started
        over = self._started >= TURN_DELIVERIES or turn >= TURN_SECONDS
        stays = turn < STAY_SECONDS or not self.store.has_many_dispatchers
        return stays and not (over and self.runtime.others_wait())

    def _window(self) -> int:
        share = self._places.share(self._lane)
        return self._size if share is None else min(self._size, share)

    def _pause_before_next(self) -> float:
        """Seconds until the account's rate limit allows another attempt."""
        return max(0.0, self._next_start - self._now())

    def _has_room(self) -> bool:
        """Whether another attempt could start if there were something to send."""
        return not self._ready and len(self._attempts) < self._window() and self._may_start(self._now())

    def _start(self) -> None:
        """Start as many attempts as there are deliveries, places and room in the window for."""
        if self._waits:
            return
        now, ready, attempts = self._now(), self._ready, self._attempts
        while ready and len(attempts) < self._window():
            place = self._place = self._place or self._places.take(self._lane)
            if place is None:
                self._waits = True
                self._places.wait(self._lane, self._on_place)
                return
            if not self._may_start(now):
                break
            if now - self._refreshed_at >= TURN_SECONDS or now + self.timings.attempt >= self._leased_until:
                # The callback must be read afresh first, and the lease outlive the attempt. The place is kept
                # meanwhile: it may have been waited for.
                return
            self._place = None
            self._started += 1
            if (per_second := self.lease.limits.per_second) is not None:
                self._next_start = now + 1 / per_second
            delivery = ready.popleft()
            attempt = begin_attempt(self.deliver, self.lease, delivery)
            attempts[attempt] = delivery, place, self.lease, self.runtime.clock(), now
            attempt.add_done_callback(self._on_attempt_end)
        self._release_place()

    def _release_place(self) -> None:
        if self._place is not None:
            self._places.release(self._place, used=False)
            self._place = None

    def _on_place(self, place: Place) -> None:
        self._waits, self._place = False, place
        try:
            self._start()
        except Exception as error:
            self._end(error)
        if self._place is not None or self._stock.may_have_more:
            self._look_soon()

    # Outcomes

    def _on_attempt_end(self, attempt: asyncio.Future[Outcome]) -> None:
        saturated = len(self._attempts) >= self._size
        delivery, place, lease, wall, started_at = self._attempts.pop(attempt)
        self._places.release(place, used=True)
        if attempt.cancelled():
            # Its event loop ends: nothing is known of the message, which is sent again after the lease.
            self._end()
        if self._over:
            return
        try:
            outcome = outcome_of(attempt, lease, delivery)
            decision = decide(
                outcome,
                delivery,
                self._judged_by,
                seconds=self._now() - started_at,
                saturated=saturated,
                jitter=self.runtime.jitter(),
                rules=self._rules,
            )
            self._settlements.append(settlement_of(delivery, decision, outcome, wall))
            self.retries = self.retries or decision.state == "pending"
            if lease.revision == self.lease.revision:
                self._paused = self._paused or decision.pause
                if self._waits_until is None:
                    if decision.wait > 0:
                        self._waits_until = self._now() + decision.wait
                    else:
                        if self._health.failures > 0 and decision.health.failures == 0:
                            self.runtime.recovered(self.lease)
                        self._judged_by = decision.health
                    self._health = decision.health
                    self._size = window(decision.health, self._rules)
                if outcome.code != DELIVERED:
                    log_failure(lease, delivery, decision, outcome)
            self._start()
        except Exception as error:
            self._end(error)
        first = len(self._settlements) == 1
        if self._stock.may_have_more or (self._settling is None and (first or self._is_time_to_settle())):
            self._look_soon()

    # Settling

    def _can_give_back(self) -> bool:
        """Whether nothing is left to do but the last settlement, which gives the lane back in the same transaction."""
        if self._attempts or self._fetching is not None:
            return False
        # Writing what ended one of a key makes the next one ready, so that the lane is worth keeping.
        promoted = any(one.state != "pending" and one.delivery.followed for one in self._settlements)
        return not (self._ready or self._stock.may_have_more or promoted) or not self._may_start(self._now())

    def _is_time_to_settle(self) -> bool:
        """Whether to write outcomes. Many together cost less, but the next message of a key waits for this one's."""
        settlements = self._settlements
        enough = len(settlements) >= (SETTLE_DELIVERIES if self._attempts else 1)
        late = self._now() - self._settled_at >= SETTLE_SECONDS
        return enough or (bool(settlements) and (late or settlements[-1].delivery.ordering_key is not None))

    def _refresh_seconds(self) -> float:
        """How old the lease may grow: attempts that are about to start need the callback as it is now."""
        if self._place is not None:
            return 0.0
        return TURN_SECONDS / 2 if self._ready and len(self._attempts) < self._window() else self.timings.renew

    async def _settle(self, *, keep: float) -> None:
        """Write outcomes. A store that is away is tried again for as long as the lease lasts."""
        batch, self._settlements = self._settlements, []
        while True:
            asked_at = self._now()
            wait = 0.0 if self._waits_until is None else max(0.0, self._waits_until - asked_at)
            if keep == 0:
                # Given back, the lane rests for as long as it would have here.
                wait = max(wait, self._pause_before_next())
            verdict = LaneVerdict(health=self._health, wait=wait, pause=self._paused)
            try:
                lease = await self.store.settle(self.lease, batch, verdict, keep=keep)
            except StoreError as error:
                if self._now() >= self._leased_until:
                    log.warning("lane %s is lost: the store is unavailable: %s", self.lease.account, error)
                    self._end()
                    return
                await asyncio.sleep(RETRY_SECONDS)
            else:
                self._on_settled(batch, lease, asked_at, keep)
                return

    def _on_settled(self, batch: Sequence[Settlement], lease: Lease | None, asked_at: float, keep: float) -> None:
        self._settling = None
        self._stock.settle(batch)
        # The next of a key was promoted with its head's settlement.
        self._stock.may_have_more |= any(settlement.delivery.ordering_key is not None for settlement in batch)
        self._leased_until, self._refreshed_at = asked_at + keep, asked_at
        self._settled_at = self._now()
        if lease is not None:
            self._apply(lease)
            return
        if keep > 0:
            log.warning("lane %s lost its lease; its running attempts may be sent twice", self.lease.account)
        self._end()

    def _apply(self, lease: Lease) -> None:
        if lease.revision != self.lease.revision:
            # A new endpoint: the old one's health does not hold for it.
            self._waits_until, self._paused, self._health, self._judged_by = None, False, lease.health, lease.health
        self.lease = lease
        self._rules = limited(self.service_rules, lease)
        self._size = window(self._health, self._rules)
        self._clock_is_steady = self.runtime.watch.is_steady(lease.read_at)

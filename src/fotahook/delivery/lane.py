"""Serves one leased lane: attempts side by side, outcomes settled in batches, the lease renewed meanwhile."""

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from typing import Final

from msgspec.structs import replace

from fotahook.contract.addresses import origin
from fotahook.store.records import Delivery, HandOver, LaneVerdict, Lease, Settlement, StoreError

from .outcomes import DELIVERED, Attempt
from .places import TURN_DELIVERIES, Place, Stock
from .policy import Decision, Rules, decide, expired, expiry_of, settlement_of, window
from .runtime import Runtime, TaskAttempt

log = logging.getLogger("fotahook.delivery")

TURN_SECONDS: Final = 1.0
"""A callback is read afresh at least this often, so that no attempt starts on an old one later than that."""
STAY_SECONDS: Final = 5.0
"""The longest that a lane which always has more to send stays with one of several dispatchers: a new one gets lanes."""
RETRY_SECONDS: Final = 0.5
SETTLE_DELIVERIES: Final = 64
SETTLE_SECONDS: Final = 0.05
"""Outcomes are written when there are so many, or after so long, while other attempts run."""


class LaneWorker:
    """Serves one lane from its lease until it gives the lease back. One object, one ``begin``. It has no task of its
    own: whenever something has ended, it looks what comes next."""

    def __init__(self, lease: Lease, leased_at: float, runtime: Runtime, rules: Rules) -> None:
        """`rules` are the service's; the account may have lower limits."""
        self.lease = lease
        self.retries = False
        self._runtime = runtime
        self._now = runtime.monotonic
        self._service_rules = rules
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = self._loop.create_future()
        self._places = runtime.places
        self._seat = self._places.begin(lease.lane, lease.health)
        self._stock = Stock(lambda: self._places.budget(self._seat))
        self._ready = self._stock.ready
        self._health = self._judged_by = lease.health
        """What outcomes are judged by is the health before the lane began to wait: attempts that were under way then
        are part of the same failure, which counts once."""
        self._size: int
        self._apply(lease)
        self._leased_until = leased_at + self._runtime.timings.lease
        self._refreshed_at = self._turn_started = self._settled_at = leased_at
        self._fetched_at = self._now()
        self._started = 0
        self._attempts: dict[Attempt, tuple[Delivery, Place, Lease, float, float]] = {}
        """With what, and when by the wall clock and the monotonic one, each of them started."""
        self._place: Place | None = None
        self._settlements: list[Settlement] = []
        self._settling: asyncio.Task[None] | None = None
        self._fetching: asyncio.Task[None] | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._waits = self._looking = self._ending = self._over = False
        """Whether it waits for a place, looks soon what comes next, gives the lane back, and ends."""
        self._error: BaseException | None = None
        self._waits_until: float | None = None
        self._paused = False
        self._next_start = float("-inf")

    def begin(self, handed: HandOver | None = None) -> asyncio.Future[None]:
        """Send what is due until the lane has nothing more, must wait, or its turn is over: a future of that end."""
        if handed is not None:
            self._stock.may_have_more = False
            self.hand(handed.deliveries, more=handed.more)
        self._look_soon()
        return self.ended

    def _look_soon(self) -> None:
        if not self._looking:
            self._looking = True
            self._loop.call_soon(self._look)

    def _look(self) -> None:
        self._looking = False
        if self._over:
            return
        try:
            if self._should_fetch():
                self._fetching = self._run(self._fetch())
            self._start()
            if self._settling is None:
                if self._can_give_back():
                    self._ending = True
                    self.retries = self.retries or self._pause_before_next() > 0
                    self._settling = self._run(self._settle(keep=0.0))
                elif self._settles_in() <= 0:
                    self._settling = self._run(self._settle(keep=self._runtime.timings.lease))
            if self._attempts or self._waits:
                self._set_alarm()
        except Exception as error:
            self.end(error)

    def _run(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        task.add_done_callback(self._on_task_end)
        return task

    def _on_task_end(self, task: asyncio.Task[None]) -> None:
        if task is self._fetching:
            self._fetching = None
        else:
            self._settling = None
        if not task.cancelled() and (error := task.exception()) is not None:
            self.end(error)
        if self._over:
            self._leave()
        else:
            self._look_soon()

    def _set_alarm(self) -> None:
        seconds = self._pause_before_next() or self._runtime.timings.renew
        if self._settling is None:
            seconds = min(seconds, self._settles_in())
        if self._has_room():
            seconds = min(seconds, self._stock.fetch_seconds)
        # Shorter than a millisecond, it is no timer for uvloop.
        seconds, now, alarm = max(0.001, seconds), self._loop.time(), self._alarm
        if alarm is None or not now < alarm.when() <= now + seconds:
            if alarm is not None:
                alarm.cancel()
            self._alarm = self._loop.call_later(seconds, self._look)

    def end(self, error: BaseException | None = None) -> None:
        """End what still runs: nothing, unless the lease was lost, something broke or the worker is abandoned."""
        if self._over:
            return
        self._over, self._error = True, error
        self._places.end(self._seat)
        self._release_place()
        if self._alarm is not None:
            self._alarm.cancel()
        for attempt in list(self._attempts):
            attempt.cancel()
        for task in (self._fetching, self._settling):
            if task is not None and task is not asyncio.current_task():
                task.cancel()
        self._leave()

    def _leave(self) -> None:
        if not (self._attempts or self._fetching or self._settling or self.ended.done()):
            self._stock.clear()
            if self._error is None:
                self.ended.set_result(None)
            else:
                self.ended.set_exception(self._error)

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
        return TURN_DELIVERIES if self._seat.pace == "quick" else min(TURN_DELIVERIES, 2 * self._window())

    def _should_fetch(self) -> bool:
        """Whether to look for more in the store: a little early, so that no place is free meanwhile."""
        if self._fetching is not None:
            return False
        if self._stock.may_have_more:
            should = self._is_short() and self._may_start(self._now())
        else:
            is_time = self._now() - self._fetched_at >= self._stock.fetch_seconds
            should = bool(self._attempts) and is_time and self._has_room()
        # When memory is short, a lane goes on with one message at a time.
        return should and (not self._stock or self._stock.budget.allowance() > 0)

    def _is_short(self) -> bool:
        return len(self._ready) + len(self._attempts) < self._window() * 5 // 4

    async def _fetch(self) -> None:
        self._fetched_at = self._now()
        try:
            new = await self._stock.fetch(self._runtime.store, self.lease, self._fetch_size())
            if any(expired(delivery, self._rules, 0.0) for delivery in new):
                # It may have jumped since the lease was read.
                self._clock_is_steady = await self._runtime.watch.trusts(self._runtime.store)
            self._make_ready(new)
        except (StoreError, MemoryError) as error:
            log.warning("lane %s could not fetch and tries again: %s", self.lease.account, repr(error))
            await asyncio.sleep(RETRY_SECONDS)

    def _make_ready(self, new: Sequence[Delivery]) -> None:
        for delivery in new:
            # A clock that just jumped may be wrong, and a message is dead for good.
            if self._clock_is_steady and expired(delivery, self._rules, self._runtime.watch.ahead):
                self._settlements.append(expiry_of(delivery, self._runtime.clock()))
            else:
                self._ready.append(delivery)

    def _may_start(self, now: float) -> bool:
        is_held = self._ending or self._paused or self._waits_until is not None or now < self._next_start
        if is_held or not self.lease.open or self._runtime.stopping:
            return False
        turn = now - self._turn_started
        if turn >= STAY_SECONDS and self._runtime.store.has_many_dispatchers:
            return False
        return (self._started < TURN_DELIVERIES and turn < TURN_SECONDS) or self._runtime.room() > 0

    def _window(self) -> int:
        if self._seat.pace == "quick":
            return self._size
        share = self._places.share(self._seat)
        return self._size if share is None else min(self._size, share)

    def _pause_before_next(self) -> float:
        return max(0.0, self._next_start - self._now())

    def _has_room(self) -> bool:
        """Whether another attempt could start if there were something to send."""
        return not self._ready and len(self._attempts) < self._window() and self._may_start(self._now())

    def _start(self) -> None:
        """Start as many attempts as there are deliveries, places and room in the window for."""
        if self._waits:
            return
        ready, attempts = self._ready, self._attempts
        now = self._now() if ready else 0.0
        while ready and len(attempts) < self._window():
            place = self._place = self._place or self._places.take(self._seat)
            if place is None:
                self._waits = True
                self._places.wait(self._seat, self._on_place)
                return
            if not self._may_start(now):
                break
            if now - self._refreshed_at >= TURN_SECONDS or now + self._runtime.timings.attempt >= self._leased_until:
                # The callback must be read afresh first, and the lease outlive the attempt. The place is kept
                # meanwhile: it may have been waited for.
                return
            self._place = None
            self._started += 1
            if (per_second := self.lease.limits.per_second) is not None:
                self._next_start = now + 1 / per_second
            delivery = ready.popleft()
            started = self._runtime.deliver(self.lease, delivery)
            attempt = started if isinstance(started, Attempt) else TaskAttempt(started, self.lease, delivery)
            attempts[attempt] = delivery, place, self.lease, self._runtime.clock(), now
            if attempt.ended:
                self._loop.call_soon(self._on_attempt_end, attempt)
            else:
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
            self.end(error)
        self._look_if_needed()

    def _look_if_needed(self) -> None:
        """Look soon if there is anything to do but to start attempts."""
        if self._looking:
            return
        fetch = self._stock.may_have_more and self._fetching is None and self._is_short()
        if fetch or (self._settling is None and (len(self._settlements) == 1 or self._settles_in() <= 0)):
            self._look_soon()

    def _on_attempt_end(self, attempt: Attempt) -> None:
        saturated = len(self._attempts) >= self._size
        delivery, place, lease, wall, started_at = self._attempts.pop(attempt)
        self._places.release(place, used=True)
        outcome = attempt.outcome
        if self._over or outcome is None:
            # Without an outcome, its event loop ends: nothing is known of the message, which is sent again.
            self.end()
            self._leave()
            return
        try:
            seconds, jitter = self._now() - started_at, self._runtime.jitter()
            before, rules = self._judged_by, self._rules
            decision = decide(
                outcome, delivery, before, seconds=seconds, saturated=saturated, jitter=jitter, rules=rules
            )
            self._settlements.append(settlement_of(delivery, decision, outcome, wall))
            if decision.state == "pending":
                self.retries = True
            if lease.revision == self.lease.revision:
                self._judge(decision)
                if outcome.code != DELIVERED:
                    to = lease.consumer if outcome.url is None else origin(outcome.url)
                    next_step = "the message is dead" if decision.state == "dead" else outcome.fix or "it is retried"
                    about = delivery.message, delivery.account, to, outcome.code, next_step
                    log.warning("attempt failed: message %s of %s to %s: %s; %s", *about)
            self._start()
        except Exception as error:
            self.end(error)
        self._look_if_needed()

    def _judge(self, decision: Decision) -> None:
        self._paused = self._paused or decision.pause
        if self._waits_until is not None:
            return
        if decision.wait > 0:
            self._waits_until = self._now() + decision.wait
        else:
            if self._health.failures > 0 and decision.health.failures == 0:
                self._runtime.on_recovered(self.lease)
            self._judged_by = decision.health
        self._health = decision.health
        self._size = window(decision.health, self._rules)

    def _can_give_back(self) -> bool:
        """Whether nothing is left to do but the last settlement, which gives the lane back in the same transaction."""
        if self._attempts or self._fetching is not None:
            return False
        # Writing what ended one of a key makes the next one ready, so that the lane is worth keeping.
        promoted = any(one.state != "pending" and one.delivery.followed for one in self._settlements)
        return not (self._ready or self._stock.may_have_more or promoted) or not self._may_start(self._now())

    def _settles_in(self) -> float:
        """Seconds until outcomes are written: many together cost less, but the next message of a key waits for this
        one's. Or until the lease is read afresh, early if attempts are about to start."""
        settlements = self._settlements
        if self._place is not None or (settlements and not self._attempts) or len(settlements) >= SETTLE_DELIVERIES:
            return 0.0
        if settlements:
            is_keyed = settlements[-1].delivery.ordering_key is not None
            return 0.0 if is_keyed else self._settled_at + SETTLE_SECONDS - self._now()
        starts = self._ready and len(self._attempts) < self._window()
        return self._refreshed_at - self._now() + (TURN_SECONDS / 2 if starts else self._runtime.timings.renew)

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
                lease = await self._runtime.store.settle(self.lease, batch, verdict, keep=keep)
            except StoreError as error:
                if self._now() >= self._leased_until:
                    log.warning("lane %s is lost: the store is unavailable: %s", self.lease.account, error)
                    self.end()
                    return
                await asyncio.sleep(RETRY_SECONDS)
                continue
            self._stock.settle(batch)
            # The next of a key was promoted with its head's settlement.
            self._stock.may_have_more |= any(settlement.delivery.ordering_key is not None for settlement in batch)
            self._leased_until, self._refreshed_at, self._settled_at = asked_at + keep, asked_at, self._now()
            if lease is not None:
                self._apply(lease)
            else:
                if not self._ending:
                    log.warning("lane %s lost its lease; its running attempts may be sent twice", self.lease.account)
                self.end()
            return

    def _apply(self, lease: Lease) -> None:
        if lease.revision != self.lease.revision:
            # A new endpoint: the old one's health does not hold for it.
            self._waits_until, self._paused, self._health, self._judged_by = None, False, lease.health, lease.health
        self.lease = lease
        # An account's own limit can only lower the service's.
        rules, limit = self._service_rules, lease.limits.in_flight
        self._rules = rules if limit is None else replace(rules, in_flight=min(limit, rules.in_flight))
        self._size = window(self._health, self._rules)
        self._clock_is_steady = self._runtime.watch.is_steady(lease.read_at)

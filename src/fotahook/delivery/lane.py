"""Serving one leased lane: attempts side by side, outcomes settled in batches, the lease kept alive meanwhile."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from fotahook.contract.urls import origin
from fotahook.store.base import Store
from fotahook.store.records import Attempt, Delivery, Health, LaneVerdict, Lease, Settlement, StoreError

from .outcomes import EXPIRED, Outcome
from .policy import Decision, Rules, decide, expired

log = logging.getLogger("fotahook.delivery")

Deliver = Callable[[Lease, Delivery], Awaitable[Outcome]]
"""Makes one attempt. It ends within the attempt's deadline and tells everything by its Outcome."""

TURN_DELIVERIES: Final = 100
TURN_SECONDS: Final = 1.0
"""A callback is read afresh at least this often, so that no attempt starts on an old one later than that."""
LOOK_SECONDS: Final = 0.25
LOOK_SECONDS_CAP: Final = 1.0
"""What comes while other attempts are under way, and there is room beside them, is seen this late at the most: sooner
if they have not been for long."""
RETRY_SECONDS: Final = 0.5
"""Pause before a store that is away is tried again."""


class Timings(msgspec.Struct, frozen=True, kw_only=True):
    """Durations of leases and attempts, in seconds."""

    lease: float = 30.0
    renew: float = 10.0
    attempt: float = 15.0
    """The longest that one attempt takes; an attempt starts only if the lease outlives it."""


class Chance(msgspec.Struct, frozen=True, kw_only=True):
    """Time and chance, which come in by the door."""

    clock: Callable[[], float]
    monotonic: Callable[[], float]
    spread: Callable[[], float]


class LaneServer:
    """Serves one lane from its lease to giving it back. One object, one ``run``."""

    def __init__(
        self,
        lease: Lease,
        leased_at: float,
        *,
        store: Store,
        deliver: Deliver,
        rules: Rules,
        timings: Timings,
        chance: Chance,
        in_flight: asyncio.Semaphore,
        crowded: Callable[[], bool],
        stopping: Callable[[], bool],
    ) -> None:
        self._lease = lease
        self._store = store
        self._deliver = deliver
        self._service_rules = rules
        self._rules = _limited(rules, lease)
        self._timings = timings
        self._chance = chance
        self._in_flight = in_flight
        self._crowded = crowded
        self._stopping = stopping
        self._health = lease.health
        self._leased_until = leased_at + timings.lease
        self._refreshed_at = leased_at
        self._turn_began = leased_at
        self._started = 0
        self._ready: deque[Delivery] = deque()
        self._hand: dict[asyncio.Task[Attempted | None], Delivery] = {}
        self._ended: list[asyncio.Task[Attempted | None]] = []
        self._queued = 0
        self._news = asyncio.Event()
        self._settlements: list[Settlement] = []
        self._settling: asyncio.Task[Lease | None] | None = None
        self._taken: set[int] = set()
        self._maybe_more = True
        self._looked_at = float("-inf")
        self._look_seconds = LOOK_SECONDS
        self._lost = False
        self._trouble: Trouble | None = None
        self._paused = False
        self._last_success = float("-inf")
        self._next_start = float("-inf")

    async def run(self) -> None:
        """Send what is due until the lane has nothing more, must wait, or its turn is over."""
        try:
            while not self._lost:
                await self._fill()
                self._start()
                if not self._hand and self._settling is None and self._finished():
                    await self._settle(keep=0.0)
                    return
                self._begin_settling()
                await self._step()
        finally:
            await self._abandon()

    # Starting attempts

    def _open(self) -> bool:
        """Whether anything new may be started."""
        over = self._started >= TURN_DELIVERIES or self._now() - self._turn_began >= TURN_SECONDS
        return self._may_send() and not (over and self._crowded())

    def _may_send(self) -> bool:
        troubled = self._trouble is not None or self._paused
        return self._lease.open and not (troubled or self._stopping())

    def _finished(self) -> bool:
        more = self._ready or self._maybe_more or any(map(_promotes, self._settlements))
        return not self._open() or not more or self._pause_before_next() > 0

    def _window(self) -> int:
        if not self._rules.slow_start and self._health.failures == 0:
            return self._rules.in_flight
        return min(self._health.window, self._rules.in_flight)

    def _pause_before_next(self) -> float:
        """Seconds until the account's own pace allows another attempt."""
        return max(0.0, self._next_start - self._now())

    def _has_room(self) -> bool:
        """Whether another attempt might be started if there were something to send."""
        room = not self._ready and len(self._hand) < self._window()
        return room and self._open() and self._pause_before_next() == 0

    async def _fill(self) -> None:
        may_have_come = bool(self._hand) and self._now() - self._looked_at >= self._look_seconds
        if not self._has_room() or not (self._maybe_more or may_have_come):
            return
        # What is settled while the answer is on its way may still be in that answer.
        known = tuple(self._taken)
        self._maybe_more = False
        self._looked_at = self._now()
        try:
            found = await self._store.fetch(self._lease, TURN_DELIVERIES, without=known)
        except StoreError as error:
            log.warning("the store is away, lane %s waits: %s", self._lease.account, error)
            self._maybe_more = True
            await asyncio.sleep(RETRY_SECONDS)
            return
        self._maybe_more |= len(found) == TURN_DELIVERIES
        # Where nothing comes, it is looked for less and less often.
        self._look_seconds = LOOK_SECONDS if found else min(2 * self._look_seconds, LOOK_SECONDS_CAP)
        for delivery in found:
            if expired(delivery, self._rules):
                self._settlements.append(_expiry(delivery, self._chance.clock()))
                self._take(delivery)
            else:
                self._ready.append(delivery)

    def _start(self) -> None:
        while self._ready and len(self._hand) < self._window() and self._open() and self._may_attempt():
            delivery = self._ready.popleft()
            self._take(delivery)
            self._started += 1
            if self._lease.limits.per_second is not None:
                self._next_start = self._now() + 1 / self._lease.limits.per_second
            self._queued += 1
            task = asyncio.create_task(self._attempt(delivery))
            task.add_done_callback(self._end)
            self._hand[task] = delivery

    def _take(self, delivery: Delivery) -> None:
        self._taken.add(delivery.seq)

    def _may_attempt(self) -> bool:
        return self._is_fresh() and self._now() >= self._next_start

    def _is_fresh(self) -> bool:
        """Whether the callback was read a moment ago, and the lease outlives an attempt that begins now."""
        now = self._now()
        return now - self._refreshed_at < TURN_SECONDS and now + self._timings.attempt < self._leased_until

    async def _attempt(self, delivery: Delivery) -> "Attempted | None":
        """Make an attempt when there is a place for it; None if by then the lane may not begin one any more."""
        await self._in_flight.acquire()
        self._queued -= 1
        try:
            lease = self._lease
            if not self._may_send() or not self._is_fresh():
                return None
            wall, monotonic = self._chance.clock(), self._now()
            outcome = await self._try(lease, delivery)
            return Attempted(wall=wall, monotonic=monotonic, revision=lease.revision, outcome=outcome)
        finally:
            self._in_flight.release()

    async def _try(self, lease: Lease, delivery: Delivery) -> Outcome:
        try:
            return await self._deliver(lease, delivery)
        except Exception:
            log.exception("delivering message %s failed in fotahook itself", delivery.message)
            return Outcome(code="internal_error", url=lease.url)

    def _end(self, task: "asyncio.Task[Attempted | None]") -> None:
        self._ended.append(task)
        self._news.set()

    # Hearing of them

    async def _step(self) -> None:
        """Wait until an attempt or a settlement ends, or the lease must be renewed."""
        if not self._hand and self._settling is None:
            return
        # Not asyncio.wait: it would look at everything in hand each time that one of them ends.
        timeout = min(self._refresh_seconds(), self._pause_before_next() or self._timings.renew)
        if self._has_room():
            timeout = min(timeout, self._look_seconds)
        alarm = asyncio.get_running_loop().call_later(timeout, self._news.set)
        try:
            await self._news.wait()
        finally:
            alarm.cancel()
        self._news.clear()
        ended, self._ended = self._ended, []
        for task in ended:
            self._hear(self._hand.pop(task), task.result())
        if self._settling is not None and self._settling.done():
            settled, self._settling = self._settling, None
            self._renewed(settled.result())

    def _hear(self, delivery: Delivery, attempted: "Attempted | None") -> None:
        if attempted is None:
            self._taken.discard(delivery.seq)
            self._maybe_more = True
            return
        outcome = attempted.outcome
        decision = decide(
            outcome,
            delivery,
            # Attempts that were under way when trouble began are part of the same trouble: it counts once.
            self._health if self._trouble is None else self._trouble.health_before,
            others_succeeded=self._last_success > attempted.monotonic,
            spread=self._chance.spread(),
            rules=self._rules,
        )
        self._settlements.append(_settlement(delivery, decision, outcome, attempted.wall))
        if decision.state == "delivered":
            self._last_success = self._now()
        if attempted.revision == self._lease.revision:
            self._judge(decision)
            if decision.state == "dead" or outcome.code != "delivered":
                self._tell(delivery, decision, outcome)

    def _judge(self, decision: Decision) -> None:
        self._paused = self._paused or decision.pause
        if self._trouble is not None:
            return
        if decision.wait > 0:
            self._trouble = Trouble(health_before=self._health, until=self._now() + decision.wait)
        self._health = decision.health

    def _tell(self, delivery: Delivery, decision: Decision, outcome: Outcome) -> None:
        log.warning(
            "attempt failed: message %s of %s to %s: %s; %s",
            delivery.message,
            delivery.account,
            self._lease.consumer if outcome.url is None else origin(outcome.url),
            outcome.code,
            "the message is dead" if decision.state == "dead" else outcome.fix or "it is tried again",
        )

    # Settling

    def _begin_settling(self) -> None:
        stale = self._now() - self._refreshed_at >= self._refresh_seconds()
        if self._settling is None and (self._settlements or stale):
            self._settling = asyncio.create_task(self._settle(keep=self._timings.lease))
            self._settling.add_done_callback(lambda _: self._news.set())

    def _refresh_seconds(self) -> float:
        """How old the lease may grow: whatever is to begin wants to know the callback as it is now."""
        return TURN_SECONDS / 2 if self._ready or self._queued else self._timings.renew

    async def _settle(self, *, keep: float) -> Lease | None:
        """Write what is known. A store that is away is tried again for as long as the lease lasts."""
        batch, self._settlements = self._settlements, []
        while True:
            asked_at = self._now()
            wait = 0.0 if self._trouble is None else max(0.0, self._trouble.until - asked_at)
            if keep == 0:
                # Given back, the lane rests for as long as it would have here.
                wait = max(wait, self._pause_before_next())
            verdict = LaneVerdict(health=self._health, wait=wait, pause=self._paused)
            try:
                lease = await self._store.settle(self._lease, batch, verdict, keep=keep)
            except StoreError as error:
                if self._now() >= self._leased_until:
                    log.warning("lane %s is lost to a store that is away: %s", self._lease.account, error)
                    return None
                await asyncio.sleep(RETRY_SECONDS)
                continue
            self._taken.difference_update(settlement.delivery.seq for settlement in batch)
            # The next of a key was promoted with its head's settlement.
            self._maybe_more |= any(settlement.delivery.ordering_key is not None for settlement in batch)
            self._leased_until = asked_at + keep
            self._refreshed_at = asked_at
            return lease

    def _renewed(self, lease: Lease | None) -> None:
        if lease is None:
            self._lost = True
            log.warning("the lease of lane %s was lost; what is in hand may be sent twice", self._lease.account)
            return
        if lease.revision != self._lease.revision:
            # A new endpoint: what was learnt of the old one does not hold for it.
            self._trouble, self._paused, self._health = None, False, lease.health
        self._lease = lease
        self._rules = _limited(self._service_rules, lease)

    async def _abandon(self) -> None:
        """End what still runs: nothing, unless the lease was lost or the task is being cancelled."""
        running = [*self._hand, *([self._settling] if self._settling is not None else [])]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _now(self) -> float:
        return self._chance.monotonic()


class Trouble(msgspec.Struct, frozen=True, kw_only=True):
    """Endpoint trouble that ends the lane's turn: its health before it, and until when nothing is sent."""

    health_before: Health
    until: float


class Attempted(msgspec.Struct, frozen=True, kw_only=True):
    """What an attempt came to, on which revision of the callback, and when it began: by the wall and monotonically."""

    wall: float
    monotonic: float
    revision: int
    outcome: Outcome


def _limited(rules: Rules, lease: Lease) -> Rules:
    """The rules with the account's own limit in place of the service's."""
    in_flight = lease.limits.in_flight
    return rules if in_flight is None else msgspec.structs.replace(rules, in_flight=in_flight)


def _settlement(delivery: Delivery, decision: Decision, outcome: Outcome, started_at: float) -> Settlement:
    delivered = decision.state == "delivered"
    return Settlement(
        delivery=delivery,
        state=decision.state,
        attempts=decision.attempts,
        strikes=decision.strikes,
        delay=decision.delay,
        attempt=Attempt(
            started_at=started_at,
            url=outcome.url,
            outcome="delivered" if delivered else "failed",
            status=outcome.status,
            error_code=None if delivered else outcome.code,
            fix=outcome.fix,
            phases=outcome.phases,
            excerpt=outcome.excerpt,
            resent=outcome.resent,
        ),
    )


def _promotes(settlement: Settlement) -> bool:
    """Whether writing it makes the next of its key ready, for which the lane may as well be kept."""
    return settlement.state != "pending" and settlement.delivery.followed


def _expiry(delivery: Delivery, now: float) -> Settlement:
    outcome = Outcome(code=EXPIRED)
    attempt = Attempt(started_at=now, url=None, outcome=EXPIRED, error_code=EXPIRED, fix=outcome.fix)
    return Settlement(
        delivery=delivery,
        state="dead",
        attempts=delivery.attempts,
        strikes=delivery.strikes,
        attempt=attempt,
    )

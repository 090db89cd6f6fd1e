"""Serves one leased lane: runs attempts concurrently, settles their outcomes in batches and renews the lease."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import KW_ONLY, dataclass
from typing import Final

import msgspec

from fotahook.contract.urls import origin
from fotahook.store.base import Store
from fotahook.store.records import Attempt, Delivery, Health, LaneVerdict, Lease, Settlement, StoreError

from .outcomes import DELIVERED, EXPIRED, Outcome
from .policy import Decision, Rules, decide, expired

log = logging.getLogger("fotahook.delivery")

Deliver = Callable[[Lease, Delivery], Awaitable[Outcome]]
"""Makes one attempt. It ends within the attempt's time limit and reports every failure as an Outcome."""

TURN_DELIVERIES: Final = 100
TURN_SECONDS: Final = 1.0
"""The lease is refreshed at least this often, so that no attempt starts on a URL that was replaced longer ago."""
FETCH_SECONDS: Final = 0.25
FETCH_SECONDS_CAP: Final = 1.0
"""Maximum delay before new deliveries are picked up while other attempts are running. It grows while none arrive."""
RETRY_SECONDS: Final = 0.5
"""Delay before a call to an unavailable store is retried."""


class Timings(msgspec.Struct, frozen=True, kw_only=True):
    """Durations of leases and attempts, in seconds."""

    lease: float = 30.0
    renew: float = 10.0
    attempt: float = 15.0
    """The time limit of one attempt. An attempt starts only if the lease lasts longer than that."""


class Backoff(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint failure that stops the lane until a time. `health_before` is the lane's health before the failure."""

    health_before: Health
    until: float


class Finished(msgspec.Struct, frozen=True, kw_only=True):
    """A finished attempt: its outcome, its start by both clocks, and the revision of the callback that it used."""

    wall: float
    monotonic: float
    revision: int
    outcome: Outcome


@dataclass(eq=False)
class LaneWorker:
    """Serves a lane for one turn: create one object per lease and call ``run`` once."""

    lease: Lease
    leased_at: float
    _: KW_ONLY
    store: Store
    deliver: Deliver
    service_rules: Rules
    timings: Timings
    clock: Callable[[], float]
    monotonic: Callable[[], float]
    jitter: Callable[[], float]
    """Returns random numbers in 0..1."""
    in_flight: asyncio.Semaphore
    """Limits the attempts of all lanes together."""
    others_wait: Callable[[], bool]
    """Whether other lanes wait for a free worker."""
    stopping: Callable[[], bool]

    def __post_init__(self) -> None:
        self._rules = _limited(self.service_rules, self.lease)
        self._health = self.lease.health
        self._leased_until = self.leased_at + self.timings.lease
        self._refreshed_at = self.leased_at
        self._turn_began = self.leased_at
        self._started = 0
        self._ready: deque[Delivery] = deque()
        self._running: dict[asyncio.Task[Finished | None], Delivery] = {}
        self._done: list[asyncio.Task[Finished | None]] = []
        self._queued = 0
        self._wakeup = asyncio.Event()
        self._settlements: list[Settlement] = []
        self._settling: asyncio.Task[Lease | None] | None = None
        self._unsettled: set[int] = set()
        self._may_have_more = True
        self._fetched_at = float("-inf")
        self._fetch_seconds = FETCH_SECONDS
        self._lost = False
        self._backoff: Backoff | None = None
        self._paused = False
        self._last_success = float("-inf")
        self._next_start = float("-inf")

    async def run(self) -> None:
        """Deliver until nothing is due, the lane must back off, or its turn is over."""
        try:
            while not self._lost:
                await self._fetch()
                self._start_attempts()
                if not self._running and self._settling is None and self._is_finished():
                    await self._settle(keep=0.0)
                    return
                self._begin_settling()
                await self._wait()
        finally:
            await self._cancel_running()

    # Starting attempts

    def _may_start(self) -> bool:
        """Whether this turn may start another attempt."""
        over = self._started >= TURN_DELIVERIES or self.monotonic() - self._turn_began >= TURN_SECONDS
        return self._may_send() and not (over and self.others_wait())

    def _may_send(self) -> bool:
        return self.lease.open and self._backoff is None and not self._paused and not self.stopping()

    def _is_finished(self) -> bool:
        more = self._ready or self._may_have_more or any(map(_frees_next, self._settlements))
        return not self._may_start() or not more or self._rate_delay() > 0

    def _window(self) -> int:
        if not self._rules.slow_start and self._health.failures == 0:
            return self._rules.in_flight
        return min(self._health.window, self._rules.in_flight)

    def _rate_delay(self) -> float:
        """Seconds until the account's rate limit allows another attempt."""
        return max(0.0, self._next_start - self.monotonic())

    def _has_room(self) -> bool:
        """Whether another attempt could start if a delivery were ready."""
        room = not self._ready and len(self._running) < self._window()
        return room and self._may_start() and self._rate_delay() == 0

    async def _fetch(self) -> None:
        fetch_due = bool(self._running) and self.monotonic() - self._fetched_at >= self._fetch_seconds
        if not self._has_room() or not (self._may_have_more or fetch_due):
            return
        # A copy: the result may still contain deliveries that are settled while the store answers.
        known = tuple(self._unsettled)
        self._may_have_more = False
        self._fetched_at = self.monotonic()
        try:
            found = await self.store.fetch(self.lease, TURN_DELIVERIES, without=known)
        except StoreError as error:
            log.warning("lane %s waits for the store, which is unavailable: %s", self.lease.account, error)
            self._may_have_more = True
            await asyncio.sleep(RETRY_SECONDS)
            return
        self._may_have_more |= len(found) == TURN_DELIVERIES
        self._fetch_seconds = FETCH_SECONDS if found else min(2 * self._fetch_seconds, FETCH_SECONDS_CAP)
        for delivery in found:
            if expired(delivery, self._rules):
                self._unsettled.add(delivery.seq)
                self._settlements.append(_expiry(delivery, self.clock()))
            else:
                self._ready.append(delivery)

    def _start_attempts(self) -> None:
        while self._ready and len(self._running) < self._window() and self._may_start() and self._may_attempt():
            delivery = self._ready.popleft()
            self._unsettled.add(delivery.seq)
            self._started += 1
            if self.lease.limits.per_second is not None:
                self._next_start = self.monotonic() + 1 / self.lease.limits.per_second
            self._queued += 1
            task = asyncio.create_task(self._attempt(delivery))
            task.add_done_callback(self._on_done)
            self._running[task] = delivery

    def _may_attempt(self) -> bool:
        return self._is_fresh() and self._rate_delay() == 0

    def _is_fresh(self) -> bool:
        """Whether the lease was refreshed recently and lasts longer than an attempt that starts now."""
        now = self.monotonic()
        return now - self._refreshed_at < TURN_SECONDS and now + self.timings.attempt < self._leased_until

    async def _attempt(self, delivery: Delivery) -> Finished | None:
        """Make an attempt once the dispatcher has room for it. None if the lane must not start it by then."""
        await self.in_flight.acquire()
        self._queued -= 1
        try:
            lease = self.lease
            if not self._may_send() or not self._is_fresh():
                return None
            wall, monotonic = self.clock(), self.monotonic()
            try:
                outcome = await self.deliver(lease, delivery)
            except Exception:
                log.exception("delivering message %s failed in fotahook itself", delivery.message)
                outcome = Outcome(code="internal_error", url=lease.url)
            return Finished(wall=wall, monotonic=monotonic, revision=lease.revision, outcome=outcome)
        finally:
            self.in_flight.release()

    def _on_done(self, task: asyncio.Task[Finished | None]) -> None:
        self._done.append(task)
        self._wakeup.set()

    # Finished attempts

    async def _wait(self) -> None:
        """Wait until an attempt or a settlement ends, the lease must be refreshed, or more deliveries may be due."""
        if not self._running and self._settling is None:
            return
        timeout = min(self._refresh_seconds(), self._rate_delay() or self.timings.renew)
        if self._has_room():
            timeout = min(timeout, self._fetch_seconds)
        # Not asyncio.wait, which goes through all running attempts each time that one of them ends.
        timer = asyncio.get_running_loop().call_later(timeout, self._wakeup.set)
        try:
            await self._wakeup.wait()
        finally:
            timer.cancel()
        self._wakeup.clear()
        done, self._done = self._done, []
        for task in done:
            self._finish(self._running.pop(task), task.result())
        if self._settling is not None and self._settling.done():
            settling, self._settling = self._settling, None
            self._refresh(settling.result())

    def _finish(self, delivery: Delivery, finished: Finished | None) -> None:
        if finished is None:
            self._unsettled.discard(delivery.seq)
            self._may_have_more = True
            return
        outcome = finished.outcome
        decision = decide(
            outcome,
            delivery,
            # Attempts that were running when the endpoint failed belong to the same failure, which counts once.
            self._health if self._backoff is None else self._backoff.health_before,
            others_succeeded=self._last_success > finished.monotonic,
            jitter=self.jitter(),
            rules=self._rules,
        )
        self._settlements.append(_settlement(delivery, decision, outcome, finished.wall))
        if decision.state == "delivered":
            self._last_success = self.monotonic()
        if finished.revision == self.lease.revision:
            self._apply(decision)
            if decision.state == "dead" or outcome.code != DELIVERED:
                self._log_failure(delivery, decision, outcome)

    def _apply(self, decision: Decision) -> None:
        self._paused = self._paused or decision.pause
        if self._backoff is None:
            if decision.wait > 0:
                self._backoff = Backoff(health_before=self._health, until=self.monotonic() + decision.wait)
            self._health = decision.health

    def _log_failure(self, delivery: Delivery, decision: Decision, outcome: Outcome) -> None:
        log.warning(
            "attempt failed: message %s of %s to %s: %s; %s",
            delivery.message,
            delivery.account,
            self.lease.consumer if outcome.url is None else origin(outcome.url),
            outcome.code,
            "the message is dead" if decision.state == "dead" else outcome.fix or "it is retried",
        )

    # Settling

    def _begin_settling(self) -> None:
        stale = self.monotonic() - self._refreshed_at >= self._refresh_seconds()
        if self._settling is None and (self._settlements or stale):
            self._settling = asyncio.create_task(self._settle(keep=self.timings.lease))
            self._settling.add_done_callback(lambda _: self._wakeup.set())

    def _refresh_seconds(self) -> float:
        """The maximum age of the lease. Attempts that are about to start need the current callback."""
        return TURN_SECONDS / 2 if self._ready or self._queued else self.timings.renew

    async def _settle(self, *, keep: float) -> Lease | None:
        """Write the settlements and renew the lease for `keep` seconds; None if it is lost.

        While the store is unavailable, this retries for as long as the lease lasts.
        """
        batch, self._settlements = self._settlements, []
        while True:
            asked_at = self.monotonic()
            wait = 0.0 if self._backoff is None else max(0.0, self._backoff.until - asked_at)
            if keep == 0:
                # The next worker must keep to the rate limit, too.
                wait = max(wait, self._rate_delay())
            verdict = LaneVerdict(health=self._health, wait=wait, pause=self._paused)
            try:
                lease = await self.store.settle(self.lease, batch, verdict, keep=keep)
            except StoreError as error:
                if self.monotonic() >= self._leased_until:
                    log.warning("lane %s is lost: the store is unavailable: %s", self.lease.account, error)
                    return None
                await asyncio.sleep(RETRY_SECONDS)
                continue
            self._unsettled.difference_update(settlement.delivery.seq for settlement in batch)
            # Settling the first delivery of a key makes the next one ready.
            self._may_have_more |= any(settlement.delivery.ordering_key is not None for settlement in batch)
            self._leased_until = asked_at + keep
            self._refreshed_at = asked_at
            return lease

    def _refresh(self, lease: Lease | None) -> None:
        if lease is None:
            self._lost = True
            log.warning("lane %s lost its lease; its running attempts may be sent twice", self.lease.account)
            return
        if lease.revision != self.lease.revision:
            # A new endpoint: nothing that was learnt about the old one applies.
            self._backoff, self._paused, self._health = None, False, lease.health
        self.lease = lease
        self._rules = _limited(self.service_rules, lease)

    async def _cancel_running(self) -> None:
        """Cancel what still runs: nothing, unless the lease was lost or this task is being cancelled."""
        tasks = [*self._running, *([self._settling] if self._settling is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _limited(rules: Rules, lease: Lease) -> Rules:
    """The rules with the account's own limit instead of the service's."""
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


def _frees_next(settlement: Settlement) -> bool:
    """Whether it makes the next delivery of its ordering key ready, which the same turn can then deliver."""
    return settlement.state != "pending" and settlement.delivery.followed


def _expiry(delivery: Delivery, now: float) -> Settlement:
    attempt = Attempt(started_at=now, url=None, outcome=EXPIRED, error_code=EXPIRED, fix=Outcome(code=EXPIRED).fix)
    return Settlement(
        delivery=delivery, state="dead", attempts=delivery.attempts, strikes=delivery.strikes, attempt=attempt
    )

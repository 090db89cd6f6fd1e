"""The delivery policy: what one outcome means for its message and for its lane.

Everything here is pure and total: clock, random source and store stay outside. The endpoint's health is a rate over its
recent outcomes: one failure among successes costs only that delivery a short wait, and a lane whose attempts mostly
fail waits as a whole. Neither is charged to a message. A refusal of one message follows that message's own schedule and
ends in ``dead``. The schedule is the one that Standard Webhooks recommends; ThingSpace publishes none for FOTA.
"""

from typing import Final

import msgspec
from msgspec.structs import replace

from fotahook.store.records import Attempt, Delivery, DeliveryState, Health, Record, Settlement

from .outcomes import DELIVERED, EXPIRED, Outcome, failure_of

MINUTE: Final = 60.0
HOUR: Final = 3600.0
DAY: Final = 86400.0

MEMORY: Final = 7 / 8
"""What remains of the recent counts after each outcome: they speak of the last eight or so."""
DOWN_FAILURES: Final = 2.5
"""Recent failures, counted by MEMORY, below which a lane is never down: three in a row exceed it."""
STEADY_WINDOW: Final = 8
"""The window doubles with each round up to here, and grows slowly beyond."""
GROWTH: Final = 0.25
"""Chance of one more place for each success beyond STEADY_WINDOW: a quarter of the window with each round."""
SLOWDOWN: Final = 2.0
"""An answer that takes so many times the fastest recent one shows that the window is too large."""
SLOWDOWN_SLACK: Final = 0.05
"""Seconds by which answers may always differ."""
LATENCY_DRIFT: Final = 1.02
"""How quickly the fastest recent answer is forgotten, with each success."""


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers of the policy. Durations are seconds."""

    schedule: tuple[float, ...] = (0, 5, 5 * MINUTE, 30 * MINUTE, 2 * HOUR, 5 * HOUR, 10 * HOUR, 10 * HOUR)
    """The pause before each attempt at one message; after the last of them it is dead."""
    in_flight: int = 64
    """The most deliveries of one lane that may be in flight at once; the window adapts below it."""
    slow_start: bool = True
    """Whether a new lane starts with a small window; after a failure every lane does."""
    retries: int = 5
    """Failures of one delivery beside successes of others that are retried within a minute and charged to nobody."""
    backoff: float = 5.0
    """The first ceiling of a lane's wait; it doubles with each failure in a row."""
    backoff_cap: float = HOUR
    """The highest ceiling, and the longest Retry-After that is honoured."""
    refusals: int = 10
    """Different messages refused in a row, none accepted, that count as an endpoint failure."""
    time_to_live: float = 7 * DAY
    """Age at which a message is given up; time in which its lane is held or paused does not count."""


class Decision(Record, frozen=True, kw_only=True):
    """What becomes of the delivery (state, delay, what it is charged) and of its lane (health, wait, pause)."""

    attempts: int
    strikes: int
    health: Health
    state: DeliveryState = "pending"
    delay: float = 0.0
    wait: float = 0.0
    pause: bool = False


def expired(delivery: Delivery, rules: Rules, ahead: float) -> bool:
    """Whether to give it up, where the clock that its age was read from jumped forward by `ahead` seconds."""
    return delivery.age - ahead >= rules.time_to_live


def expiry_of(delivery: Delivery, now: float) -> Settlement:
    """The end of a message that outlived its time to live, without an attempt."""
    decision = Decision(state="dead", attempts=delivery.attempts, strikes=delivery.strikes, health=Health())
    return settlement_of(delivery, decision, Outcome(code=EXPIRED), now)


def settlement_of(delivery: Delivery, decision: Decision, outcome: Outcome, started_at: float) -> Settlement:
    """What the store writes of an attempt that started at this time of the wall clock."""
    code = outcome.code
    is_delivered = code == DELIVERED
    attempt = Attempt(
        started_at=started_at,
        url=outcome.url,
        outcome=code if is_delivered or code == EXPIRED else "failed",
        status=outcome.status,
        error_code=None if is_delivered else code,
        fix=None if is_delivered else outcome.fix,
        phases=outcome.phases,
        excerpt=outcome.excerpt,
        resent=outcome.resent,
    )
    state, attempts, strikes, delay = decision.state, decision.attempts, decision.strikes, decision.delay
    return Settlement(delivery=delivery, state=state, attempts=attempts, strikes=strikes, delay=delay, attempt=attempt)


def window(health: Health, rules: Rules) -> int:
    """How many deliveries of a lane may be in flight: of its window, the share of its recent attempts that succeeded.
    So an endpoint that just went down is not sent a second round."""
    size = min(health.window, rules.in_flight) if rules.slow_start or health.failures else rules.in_flight
    recent = health.succeeded + health.failed
    return max(1, int(size * health.succeeded / recent)) if health.failed > 0 and recent > 0 else size


def decide(
    outcome: Outcome,
    delivery: Delivery,
    health: Health,
    *,
    seconds: float,
    saturated: bool,
    jitter: float,
    rules: Rules,
) -> Decision:
    """What an outcome means.

    `health` is the lane's before it, `seconds` how long the attempt took. `saturated`: whether the lane had as many
    deliveries in flight as its window allows. `jitter` is a random number in 0..1.
    """
    if outcome.code == DELIVERED:
        return _delivered(delivery, health, seconds, saturated, jitter, rules)
    same = Decision(attempts=delivery.attempts, strikes=delivery.strikes, health=health)
    match failure_of(outcome):
        case "gone":
            return replace(same, health=replace(health, reason=outcome.code), pause=True)
        case "message":
            # The same message refused twice says nothing new about the endpoint.
            seen = replace(health, refused=health.refused + (delivery.attempts == 0))
            if seen.refused < rules.refusals:
                return _charged(same, seen, rules)
            return _waiting(same, seen, outcome, jitter, rules)
    # The endpoint failed: the lane waits if it fails mostly, else this delivery alone.
    seen = replace(
        health,
        succeeded=_faded(health.succeeded),
        failed=health.failed * MEMORY + 1,
        window=max(min(health.window, STEADY_WINDOW // 2), health.window // 2),
    )
    struck = replace(same, strikes=delivery.strikes + 1, health=seen)
    if _asks_for_less(outcome) or _is_down(seen):
        return _waiting(struck, seen, outcome, jitter, rules)
    if delivery.strikes >= rules.retries:
        # Others get through and this one does not, time and again: the failure is its own.
        return _charged(same, seen, rules)
    return replace(struck, delay=jitter * 2.0**delivery.strikes)


def _delivered(
    delivery: Delivery, health: Health, seconds: float, saturated: bool, jitter: float, rules: Rules
) -> Decision:
    recovered = health.failures > 0
    fastest = min(seconds, health.latency * LATENCY_DRIFT) if health.latency > 0 else seconds
    change = 0
    if health.window < STEADY_WINDOW:
        # One more for each success doubles the window with every round.
        change = 1
    elif jitter < GROWTH:
        change = -1 if seconds > SLOWDOWN * fastest + SLOWDOWN_SLACK else int(saturated)
    return Decision(
        state="delivered",
        attempts=delivery.attempts + 1,
        strikes=delivery.strikes,
        health=Health(
            window=max(1, min(rules.in_flight, health.window + change)),
            succeeded=1 if recovered else health.succeeded * MEMORY + 1,
            failed=0 if recovered else _faded(health.failed),
            latency=fastest,
        ),
    )


def _faded(count: float) -> float:
    """A recent count after one more outcome; what is left of a single one after forty is none."""
    faded = count * MEMORY
    return faded if faded > 1 / 256 else 0.0


def _asks_for_less(outcome: Outcome) -> bool:
    return outcome.status == 429 or outcome.retry_after is not None


def _is_down(health: Health) -> bool:
    """Whether an endpoint that just failed is down: it was, or most of its recent attempts failed."""
    return health.failures > 0 or (health.failed > DOWN_FAILURES and health.failed > health.succeeded)


def _charged(same: Decision, health: Health, rules: Rules) -> Decision:
    attempts = same.attempts + 1
    if attempts >= len(rules.schedule):
        return replace(same, attempts=attempts, health=health, state="dead")
    return replace(same, attempts=attempts, health=health, delay=rules.schedule[attempts])


def _waiting(same: Decision, health: Health, outcome: Outcome, jitter: float, rules: Rules) -> Decision:
    # Full jitter: after an outage every lane would otherwise probe in the same second. 2**32 is beyond any cap.
    drawn = jitter * min(rules.backoff * 2.0 ** min(health.failures, 32), rules.backoff_cap)
    # Never sooner than the draw: a Retry-After of 0, or a date in the past, is no reason to send without end.
    wait = min(max(outcome.retry_after or 0.0, drawn), rules.backoff_cap)
    waiting = Health(
        failures=health.failures + 1,
        window=health.window if _asks_for_less(outcome) and not _is_down(health) else 1,
        refused=health.refused,
        reason=outcome.code,
        latency=health.latency,
    )
    # The delivery is due no earlier than the lane, so that the next probe is made with one that was not just tried.
    return replace(same, health=waiting, delay=wait, wait=wait)

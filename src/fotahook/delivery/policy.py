"""The delivery policy: what one outcome means for its message and for its lane.

Everything here is pure and total: time, chance and the store stay outside. Endpoint trouble makes the whole lane wait
and is charged to no message; message trouble follows the message's own schedule and ends in ``dead``. The schedule is
the one Standard Webhooks recommends; ThingSpace publishes none for FOTA.
"""

from typing import Final

import msgspec

from fotahook.store.records import Delivery, DeliveryState, Health

from .outcomes import Outcome, trouble_of

MINUTE: Final = 60.0
HOUR: Final = 3600.0
DAY: Final = 86400.0


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers of the policy. Durations are seconds."""

    schedule: tuple[float, ...] = (0, 5, 5 * MINUTE, 30 * MINUTE, 2 * HOUR, 5 * HOUR, 10 * HOUR, 10 * HOUR)
    """The pause before each attempt at one message; after the last of them it is dead."""
    in_flight: int = 8
    """Deliveries in flight at once in a healthy lane."""
    slow_start: bool = True
    """Whether a lane begins with one in flight; without it, it does so after trouble only."""
    backoff: float = 5.0
    """The first ceiling of a lane's wait; it doubles with each trouble in a row."""
    backoff_cap: float = HOUR
    """The highest ceiling, and the longest Retry-After that is honoured."""
    refusals: int = 10
    """Different messages refused in a row, none accepted, that mean trouble of the endpoint."""
    time_to_live: float = 7 * DAY
    """Age at which a message is given up; time in which its lane is held or paused does not count."""


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of the delivery (state, delay, what it is charged) and of its lane (health, wait, pause)."""

    state: DeliveryState
    attempts: int
    strikes: int
    health: Health
    delay: float = 0.0
    wait: float = 0.0
    pause: bool = False


def expired(delivery: Delivery, rules: Rules) -> bool:
    """Whether a message has outlived its time to live."""
    return delivery.age >= rules.time_to_live


def decide(
    outcome: Outcome,
    delivery: Delivery,
    health: Health,
    *,
    others_succeeded: bool,
    spread: float,
    rules: Rules,
) -> Decision:
    """What an outcome means.

    `health` is the lane's before it. `others_succeeded`: whether another delivery of the lane was accepted while this
    one was under way. `spread` is a random number in 0..1, for the jitter.
    """
    trouble = trouble_of(outcome)
    if trouble == "none":
        return _delivered(delivery, health, rules)
    if trouble == "gone":
        return _gone(outcome, delivery, health)
    if trouble == "message":
        return _message_trouble(outcome, delivery, health, spread, rules)
    if _is_the_messages_own(outcome, delivery, health, others_succeeded):
        return _charge(delivery, health, rules)
    return _endpoint_trouble(outcome, delivery, health, spread, rules, strikes=delivery.strikes + 1)


def _delivered(delivery: Delivery, health: Health, rules: Rules) -> Decision:
    return Decision(
        state="delivered",
        attempts=delivery.attempts + 1,
        strikes=delivery.strikes,
        # One more for each success doubles the window with every round: 1, 2, 4 … the lane's limit.
        health=Health(window=min(rules.in_flight, health.window + 1)),
    )


def _gone(outcome: Outcome, delivery: Delivery, health: Health) -> Decision:
    return Decision(
        state="pending",
        attempts=delivery.attempts,
        strikes=delivery.strikes,
        health=msgspec.structs.replace(health, reason=outcome.code),
        pause=True,
    )


def _message_trouble(outcome: Outcome, delivery: Delivery, health: Health, spread: float, rules: Rules) -> Decision:
    # The same message refused twice says nothing new about the endpoint.
    refused = health.refused + (delivery.attempts == 0)
    seen = msgspec.structs.replace(health, refused=refused)
    if refused >= rules.refusals:
        return _endpoint_trouble(outcome, delivery, seen, spread, rules, strikes=delivery.strikes)
    return _charge(delivery, seen, rules)


def _is_the_messages_own(outcome: Outcome, delivery: Delivery, health: Health, others_succeeded: bool) -> bool:
    """Whether trouble that looks like the endpoint's is this message's: others get through, it does not."""
    if outcome.status == 429 or outcome.retry_after is not None:
        return False  # "send me less" is never about one message
    struck_again_in_good_health = delivery.strikes > 0 and health.failures == 0
    return others_succeeded or struck_again_in_good_health


def _charge(delivery: Delivery, health: Health, rules: Rules) -> Decision:
    attempts = delivery.attempts + 1
    dead = attempts >= len(rules.schedule)
    return Decision(
        state="dead" if dead else "pending",
        attempts=attempts,
        strikes=delivery.strikes,
        health=health,
        delay=0.0 if dead else rules.schedule[attempts],
    )


def _endpoint_trouble(
    outcome: Outcome, delivery: Delivery, health: Health, spread: float, rules: Rules, *, strikes: int
) -> Decision:
    wait = _wait(outcome, health.failures, spread, rules)
    return Decision(
        state="pending",
        attempts=delivery.attempts,
        strikes=strikes,
        health=Health(failures=health.failures + 1, window=1, refused=health.refused, reason=outcome.code),
        # Due no earlier than the lane, so that the next probe is made with a delivery that was not just tried.
        delay=wait,
        wait=wait,
    )


def _wait(outcome: Outcome, failures: int, spread: float, rules: Rules) -> float:
    if outcome.retry_after is not None:
        return min(max(outcome.retry_after, 0.0), rules.backoff_cap)
    # Full jitter: after an outage every lane would otherwise probe in the same second. 2**32 is beyond any cap.
    return spread * min(rules.backoff * 2.0 ** min(failures, 32), rules.backoff_cap)

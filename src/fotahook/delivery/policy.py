"""The delivery policy: decides what an outcome means for its message and for its lane. Pure.

An endpoint failure makes the whole lane back off and uses up no message's retries. A message failure is retried on the
message's own schedule, at the end of which the message is dead. The schedule is the one that Standard Webhooks
recommends; ThingSpace publishes none for FOTA.
"""

from typing import Final

import msgspec

from fotahook.store.records import Delivery, DeliveryState, Health

from .outcomes import Outcome, failure_of

MINUTE: Final = 60.0
HOUR: Final = 3600.0
DAY: Final = 86400.0


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers of the policy. Durations are seconds."""

    schedule: tuple[float, ...] = (0, 5, 5 * MINUTE, 30 * MINUTE, 2 * HOUR, 5 * HOUR, 10 * HOUR, 10 * HOUR)
    """The delay before each attempt at a message, which is dead after the last one."""
    in_flight: int = 8
    """Concurrent deliveries of a healthy lane."""
    slow_start: bool = True
    """Whether every turn of a lane starts with one delivery at a time; if not, only after an endpoint failure."""
    backoff: float = 5.0
    """The ceiling of a lane's first backoff; it doubles with each endpoint failure in a row."""
    backoff_cap: float = HOUR
    """The highest ceiling, and the longest Retry-After that is honoured."""
    refusals: int = 10
    """Different messages that are refused in a row, with none accepted, before that counts as an endpoint failure."""
    time_to_live: float = 7 * DAY
    """The age at which a message is dead; time during which its lane is held or paused does not count."""


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """The new state of the delivery (state, delay, attempts, strikes) and of its lane (health, wait, pause)."""

    state: DeliveryState
    attempts: int
    strikes: int
    health: Health
    delay: float = 0.0
    wait: float = 0.0
    pause: bool = False


def expired(delivery: Delivery, rules: Rules) -> bool:
    """Whether a message is older than its time to live."""
    return delivery.age >= rules.time_to_live


def decide(
    outcome: Outcome,
    delivery: Delivery,
    health: Health,
    *,
    others_succeeded: bool,
    jitter: float,
    rules: Rules,
) -> Decision:
    """Decide about an outcome.

    `health` is the lane's health before the attempt. `others_succeeded`: whether another delivery of the lane succeeded
    during the attempt. `jitter` is a random number in 0..1.
    """
    failure = failure_of(outcome)
    if failure == "none":
        return _delivered(delivery, health, rules)
    if failure == "gone":
        return _gone(outcome, delivery, health)
    if failure == "message":
        return _message_failure(outcome, delivery, health, jitter, rules)
    if _only_this_message_fails(outcome, delivery, health, others_succeeded):
        return _retry_or_die(delivery, health, rules)
    return _endpoint_failure(outcome, delivery, health, jitter, rules, strikes=delivery.strikes + 1)


def _delivered(delivery: Delivery, health: Health, rules: Rules) -> Decision:
    return Decision(
        state="delivered",
        attempts=delivery.attempts + 1,
        strikes=delivery.strikes,
        # One more for each success doubles the window in every round: 1, 2, 4 … up to the limit.
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


def _message_failure(outcome: Outcome, delivery: Delivery, health: Health, jitter: float, rules: Rules) -> Decision:
    # A message that is refused again says nothing new about the endpoint.
    refused = health.refused + (delivery.attempts == 0)
    seen = msgspec.structs.replace(health, refused=refused)
    if refused >= rules.refusals:
        return _endpoint_failure(outcome, delivery, seen, jitter, rules, strikes=delivery.strikes)
    return _retry_or_die(delivery, seen, rules)


def _only_this_message_fails(outcome: Outcome, delivery: Delivery, health: Health, others_succeeded: bool) -> bool:
    """Whether what looks like an endpoint failure is about this message: others succeed, and it does not."""
    if outcome.status == 429 or outcome.retry_after is not None:
        return False  # a request to slow down is never about one message
    failed_again_in_good_health = delivery.strikes > 0 and health.failures == 0
    return others_succeeded or failed_again_in_good_health


def _retry_or_die(delivery: Delivery, health: Health, rules: Rules) -> Decision:
    attempts = delivery.attempts + 1
    dead = attempts >= len(rules.schedule)
    return Decision(
        state="dead" if dead else "pending",
        attempts=attempts,
        strikes=delivery.strikes,
        health=health,
        delay=0.0 if dead else rules.schedule[attempts],
    )


def _endpoint_failure(
    outcome: Outcome, delivery: Delivery, health: Health, jitter: float, rules: Rules, *, strikes: int
) -> Decision:
    wait = _backoff(outcome, health.failures, jitter, rules)
    return Decision(
        state="pending",
        attempts=delivery.attempts,
        strikes=strikes,
        health=Health(failures=health.failures + 1, window=1, refused=health.refused, reason=outcome.code),
        # Due no earlier than the lane, so that another delivery is the next probe.
        delay=wait,
        wait=wait,
    )


def _backoff(outcome: Outcome, failures: int, jitter: float, rules: Rules) -> float:
    if outcome.retry_after is not None:
        return min(max(outcome.retry_after, 0.0), rules.backoff_cap)
    # Full jitter, so that lanes do not all probe in the same second after an outage. 2**32 is beyond any cap.
    return jitter * min(rules.backoff * 2.0 ** min(failures, 32), rules.backoff_cap)

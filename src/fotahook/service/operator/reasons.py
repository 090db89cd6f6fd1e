"""Why a message is in its state: what it waits for, until when, and what would send it now. Pure functions."""

from collections.abc import Sequence
from typing import Final

from ...contract.operator import Attempt, Reason, Why
from ...store.records import DeliveryState, DeliveryStatus, Lane, Limits, Message
from ...store.views import to_datetime, to_datetime_or_none

_STATES: Final[tuple[DeliveryState, ...]] = ("pending", "dead", "delivered")
_EXPIRED: Final = "expired"
_TOLERANCE: Final = 1.0
"""Seconds after its lane within which a delivery may be due without waiting for a schedule of its own."""


def reasons_for(
    message: Message, attempts: Sequence[Attempt], lanes: Sequence[Lane], limits: Limits, now: float
) -> Why:
    """The state of a message and each reason for it, by its attempts (oldest first), its account's lanes and limits.
    Where its deliveries differ, pending comes before dead, and dead before delivered."""
    states = {delivery.state for delivery in message.deliveries}
    state = next((state for state in _STATES if state in states), "delivered")
    failed = [one for one in attempts if one.error_code not in (None, _EXPIRED)]
    texts = [f"The last failure was {one.error_code}: {one.fix or 'see the attempts.'}" for one in failed[-1:]]
    failure, reasons = [Reason("last_failure", text) for text in texts], list[Reason]()
    for delivery in message.deliveries:
        if delivery.state != state:
            continue
        if state == "delivered":
            when = "" if delivery.settled_at is None else f" at {to_datetime(delivery.settled_at):%Y-%m-%dT%H:%M:%SZ}"
            reasons.append(Reason(state, f"The receiver accepted it{when}, on attempt {delivery.attempts}."))
        elif state == "dead":
            times = "1 attempt" if delivery.attempts == 1 else f"{delivery.attempts} attempts"
            given_up = Reason("given_up", f"Delivery was given up: the receiver refused {times}.")
            expired = Reason(_EXPIRED, "It expired before the receiver accepted it.")
            settled = Reason("settled", "It is not retried automatically: fix the cause, then redeliver it.")
            pruned = Reason("pruned", "Retention removed its bytes: publish it again to send it.")
            first, last = delivery.last_outcome == _EXPIRED, message.body is None
            reasons += [expired if first else given_up, *failure, pruned if last else settled]
        else:
            lane = next(lane for lane in lanes if lane.consumer == delivery.consumer)
            reasons += _waits_for(delivery, lane, now) or _in_turn(limits, lane)
            if delivery.attempts > 0 or lane.health.failures > 0:
                reasons += failure
    return Why(state, reasons)


def _waits_for(delivery: DeliveryStatus, lane: Lane, now: float) -> list[Reason]:
    reasons = []
    match lane.state:
        case "paused" if lane.health.reason == "http_410":
            text = "The receiver answered 410 Gone, which paused the account: fix the receiver, then resume."
            reasons.append(Reason("gone", text))
        case "paused":
            reasons.append(Reason("paused", "The account is paused: resume it to send this."))
        case "held":
            text = "No callback is registered for the account: register one to send this."
            reasons.append(Reason("held", text))
        case "waiting":
            times = "once" if lane.health.failures == 1 else f"{lane.health.failures} times in a row"
            text = f"The endpoint failed {times} ({lane.health.reason}), so delivery waits until then"
            text = f"{text}: resume the account to retry at once."
            reasons.append(Reason("waiting", text, to_datetime_or_none(lane.until)))
    if delivery.behind is not None:
        reasons.append(Reason("behind", f"Message {delivery.behind} of the same ordering key goes first."))
    elif delivery.due > max(now, lane.until or 0.0) + _TOLERANCE:
        text = "Its next attempt is scheduled for then and cannot be hurried."
        reasons.append(Reason("scheduled", text, to_datetime(delivery.due)))
    return reasons


def _in_turn(limits: Limits, lane: Lane) -> list[Reason]:
    others = "nothing else is waiting" if lane.pending <= 1 else f"{lane.pending} messages are waiting"
    reasons = [Reason("due", f"It is due and will be sent when its turn comes: the lane is open, and {others}.")]
    text = "The account is limited to {}: raise the limit to send this sooner."
    if limits.in_flight is not None:
        reasons.append(Reason("limited_in_flight", text.format(f"{limits.in_flight} in flight at once")))
    if limits.per_second is not None:
        reasons.append(Reason("limited_per_second", text.format(f"{limits.per_second:g} per second")))
    return reasons

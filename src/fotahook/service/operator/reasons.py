"""Why a message is in its state: what it waits for, until when, and what would send it now. Pure functions."""

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from ...contract.operator import Reason, Why
from ...store.records import Attempt, DeliveryState, DeliveryStatus, Lane, Limits, Message
from ...store.views import to_datetime, to_datetime_or_none

_STATES: Final[tuple[DeliveryState, ...]] = ("pending", "dead", "delivered")
_GONE: Final = "http_410"
_EXPIRED: Final = "expired"
_TOLERANCE: Final = 1.0
"""Seconds after its lane within which a delivery may be due without waiting for a schedule of its own."""


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A message, its attempts (oldest first), its account's lanes and limits, at one time."""

    message: Message
    attempts: Sequence[Attempt]
    lanes: Sequence[Lane]
    limits: Limits
    now: float


def reasons_for(snapshot: Snapshot) -> Why:
    """The message's state and each reason for it.

    Where its deliveries differ, pending comes before dead, and dead before delivered.
    """
    deliveries = snapshot.message.deliveries
    state = next((state for state in _STATES if any(delivery.state == state for delivery in deliveries)), "delivered")
    reasons = [reason for delivery in deliveries if delivery.state == state for reason in _reasons(snapshot, delivery)]
    return Why(state=state, reasons=reasons)


def _reasons(snapshot: Snapshot, delivery: DeliveryStatus) -> Iterator[Reason]:
    match delivery.state:
        case "delivered":
            when = "" if delivery.settled_at is None else f" at {to_datetime(delivery.settled_at):%Y-%m-%dT%H:%M:%SZ}"
            yield Reason("delivered", f"The receiver accepted it{when}, on attempt {delivery.attempts}.")
        case "dead":
            if delivery.last_outcome == _EXPIRED:
                yield Reason(_EXPIRED, "It expired before the receiver accepted it.")
            else:
                times = "1 attempt" if delivery.attempts == 1 else f"{delivery.attempts} attempts"
                yield Reason("given_up", f"Delivery was given up: the receiver refused {times}.")
            yield from _last_failure(snapshot)
            if snapshot.message.body is None:
                yield Reason("pruned", "Retention removed its bytes: publish it again to send it.")
            else:
                yield Reason("settled", "It is not retried automatically: fix the cause, then redeliver it.")
        case "pending":
            lane = next(lane for lane in snapshot.lanes if lane.consumer == delivery.consumer)
            blocked = list(_lane(lane))
            if delivery.behind is not None:
                blocked.append(Reason("behind", f"Message {delivery.behind} of the same ordering key goes first."))
            elif delivery.due > max(snapshot.now, lane.until or 0.0) + _TOLERANCE:
                text = "Its next attempt is scheduled for then and cannot be hurried."
                blocked.append(Reason("scheduled", text, to_datetime(delivery.due)))
            yield from blocked or _queue(snapshot.limits, lane)
            if delivery.attempts > 0 or lane.health.failures > 0:
                yield from _last_failure(snapshot)


def _lane(lane: Lane) -> Iterator[Reason]:
    match lane.state:
        case "paused" if lane.health.reason == _GONE:
            text = "The receiver answered 410 Gone, which paused the account: fix the receiver, then resume."
            yield Reason("gone", text)
        case "paused":
            yield Reason("paused", "The account is paused: resume it to send this.")
        case "held":
            yield Reason("held", "No callback is registered for the account: register one to send this.")
        case "waiting":
            times = "once" if lane.health.failures == 1 else f"{lane.health.failures} times in a row"
            text = f"The endpoint failed {times} ({lane.health.reason}), so delivery waits until then"
            yield Reason("waiting", f"{text}: resume the account to retry at once.", to_datetime_or_none(lane.until))


def _queue(limits: Limits, lane: Lane) -> Iterator[Reason]:
    others = "nothing else is waiting" if lane.pending <= 1 else f"{lane.pending} messages are waiting"
    yield Reason("due", f"It is due and will be sent when its turn comes: the lane is open, and {others}.")
    if limits.in_flight is not None:
        text = f"The account is limited to {limits.in_flight} in flight at once: raise the limit to send this sooner."
        yield Reason("limited_in_flight", text)
    if limits.per_second is not None:
        text = f"The account is limited to {limits.per_second:g} per second: raise the limit to send this sooner."
        yield Reason("limited_per_second", text)


def _last_failure(snapshot: Snapshot) -> Iterator[Reason]:
    failed = [attempt for attempt in snapshot.attempts if attempt.error_code not in (None, _EXPIRED)]
    if failed:
        last = failed[-1]
        yield Reason("last_failure", f"The last failure was {last.error_code}: {last.fix or 'see the attempts.'}")

"""Why a message stands where it stands: what it waits for, until when, and what would send it now.

Pure: everything that is known comes in, a sentence for each reason goes out.
"""

from collections.abc import Iterator, Sequence

import msgspec

from ...contract.operator import Reason, Why
from ...store.records import Attempt, DeliveryState, DeliveryStatus, Lane, Limits, Message
from ...store.views import to_datetime, to_datetime_or_none

_GONE = "http_410"
_EXPIRED = "expired"
_MOMENT = 1.0
"""A delivery that is due so little after its lane waits for nothing of its own."""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a message and of the lanes that it is in; `attempts` are the message's, oldest first."""

    message: Message
    attempts: Sequence[Attempt]
    lanes: Sequence[Lane]
    limits: Limits
    now: float


def explain(facts: Facts) -> Why:
    """The message's state, pending before dead before delivered where its lanes differ, and each reason for it."""
    places = facts.message.deliveries
    state = next((state for state in _STATES if any(place.state == state for place in places)), "delivered")
    reasons = [reason for place in places if place.state == state for reason in _reasons(facts, place)]
    return Why(state=state, reasons=reasons)


_STATES: tuple[DeliveryState, ...] = ("pending", "dead", "delivered")


def _reasons(facts: Facts, place: DeliveryStatus) -> Iterator[Reason]:
    match place.state:
        case "delivered":
            when = "" if place.settled_at is None else f" at {to_datetime(place.settled_at):%Y-%m-%dT%H:%M:%SZ}"
            yield Reason("delivered", f"The receiver accepted it{when}, on attempt {place.attempts}.")
        case "dead":
            yield from _dead(facts, place)
        case "pending":
            yield from _pending(facts, place)


def _dead(facts: Facts, place: DeliveryStatus) -> Iterator[Reason]:
    if place.last_outcome == _EXPIRED:
        yield Reason(_EXPIRED, "It was not accepted within its time to live.")
    else:
        times = "1 attempt" if place.attempts == 1 else f"{place.attempts} attempts"
        yield Reason("given_up", f"It was given up after {times} that its receiver refused.")
    yield from _last_attempt(facts)
    if facts.message.body is None:
        yield Reason("pruned", "Its bytes were removed by retention: to send it again, publish it anew.")
    else:
        yield Reason("settled", "Nothing sends it again by itself: once the cause is mended, redeliver it.")


def _pending(facts: Facts, place: DeliveryStatus) -> Iterator[Reason]:
    lane = next(lane for lane in facts.lanes if lane.consumer == place.consumer)
    blocked = [*_lane(lane), *_place(facts, lane, place)]
    yield from blocked or [*_turn(facts, lane)]
    if place.attempts > 0 or lane.health.failures > 0:
        yield from _last_attempt(facts)


def _lane(lane: Lane) -> Iterator[Reason]:
    match lane.state:
        case "paused" if lane.health.reason == _GONE:
            text = "The receiver said that it is gone for good, which paused the account: mend that, then resume it."
            yield Reason("gone", text)
        case "paused":
            yield Reason("paused", "The account is paused: resume it to send this.")
        case "held":
            yield Reason("held", "No callback is registered for the account: register one to send this.")
        case "waiting":
            times = "once" if lane.health.failures == 1 else f"{lane.health.failures} times in a row"
            text = f"The endpoint failed {times} ({lane.health.reason}), so nothing is sent to it until then"
            yield Reason("waiting", f"{text}: resume the account to try at once.", to_datetime_or_none(lane.until))


def _place(facts: Facts, lane: Lane, place: DeliveryStatus) -> Iterator[Reason]:
    if place.behind is not None:
        yield Reason("behind", f"Message {place.behind} of the same ordering key goes first.")
    elif place.due > max(facts.now, lane.until or 0.0) + _MOMENT:
        text = "Its next attempt is made then, as its schedule has it; there is no way to hurry it."
        yield Reason("scheduled", text, to_datetime(place.due))


def _turn(facts: Facts, lane: Lane) -> Iterator[Reason]:
    others = "nothing else waits there" if lane.pending <= 1 else f"{lane.pending} messages wait there"
    yield Reason("due", f"It is sent as soon as its turn comes: the account is open, and {others}.")
    if facts.limits.in_flight is not None:
        text = f"The account's limit is {facts.limits.in_flight} in flight at once: raise it to send more side by side."
        yield Reason("limited_in_flight", text)
    if facts.limits.per_second is not None:
        text = f"The account's limit is {facts.limits.per_second:g} per second: raise it to send this sooner."
        yield Reason("limited_per_second", text)


def _last_attempt(facts: Facts) -> Iterator[Reason]:
    failed = [attempt for attempt in facts.attempts if attempt.error_code not in (None, _EXPIRED)]
    if failed:
        last = failed[-1]
        text = f"The last failure was {last.error_code}: {last.fix or 'see the attempts.'}"
        yield Reason("last_failure", text)

"""Records of the store as our own calls answer them."""

from datetime import UTC, datetime

import msgspec

from ..contract import operator
from ..contract.operator import AccountState, Backlog, DeliveryState, LaneState, MessageState, RegisteredCallback
from ..store.base import CALLBACK_CONSUMER, Account, Attempt, Callback, CallbackChange, Lane, Limits, Message, Placement


def moment(seconds: float) -> datetime:
    """A time of the store as answers have it; JSON writes it by RFC 3339."""
    return datetime.fromtimestamp(seconds, UTC)


def moment_or_none(seconds: float | None) -> datetime | None:
    return None if seconds is None else moment(seconds)


def unknown_account(account: str, limits: Limits) -> AccountState:
    """An account with neither a callback nor a message so far: its lane would be born held."""
    lane, backlog = LaneState(state="held"), Backlog(pending=0, dead=0)
    return AccountState(account=account, callback=None, lane=lane, backlog=backlog, limits=_limits(limits))


def account_state(account: Account) -> AccountState:
    lane = account.lane
    return AccountState(
        account=account.account,
        callback=None if account.callback is None else _callback(account.callback),
        lane=_lane(lane, account.limits),
        backlog=Backlog(
            pending=lane.pending, dead=lane.dead, oldest_accepted_at=moment_or_none(lane.oldest_accepted_at)
        ),
        limits=_limits(account.limits),
    )


def message_state(message: Message, now: float, time_to_live: float) -> MessageState:
    return MessageState(
        id=message.id,
        account=message.account,
        type=message.type,
        ordering_key=message.ordering_key,
        size=message.size,
        sha256=message.sha256.hex(),
        accepted_at=moment(message.accepted_at),
        deliveries=[_delivery(message.account, place, now, time_to_live) for place in message.placements],
    )


def attempt(number: int, attempt: Attempt) -> operator.Attempt:
    return operator.Attempt(
        number=number,
        started_at=moment(attempt.started_at),
        outcome=attempt.outcome,
        url=attempt.url,
        http_status=attempt.status,
        error_code=attempt.error_code,
        fix=attempt.fix,
        phases=msgspec.convert(attempt.phases, operator.Phases),
        excerpt=attempt.excerpt,
    )


def callback_change(change: CallbackChange, before: CallbackChange | None) -> operator.CallbackChange:
    """A change of a callback; `before` is the one that it followed."""
    replaced = before is not None and before.url is not None
    return operator.CallbackChange(
        url=change.url,
        action="deregistered" if change.url is None else "replaced" if replaced else "registered",
        actor=change.actor,
        at=moment(change.at),
        revision=change.revision,
    )


def _callback(callback: Callback) -> RegisteredCallback:
    return RegisteredCallback(
        url=callback.url, revision=callback.revision, registered_at=moment(callback.registered_at)
    )


def _lane(lane: Lane, limits: Limits) -> LaneState:
    window = lane.health.window if limits.in_flight is None else min(lane.health.window, limits.in_flight)
    return LaneState(
        state=lane.state,
        reason=lane.health.reason,
        until=moment_or_none(lane.until),
        in_flight=window if lane.state == "open" else 0,
        failures=lane.health.failures,
    )


def _limits(limits: Limits) -> operator.Limits:
    return operator.Limits(in_flight=limits.in_flight, per_second=limits.per_second)


def _delivery(account: str, place: Placement, now: float, time_to_live: float) -> DeliveryState:
    pending = place.state == "pending"
    # While the lane is held or paused nobody can know when it will have lived for long enough.
    expires_at = now + time_to_live - place.age if pending and not place.stopped else None
    return DeliveryState(
        # The lane to the callback is named by its account.
        lane=account if place.consumer == CALLBACK_CONSUMER else place.consumer,
        state=place.state,
        attempts=place.attempts,
        due=moment(place.due) if pending else None,
        expires_at=moment_or_none(expires_at),
        last_outcome=place.last_outcome,
    )

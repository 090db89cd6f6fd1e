"""Converts the store's records to the models of the operator API, for a service and for a listener's inbox."""

import math
from datetime import UTC, datetime

import msgspec

from fotahook.contract import events as models
from fotahook.contract import operator

from . import events
from .records import CALLBACK_CONSUMER, Account, Attempt, Callback, CallbackChange, DeliveryStatus, Limits, Message


def to_datetime(seconds: float) -> datetime:
    """A time of the store as the operator API has it; JSON writes it by RFC 3339."""
    return datetime.fromtimestamp(seconds, UTC)


def to_datetime_or_none(seconds: float | None) -> datetime | None:
    """The same, for a time that may be missing."""
    return None if seconds is None else to_datetime(seconds)


def lane_name(account: str, consumer: str) -> str:
    """The name of a lane: its consumer, or its account if it leads to the registered callback."""
    return account if consumer == CALLBACK_CONSUMER else consumer


def message_state(message: Message, *, now: float = 0.0, time_to_live: float = math.inf) -> operator.MessageState:
    """A message and its deliveries; `time_to_live` is how long a delivery may wait, in seconds."""
    return operator.MessageState(
        id=message.id,
        account=message.account,
        type=message.type,
        ordering_key=message.ordering_key,
        size=message.size,
        sha256=message.sha256.hex(),
        accepted_at=to_datetime(message.accepted_at),
        deliveries=[
            operator.DeliveryState(
                lane=lane_name(message.account, delivery.consumer),
                state=delivery.state,
                attempts=delivery.attempts,
                due=to_datetime(delivery.due) if delivery.state == "pending" else None,
                expires_at=_expires_at(delivery, now, time_to_live),
                last_outcome=delivery.last_outcome,
            )
            for delivery in message.deliveries
        ],
    )


def _expires_at(delivery: DeliveryStatus, now: float, time_to_live: float) -> datetime | None:
    # The age stands still while the lane is held or paused, so the end of its time to live is unknown.
    if time_to_live == math.inf or delivery.stopped or delivery.state != "pending":
        return None
    return to_datetime(now + time_to_live - delivery.age)


def attempt_state(number: int, attempt: Attempt) -> operator.Attempt:
    """One attempt in a message's history."""
    return operator.Attempt(
        number=number,
        started_at=to_datetime(attempt.started_at),
        outcome=attempt.outcome,
        url=attempt.url,
        http_status=attempt.status,
        error_code=attempt.error_code,
        fix=attempt.fix,
        phases=msgspec.convert(attempt.phases, operator.Phases),
        excerpt=attempt.excerpt,
        resent=attempt.resent,
    )


def unknown_account_state(account: str, limits: Limits) -> operator.AccountState:
    """The state of an account with neither a callback nor a message so far: its lane would start held."""
    return operator.AccountState(
        account=account,
        callback=None,
        lane=operator.LaneState(state="held"),
        backlog=operator.Backlog(pending=0, dead=0),
        limits=_limits(limits),
        known=False,
    )


def account_state(account: Account, *, known: bool) -> operator.AccountState:
    """The state of an account, by the lane to its callback; `known`: it has had a callback or a message."""
    callback, lane, limits = account.callback, account.lane, account.limits
    window = lane.health.window if limits.in_flight is None else min(lane.health.window, limits.in_flight)
    return operator.AccountState(
        account=account.account,
        callback=None if callback is None else _callback(callback),
        lane=operator.LaneState(
            state=lane.state,
            reason=lane.health.reason,
            until=to_datetime_or_none(lane.until),
            in_flight=window if lane.state == "open" else 0,
            failures=lane.health.failures,
        ),
        backlog=operator.Backlog(
            pending=lane.pending, dead=lane.dead, oldest_accepted_at=to_datetime_or_none(lane.oldest_accepted_at)
        ),
        limits=_limits(limits),
        known=known,
    )


def _callback(callback: Callback) -> operator.RegisteredCallback:
    return operator.RegisteredCallback(
        url=callback.url, revision=callback.revision, registered_at=to_datetime(callback.registered_at)
    )


def _limits(limits: Limits) -> operator.Limits:
    return operator.Limits(in_flight=limits.in_flight, per_second=limits.per_second)


def callback_change(change: CallbackChange, before: CallbackChange | None) -> operator.CallbackChange:
    """A change of a callback; `before` is the change that preceded it."""
    return operator.CallbackChange(
        url=change.url,
        action=_action(change.url, before is not None and before.url is not None),
        actor=change.actor,
        at=to_datetime(change.at),
        revision=change.revision,
    )


def _action(url: str | None, replaced: bool) -> str:
    return "deregistered" if url is None else "replaced" if replaced else "registered"


def event_data(event: events.Event) -> models.EventData:
    """An event as the event stream of the operator API has it."""
    account, at = event.account, to_datetime(event.at)
    match event:
        case events.MessageAccepted():
            return models.MessageAccepted(
                id=event.message,
                account=account,
                at=at,
                type=event.type,
                ordering_key=event.ordering_key,
                size=event.size,
            )
        case events.AttemptFinished():
            return _attempt_finished(event)
        case events.MessageDead():
            lane = lane_name(account, event.consumer)
            return models.MessageDead(id=event.message, account=account, at=at, lane=lane, error_code=event.error_code)
        case events.LaneChanged():
            return models.LaneChanged(
                account=account,
                at=at,
                lane=lane_name(account, event.consumer),
                state=event.state,
                until=to_datetime_or_none(event.until),
                reason=event.reason,
            )
    assert isinstance(event, events.CallbackChanged)
    return models.CallbackChanged(
        account=account,
        at=at,
        action=_action(event.url, event.before),
        actor=event.actor,
        revision=event.revision,
        url=event.url,
    )


def _attempt_finished(event: events.AttemptFinished) -> models.AttemptFinished:
    return models.AttemptFinished(
        id=event.message,
        account=event.account,
        at=to_datetime(event.at),
        lane=lane_name(event.account, event.consumer),
        number=event.number,
        started_at=to_datetime(event.started_at),
        outcome=event.outcome,
        state=event.state,
        url=event.url,
        http_status=event.status,
        error_code=event.error_code,
        milliseconds=event.milliseconds,
    )

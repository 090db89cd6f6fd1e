"""Converts the store's records to the models of the operator API, for a service and for a listener's inbox."""

import math
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from typing import TypeVar

import msgspec

from fotahook.contract import operator

from .records import (
    CALLBACK_CONSUMER,
    Account,
    Attempt,
    AuditEntry,
    CallbackChange,
    DeliveryStatus,
    Limits,
    Message,
    RecentAttempt,
    Record,
)

Model = TypeVar("Model", bound=msgspec.Struct)


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
    return _model(
        operator.MessageState,
        message,
        sha256=message.sha256.hex(),
        deliveries=[
            _model(
                operator.DeliveryState,
                delivery,
                lane=lane_name(message.account, delivery.consumer),
                due=to_datetime(delivery.due) if delivery.state == "pending" else None,
                expires_at=_expires_at(delivery, now, time_to_live),
            )
            for delivery in message.deliveries
        ],
    )


def _expires_at(delivery: DeliveryStatus, now: float, time_to_live: float) -> datetime | None:
    # The age stands still while the lane is held or paused, so the end of its time to live is unknown.
    if time_to_live == math.inf or delivery.stopped or delivery.state != "pending":
        return None
    return to_datetime(now + time_to_live - delivery.age)


def audit_entry(entry: AuditEntry) -> operator.AuditEntry:
    """An entry of the audit log."""
    return _model(operator.AuditEntry, entry)


def attempt_state(number: int, attempt: Attempt) -> operator.Attempt:
    """One attempt in a message's history."""
    return _attempt(operator.Attempt, number, attempt)


def recent_attempt(recent: RecentAttempt) -> operator.RecentAttempt:
    """One attempt in an account's history."""
    return _attempt(operator.RecentAttempt, recent.number, recent.attempt, message_id=recent.message)


def _attempt(model: type[Model], number: int, attempt: Attempt, **fields: object) -> Model:
    phases = msgspec.convert(attempt.phases, operator.Phases)
    return _model(model, attempt, number=number, http_status=attempt.status, phases=phases, **fields)


def unknown_account_state(account: str, limits: Limits) -> operator.AccountState:
    """The state of an account with neither a callback nor a message so far: its lane would start held."""
    return operator.AccountState(
        account=account,
        callback=None,
        lane=operator.LaneState(state="held"),
        backlog=operator.Backlog(pending=0, dead=0),
        limits=limits,
        known=False,
    )


def account_state(account: Account, *, known: bool) -> operator.AccountState:
    """The state of an account, by the lane to its callback; `known`: it has had a callback or a message."""
    callback, lane, limits = account.callback, account.lane, account.limits
    window = lane.health.window if limits.in_flight is None else min(lane.health.window, limits.in_flight)
    return operator.AccountState(
        account=account.account,
        callback=None if callback is None else _model(operator.RegisteredCallback, callback),
        lane=_model(
            operator.LaneState,
            lane,
            reason=lane.health.reason,
            in_flight=window if lane.state == "open" else 0,
            failures=lane.health.failures,
        ),
        backlog=_model(operator.Backlog, lane),
        limits=limits,
        known=known,
    )


def callback_change(change: CallbackChange, before: CallbackChange | None) -> operator.CallbackChange:
    """A change of a callback; `before` is the change that preceded it."""
    replaced = before is not None and before.url is not None
    action = "deregistered" if change.url is None else "replaced" if replaced else "registered"
    return _model(operator.CallbackChange, change, action=action)


def _model(model: type[Model], record: Record, **fields: object) -> Model:
    """A model with these fields, and the record's for all others; times of the store become datetimes."""
    shared = {
        name: getattr(record, name) if convert is None else convert(getattr(record, name))
        for name, convert in _fields(model)
        if name not in fields
    }
    return model(**shared, **fields)


@cache
def _fields(model: type[msgspec.Struct]) -> list[tuple[str, Callable[[float | None], datetime | None] | None]]:
    """The names of a model's fields, and how their values are converted."""
    times = (datetime, datetime | None)
    return [
        (field.name, to_datetime_or_none if field.type in times else None) for field in msgspec.structs.fields(model)
    ]

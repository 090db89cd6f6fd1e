"""Converts rows to records, and records to the models of the operator API. Both engines name their columns alike."""

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache, partial
from typing import Any, Final, TypeVar

import msgspec
from msgspec.structs import asdict

from fotahook.contract import operator

from . import records

T = TypeVar("T", bound=msgspec.Struct)
Row = Mapping[str, Any]
"""The columns of a row by name. SQLite has 0 and 1 for booleans, and text for arrays."""


def to_datetime(seconds: float) -> datetime:
    """A time of the store as the operator API has it; JSON writes it by RFC 3339."""
    return datetime.fromtimestamp(seconds, UTC)


def to_datetime_or_none(seconds: float | None) -> datetime | None:
    """The same, for a time that may be missing."""
    return None if seconds is None else to_datetime(seconds)


def read(kind: type[T], row: Row, **fields: object) -> T:
    """A record or model with these fields, and the row's for all others; records in it have columns of the same row."""
    plain, converted, nested = _plan(kind)
    for name in plain:
        if name not in fields:
            fields[name] = row[name]
    for name, convert in converted:
        if name not in fields:
            fields[name] = convert(row[name])
    for name, convert in nested:
        if name not in fields:
            fields[name] = convert(row)
    return kind(**fields)


def read_lease(row: Row) -> records.Lease:
    # The quotas are no affair of a dispatcher.
    limits = records.Limits(in_flight=row["in_flight"], per_second=row["per_second"])
    return read(records.Lease, row, limits=limits)


def read_note(note: str | None) -> records.Note | None:
    """The note of a message as the store has it."""
    return None if note is None else msgspec.json.decode(note, type=records.Note)


_Conversions = list[tuple[str, Callable[[Any], object]]]


@cache
def _plan(kind: type[msgspec.Struct]) -> tuple[list[str], _Conversions, _Conversions]:
    """The fields that are as in the row, those that are converted, and those made of the whole row."""
    plain: list[str] = []
    converted: _Conversions = []
    nested: _Conversions = []
    for field in msgspec.structs.fields(kind):
        if field.type in _CONVERSIONS:
            converted.append((field.name, _CONVERSIONS[field.type]))
        elif field.type == _Callback | None:
            nested.append((field.name, lambda row: None if row["url"] is None else read(_Callback, row)))
        elif isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            nested.append((field.name, partial(read, field.type)))
        else:
            plain.append(field.name)
    return plain, converted, nested


def _words(value: str | Sequence[str] | None) -> tuple[str, ...]:
    return tuple(value.split() if isinstance(value, str) else value or ())


def _names(value: str | Sequence[str] | None) -> tuple[str, ...] | None:
    given = msgspec.json.decode(value) if isinstance(value, str) else value
    return None if given is None else tuple(given)


_Callback: Final = operator.RegisteredCallback
_CONVERSIONS: Final[Mapping[Any, Callable[[Any], object]]] = {
    bool: bool,
    datetime: to_datetime,
    datetime | None: to_datetime_or_none,
    tuple[str, ...]: _words,
    tuple[str, ...] | None: _names,
    Mapping[str, float]: msgspec.json.decode,
    records.Note | None: read_note,
}


def _model(model: type[T], record: records.Record, **fields: object) -> T:
    """A model with these fields, and the record's for all others."""
    return read(model, asdict(record), **fields)


def message_state(
    message: records.Message, *, now: float = 0.0, time_to_live: float = math.inf
) -> operator.MessageState:
    """A message and its deliveries; `time_to_live` is how long a delivery may wait, in seconds."""
    return _model(
        operator.MessageState,
        message,
        sha256=message.sha256.hex(),
        deliveries=[
            _model(
                operator.DeliveryState,
                delivery,
                # The lane to the registered callback has the name of its account.
                lane=delivery.consumer or message.account,
                due=to_datetime(delivery.due) if delivery.state == "pending" else None,
                expires_at=_expires_at(delivery, now, time_to_live),
            )
            for delivery in message.deliveries
        ],
    )


def _expires_at(delivery: records.DeliveryStatus, now: float, time_to_live: float) -> datetime | None:
    # The age stands still while the lane is held or paused, so the end of its time to live is unknown.
    if time_to_live == math.inf or delivery.stopped or delivery.state != "pending":
        return None
    return to_datetime(now + time_to_live - delivery.age)


def audit_entry(entry: records.AuditEntry) -> operator.AuditEntry:
    """An entry of the audit log."""
    return _model(operator.AuditEntry, entry)


def attempt_state(message_id: str, number: int, attempt: records.Attempt) -> operator.Attempt:
    """One attempt in the history of a message."""
    known = {"message_id": message_id, "number": number, "http_status": attempt.status}
    return _model(operator.Attempt, attempt, phases=msgspec.convert(attempt.phases, operator.Phases), **known)


def unknown_account_state(account: str, limits: records.Limits) -> operator.AccountState:
    """The state of an account with neither a callback nor a message so far: its lane would start held."""
    lane, backlog = operator.LaneState(state="held"), operator.Backlog(pending=0, dead=0)
    return operator.AccountState(account, callback=None, lane=lane, backlog=backlog, limits=limits, known=False)


def account_state(account: records.Account, *, known: bool) -> operator.AccountState:
    """The state of an account, by the lane to its callback; `known`: it has had a callback or a message."""
    lane, health, most = account.lane, account.lane.health, account.limits.in_flight
    window = health.window if most is None else min(health.window, most)
    in_flight = window if lane.state == "open" else 0
    return operator.AccountState(
        account=account.account,
        callback=account.callback,
        lane=_model(operator.LaneState, lane, reason=health.reason, in_flight=in_flight, failures=health.failures),
        backlog=_model(operator.Backlog, lane),
        limits=account.limits,
        known=known,
    )

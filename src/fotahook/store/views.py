"""Converts rows to records and models, and records to models of the operator API. Both engines name columns alike."""

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache, partial
from operator import itemgetter
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
    return None if seconds is None else to_datetime(seconds)


def read(kind: type[T], row: Row, **fields: object) -> T:
    """A record or model with these fields, and the row's for all others; records in it have columns of the same row."""
    for name, get in _plan(kind):
        if name not in fields:
            fields[name] = get(row)
    return kind(**fields)


def read_lease(row: Row) -> records.Lease:
    # The quotas are no affair of a dispatcher.
    limits = records.Limits(in_flight=row["in_flight"], per_second=row["per_second"])
    return read(records.Lease, row, limits=limits)


def read_note(note: str | None) -> records.Note | None:
    return None if note is None else msgspec.json.decode(note, type=records.Note)


@cache
def _plan(kind: type[msgspec.Struct]) -> list[tuple[str, Callable[[Row], object]]]:
    return [(field.name, _getter(field.name, field.type)) for field in msgspec.structs.fields(kind)]


def _getter(name: str, kind: Any) -> Callable[[Row], object]:
    """What makes a field of this type of a row."""
    get: Callable[[Row], Any] = itemgetter(name)
    if (convert := _CONVERSIONS.get(kind)) is not None:
        return lambda row: convert(get(row))
    if kind == _Callback | None:
        return lambda row: None if row["url"] is None else read(_Callback, row)
    return partial(read, kind) if isinstance(kind, type) and issubclass(kind, msgspec.Struct) else get


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
    operator.Phases: partial(msgspec.json.decode, type=operator.Phases),
}


def _model(model: type[T], record: records.Record, **fields: object) -> T:
    """A model with these fields, and the record's for all others."""
    return read(model, asdict(record), **fields)


def message_state(
    message: records.Message, *, now: float = 0.0, time_to_live: float = math.inf
) -> operator.MessageState:
    """A message and its deliveries; `time_to_live` is how long a delivery may wait, in seconds."""

    def state(delivery: records.DeliveryStatus) -> operator.DeliveryState:
        is_pending = delivery.state == "pending"
        # The age stands still while the lane is held or paused, so the end of its time to live is unknown.
        expires = is_pending and not delivery.stopped and time_to_live < math.inf
        return _model(
            operator.DeliveryState,
            delivery,
            # The lane to the registered callback has the name of its account.
            lane=delivery.consumer or message.account,
            due=to_datetime(delivery.due) if is_pending else None,
            expires_at=to_datetime(now + time_to_live - delivery.age) if expires else None,
        )

    deliveries = list(map(state, message.deliveries))
    return _model(operator.MessageState, message, sha256=message.sha256.hex(), deliveries=deliveries)


audit_entry = partial(_model, operator.AuditEntry)


def read_account(row: Row) -> operator.AccountState:
    """The state of an account, by the lane to its callback."""
    window = row["window"] if row["in_flight"] is None else min(row["window"], row["in_flight"])
    lane = read(operator.LaneState, row, in_flight=window if row["state"] == "open" else 0)
    return read(operator.AccountState, row, lane=lane, known=True)

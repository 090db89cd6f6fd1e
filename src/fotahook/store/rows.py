"""Converts rows to records. The statements of both engines name their columns alike."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cache, partial
from typing import Any, Final, TypeVar

import msgspec

from . import records
from .views import to_datetime, to_datetime_or_none

T = TypeVar("T", bound=msgspec.Struct)
Row = Mapping[str, Any]
"""The columns of a row by name. SQLite has 0 and 1 for booleans, and text for arrays."""


def read(kind: type[T], row: Row, **fields: object) -> T:
    """A record with these fields, and the row's for all others; records in it have columns of the same row."""
    plain, converted, nested = _plan(kind)
    for name in plain:
        if name not in fields:
            fields[name] = row[name]
    for name, convert in converted:
        fields[name] = convert(row[name])
    for name, convert in nested:
        if name not in fields:
            fields[name] = convert(row)
    return kind(**fields)


def read_lease(row: Row) -> records.Lease:
    # The quotas are no affair of a dispatcher.
    limits = records.Limits(in_flight=row["in_flight"], per_second=row["per_second"])
    return read(records.Lease, row, limits=limits)


Conversions = list[tuple[str, Callable[[Any], object]]]


@cache
def _plan(kind: type[msgspec.Struct]) -> tuple[list[str], Conversions, Conversions]:
    """The fields that are as in the row, those that are converted, and those made of the whole row."""
    plain: list[str] = []
    converted: Conversions = []
    nested: Conversions = []
    for field in msgspec.structs.fields(kind):
        if field.type in _CONVERSIONS:
            converted.append((field.name, _CONVERSIONS[field.type]))
        elif field.type == records.Callback | None:
            nested.append((field.name, lambda row: None if row["url"] is None else read(records.Callback, row)))
        elif isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            nested.append((field.name, partial(read, field.type)))
        else:
            plain.append(field.name)
    return plain, converted, nested


def read_messages(messages: Sequence[Row], statuses: Sequence[Row]) -> list[records.Message]:
    """Messages with the rows of their deliveries."""
    deliveries: dict[int, list[records.DeliveryStatus]] = {row["seq"]: [] for row in messages}
    for row in statuses:
        deliveries[row["seq"]].append(read(records.DeliveryStatus, row))
    return [read(records.Message, row, deliveries=tuple(deliveries[row["seq"]])) for row in messages]


def read_note(note: str | None) -> records.Note | None:
    """The note of a message as the store has it."""
    return None if note is None else msgspec.json.decode(note, type=records.Note)


def _words(value: str | Sequence[str] | None) -> tuple[str, ...]:
    return tuple(value.split() if isinstance(value, str) else value or ())


def _names(value: str | Sequence[str] | None) -> tuple[str, ...] | None:
    given = msgspec.json.decode(value) if isinstance(value, str) else value
    return None if given is None else tuple(given)


_CONVERSIONS: Final[Mapping[Any, Callable[[Any], object]]] = {
    bool: bool,
    datetime: to_datetime,
    datetime | None: to_datetime_or_none,
    tuple[str, ...]: _words,
    tuple[str, ...] | None: _names,
    Mapping[str, float]: msgspec.json.decode,
    records.Note | None: read_note,
}

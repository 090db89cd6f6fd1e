"""Converts rows to records. The statements of both engines name their columns alike."""

from collections.abc import Sequence
from typing import TypeVar

import msgspec

from . import records
from .session import Row

T = TypeVar("T", bound=records.Record)


def read(kind: type[T], row: Row, **fields: object) -> T:
    """A record with these fields, and the row's for all others."""
    return kind(**{name: row[name] for name in kind.__struct_fields__ if name not in fields}, **fields)


def read_lease(row: Row) -> records.Lease:
    return read(
        records.Lease,
        row,
        open=bool(row["open"]),
        signing_keys=_words(row["signing_keys"]),
        # The quotas are no affair of a dispatcher.
        limits=records.Limits(in_flight=row["in_flight"], per_second=row["per_second"]),
        health=read(records.Health, row),
    )


def read_lane(row: Row) -> records.Lane:
    state: records.LaneState = "open"
    if row["paused"]:
        state = "paused"
    elif row["held"]:
        state = "held"
    elif row["waiting"]:
        state = "waiting"
    until = row["wait_until"] if state == "waiting" else None
    return read(records.Lane, row, state=state, until=until, health=read(records.Health, row))


def read_account(row: Row) -> records.Account:
    callback = None if row["url"] is None else read(records.Callback, row)
    return read(records.Account, row, callback=callback, lane=read_lane(row), limits=read(records.Limits, row))


def read_messages(messages: Sequence[Row], statuses: Sequence[Row]) -> list[records.Message]:
    """Messages with the rows of their deliveries."""
    deliveries: dict[int, list[records.DeliveryStatus]] = {row["seq"]: [] for row in messages}
    for row in statuses:
        deliveries[row["seq"]].append(read(records.DeliveryStatus, row, stopped=bool(row["stopped"])))
    return [read(records.Message, row, deliveries=tuple(deliveries[row["seq"]])) for row in messages]


def copy_of(message: records.Message, body: bytes) -> records.NewMessage:
    """A message to accept with the content of a stored one, for the same lanes."""
    return records.NewMessage(
        account=message.account,
        body=body,
        type=message.type,
        ordering_key=message.ordering_key,
        consumers=tuple(delivery.consumer for delivery in message.deliveries),
    )


def read_attempt(row: Row) -> records.Attempt:
    return read(records.Attempt, row, phases=msgspec.json.decode(row["phases"]), resent=bool(row["resent"]))


def read_recent_attempt(row: Row) -> records.RecentAttempt:
    return read(records.RecentAttempt, row, attempt=read_attempt(row))


def read_credential(row: Row) -> records.Credential:
    accounts = row["accounts"]
    if isinstance(accounts, str):
        accounts = msgspec.json.decode(accounts)
    accounts = None if accounts is None else tuple(accounts)
    words = {name: _words(row[name]) for name in ("scopes", "networks")}
    return read(records.Credential, row, accounts=accounts, **words)


def _words(value: str | Sequence[str] | None) -> tuple[str, ...]:
    return tuple(value.split() if isinstance(value, str) else value or ())

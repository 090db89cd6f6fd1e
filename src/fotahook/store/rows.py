"""Converts rows to records. The statements of both engines name their columns alike."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from . import records
from .session import Row


def read_lease(row: Row) -> records.Lease:
    return records.Lease(
        lane=row["lane"],
        token=row["token"],
        account=row["account"],
        consumer=row["consumer"],
        open=bool(row["open"]),
        url=row["url"],
        revision=row["revision"],
        signing_keys=_words(row["signing_keys"]),
        limits=_limits(row),
        health=_health(row),
        read_at=row["read_at"],
    )


def read_lane(row: Row) -> records.Lane:
    state: records.LaneState = "open"
    if row["paused"]:
        state = "paused"
    elif row["held"]:
        state = "held"
    elif row["waiting"]:
        state = "waiting"
    return records.Lane(
        consumer=row["consumer"],
        state=state,
        until=row["wait_until"] if state == "waiting" else None,
        health=_health(row),
        pending=row["pending"],
        dead=row["dead"],
        oldest_accepted_at=row["oldest_accepted_at"],
    )


def read_account(row: Row) -> records.Account:
    account, url = row["account"], row["url"]
    callback = None
    if url is not None:
        callback = records.Callback(
            account=account, url=url, revision=row["revision"], registered_at=row["registered_at"]
        )
    return records.Account(account=account, callback=callback, lane=read_lane(row), limits=_limits(row))


def read_messages(messages: Sequence[Row], statuses: Sequence[Row]) -> list[records.Message]:
    """Messages with the rows of their deliveries."""
    deliveries: dict[int, list[records.DeliveryStatus]] = {row["seq"]: [] for row in messages}
    for row in statuses:
        values = dict(row)
        state = "pending" if row["state"] in ("ready", "behind") else row["state"]
        deliveries[values.pop("seq")].append(
            records.DeliveryStatus(**values | {"state": state, "stopped": bool(row["stopped"])})
        )
    return [_message(dict(row), deliveries) for row in messages]


def _message(values: dict[str, Any], deliveries: Mapping[int, Sequence[records.DeliveryStatus]]) -> records.Message:
    return records.Message(deliveries=tuple(deliveries[values.pop("seq")]), **values)


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
    return records.Attempt(**dict(row) | {"phases": msgspec.json.decode(row["phases"]), "resent": bool(row["resent"])})


def read_recent_attempt(row: Row) -> records.RecentAttempt:
    values = dict(row)
    own = {name: values.pop(name) for name in ("message", "accepted_at", "number")}
    return records.RecentAttempt(attempt=read_attempt(values), **own)


def read_credential(row: Row) -> records.Credential:
    accounts = row["accounts"]
    if isinstance(accounts, str):
        accounts = msgspec.json.decode(accounts)
    accounts = None if accounts is None else tuple(accounts)
    words = {name: _words(row[name]) for name in ("scopes", "networks")}
    return records.Credential(**dict(row) | words | {"accounts": accounts})


def _words(value: str | Sequence[str] | None) -> tuple[str, ...]:
    return tuple(value.split() if isinstance(value, str) else value or ())


def _limits(row: Row) -> records.Limits:
    return records.Limits(in_flight=row["in_flight"], per_second=row["per_second"])


def _health(row: Row) -> records.Health:
    return records.Health(**{name: row[name] for name in records.Health.__struct_fields__})

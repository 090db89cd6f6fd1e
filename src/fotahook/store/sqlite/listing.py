"""What an operator looks through in the SQLite store: accounts, messages, the history of a callback."""

import heapq
import sqlite3
from collections.abc import Collection
from itertools import islice
from typing import Any

import msgspec

from ..records import (
    SCAN_LIMIT,
    Account,
    AccountState,
    Attempt,
    Callback,
    CallbackChange,
    Limits,
    Message,
    MessageFilter,
    Page,
)
from .rows import Q, read_lane, read_placement


def list_accounts(
    db: sqlite3.Connection,
    state: AccountState | None,
    among: Collection[str] | None,
    after: str,
    limit: int,
    now: float,
) -> list[Account]:
    names = None if among is None else msgspec.json.encode(among).decode()
    query = {"state": state, "among": names, "after": after, "limit": limit, "now": now}
    return [_account(row, now) for row in db.execute(Q["accounts"], query)]


def list_messages(
    db: sqlite3.Connection, account: str, wanted: MessageFilter, before: int | None, limit: int, now: float
) -> Page:
    """Of the newest that may be wanted, those that are."""
    seqs = _candidates(db, account, wanted, before)
    query = msgspec.structs.asdict(wanted) | {"seqs": msgspec.json.encode(seqs).decode(), "limit": limit}
    found = db.execute(Q["wanted"], query).fetchall()
    more = found[-1]["seq"] if len(found) == limit else seqs[-1] if len(seqs) == SCAN_LIMIT else None
    return Page(messages=tuple(read_message(db, row, now) for row in found), next=more)


def list_changes(db: sqlite3.Connection, account: str, limit: int) -> list[CallbackChange]:
    rows = db.execute(Q["callback_history"], {"account": account, "limit": limit})
    return [CallbackChange(**row) for row in rows]


def read_message(db: sqlite3.Connection, row: dict[str, Any], now: float) -> Message:
    rows = db.execute(Q["placements"], {"seq": row.pop("seq"), "now": now})
    return Message(**row, deliveries=tuple(read_placement(found) for found in rows))


def read_attempt(row: dict[str, Any]) -> Attempt:
    return Attempt(**row | {"phases": msgspec.json.decode(row["phases"]), "resent": bool(row["resent"])})


def _candidates(db: sqlite3.Connection, account: str, wanted: MessageFilter, before: int | None) -> list[int]:
    query = {"account": account, "before": (1 << 63) - 1 if before is None else before, "limit": SCAN_LIMIT}
    if wanted.state not in ("pending", "dead"):
        return [row["seq"] for row in db.execute(Q["recent"], query)]
    # These have an index in each lane, so that the few dead of very many messages are found at once.
    lanes = db.execute(Q["lanes_of_account"], query).fetchall()
    rows = [db.execute(Q[f"recent_{wanted.state}"], query | {"lane": lane["id"]}) for lane in lanes]
    newest = heapq.merge(*([row["seq"] for row in each] for each in rows), reverse=True)
    return list(islice(dict.fromkeys(newest), SCAN_LIMIT))


def _account(row: dict[str, Any], now: float) -> Account:
    account = row.pop("account")
    registered = {"url": row.pop("url"), "revision": row.pop("revision"), "registered_at": row.pop("registered_at")}
    return Account(
        account=account,
        callback=Callback(account=account, **registered) if registered["url"] is not None else None,
        limits=Limits(in_flight=row.pop("in_flight"), per_second=row.pop("per_second")),
        lane=read_lane(row, now),
    )

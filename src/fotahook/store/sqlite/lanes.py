"""Lanes of the SQLite store: leased and read. Each function runs inside a transaction of its caller."""

import sqlite3
from collections.abc import Collection, Sequence
from typing import Any, Final

import msgspec

from ..ledger import read_note
from ..records import Delivery, Lease
from ..rows import read_lease
from .connection import execute

_FETCHED: Final = msgspec.json.Decoder(list[dict[str, Any]])


def lease_lanes(db: sqlite3.Connection, limit: int, seconds: float, now: float) -> list[Lease]:
    """Lease up to `limit` due lanes."""
    taken = execute(db, "lease", now=now, seconds=seconds, limit=limit).fetchall()
    return list(read_leases(db, [lane["id"] for lane in taken], now).values())


def read_leases(db: sqlite3.Connection, lanes: Sequence[int], now: float) -> dict[int, Lease]:
    """The current leases of these lanes, by lane."""
    return {row["lane"]: read_lease(row) for row in execute(db, "leased_lanes", lanes=lanes, now=now)}


def fetch_deliveries(
    db: sqlite3.Connection, lease: Lease, limit: int, without: Collection[int], max_bytes: int, now: float
) -> list[Delivery]:
    """The due deliveries of a leased lane."""
    values = {"lane": lease.lane, "now": now, "limit": limit, "without": list(without), "max_bytes": max_bytes}
    fetched = _FETCHED.decode(execute(db, "fetch", **values).fetchone()["deliveries"])
    for row in fetched:
        row |= {
            "body": bytes.fromhex(row["body"]),
            "followed": bool(row["followed"]),
            "note": read_note(row["note"]),
        }
    return [Delivery(lane=lease.lane, account=lease.account, **row) for row in fetched]

"""Lanes of the SQLite store: leased and read. Each function runs inside a transaction of its caller."""

import sqlite3
from collections.abc import Collection, Sequence
from typing import Final

import msgspec

from ..ledger import read_note
from ..records import Delivery, Lease
from ..rows import read_lease
from .connection import execute

_Fetched = tuple[int, str, str | None, str | None, int, float, int, int, float, int, str | None]
_FETCHED: Final = msgspec.json.Decoder(list[_Fetched])


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
    row = execute(db, "fetch", **values).fetchone()
    deliveries, end = [], 0
    for seq, message, kind, key, size, accepted_at, attempts, strikes, age, followed, note in _FETCHED.decode(
        row["deliveries"]
    ):
        begin, end = end, end + size
        deliveries.append(
            Delivery(
                lane=lease.lane,
                seq=seq,
                message=message,
                account=lease.account,
                type=kind,
                ordering_key=key,
                body=row["bodies"][begin:end],
                accepted_at=accepted_at,
                attempts=attempts,
                strikes=strikes,
                age=age,
                note=read_note(note),
                followed=bool(followed),
            )
        )
    return deliveries

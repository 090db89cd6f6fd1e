"""Lanes of the SQLite store: created, leased, made due. Each function runs inside a transaction of its caller."""

import sqlite3
from collections.abc import Collection, Iterable

from ..records import Lease
from ..rows import read_lease
from .connection import execute, rows, run_rows


def add_lanes(db: sqlite3.Connection, lanes: Iterable[tuple[str, str]], now: float) -> None:
    """Create those of these lanes that do not exist; each is an account and a consumer."""
    execute(db, "add_lanes", lanes=sorted(lanes), now=now)


def read_leases(db: sqlite3.Connection, lanes: list[int], now: float) -> dict[int, Lease]:
    """The current leases of these lanes, by lane."""
    return {row["lane"]: read_lease(row) for row in rows(db, "leased_lanes", lanes=lanes, now=now)}


def recompute_due(db: sqlite3.Connection, lanes: Iterable[int]) -> None:
    """Set when lanes are due after their deliveries changed."""
    execute(db, "recompute_due", lanes=sorted(set(lanes)))


def end_backoff(db: sqlite3.Connection, account: str, consumer: str, now: float) -> None:
    """Make the deliveries of a lane due that wait for a failing endpoint."""
    found = rows(db, "end_backoff", account=account, consumer=consumer, now=now)
    recompute_due(db, [row["lane"] for row in found])


def promote(db: sqlite3.Connection, keys: Collection[tuple[int, str]]) -> None:
    """Make the first delivery of each key ready; a key is a lane and an ordering key."""
    run_rows(db, "promote", sorted(keys))

"""What happened, read from the SQLite store. It has one writer, so rows can be seen in the order of their numbers."""

import sqlite3
from collections.abc import Collection, Iterator
from typing import Any, Final

import msgspec

from ..base import Retention
from ..events import (
    STATS_MINUTES,
    CallbackChanged,
    Counts,
    Events,
    Happened,
    LaneChanged,
    Mark,
    MessageAccepted,
    Source,
    Stats,
    attempt_events,
    merged,
    next_attempt,
)
from ..queries import load_queries

Q: Final = load_queries("sqlite")

STEP: Final = 1000
"""Rows that are removed at once, so that no delivery waits long behind them."""


def read_events(db: sqlite3.Connection, after: Mark | None, limit: int) -> Events:
    """Up to `limit` of each source behind a mark."""
    ends = db.execute(Q["event_ends"]).fetchone()
    removed = ends.pop("removed")
    present = Mark(**ends | {"attempts": 2 * ends["attempts"] + 1})
    if after is None:
        return Events(happened=(), mark=present)
    if after.exceeds(present) or after.lanes < removed:
        return Events(happened=(), mark=after, lost=True)
    messages = db.execute(Q["messages_accepted"], {"after": after.messages, "limit": limit}).fetchall()
    attempts = db.execute(Q["attempts_finished"], {"first": next_attempt(after), "limit": limit}).fetchall()
    callbacks = db.execute(Q["callbacks_changed"], {"after": after.callbacks, "limit": limit}).fetchall()
    lanes = db.execute(Q["lanes_changed"], {"after": after.lanes, "limit": limit}).fetchall()
    sources = [
        Source([MessageAccepted(**row) for row in messages], len(messages) == limit),
        Source([event for row in attempts for event in _attempt(row, after)], len(attempts) == limit),
        Source(
            [CallbackChanged(**row | {"before": bool(row["before"])}) for row in callbacks], len(callbacks) == limit
        ),
        Source([LaneChanged(**row) for row in lanes], len(lanes) == limit),
    ]
    return merged(sources, after)


def read_stats(db: sqlite3.Connection, minutes: int, among: Collection[str] | None, now: float) -> Stats:
    """How much happened in the last minutes."""
    this = int(now // 60)
    names = None if among is None else msgspec.json.encode(among).decode()
    rows = db.execute(Q["stats"], {"after": this - minutes, "among": names})
    return Stats(now=this, minutes=tuple(Counts(**row) for row in rows))


def forget(db: sqlite3.Connection, retention: Retention, now: float) -> bool:
    """Remove some old lane changes and counts; whether there may be more of them."""
    before = {"before": int(now // 60) - STATS_MINUTES, "limit": STEP}
    removed = db.execute(Q["remove_counts"], before).rowcount
    if retention.seconds is not None:
        last = db.execute(Q["old_lane_change"], {"before": now - retention.seconds, "limit": STEP}).fetchone()
        if last["number"] is not None:
            removed += db.execute(Q["remove_lane_changes"], last).rowcount
            db.execute(Q["mark_lane_change"], last)
    return removed >= STEP


def _attempt(row: dict[str, Any], after: Mark) -> Iterator[Happened]:
    number, phases = row.pop("number"), msgspec.json.decode(row.pop("phases"))
    facts = row | {"number": row.pop("ordinal"), "milliseconds": phases.get("total")}
    return attempt_events(number, facts, after.attempts)

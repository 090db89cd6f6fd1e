"""Reading events and counts of the SQLite store. It has one writer, so rows become visible in the order of numbers."""

import sqlite3
from collections.abc import Collection
from typing import Final

import msgspec

from ..events import (
    FORGET_STEP,
    STATS_MINUTES,
    EventCursor,
    EventPage,
    MinuteCounts,
    Stats,
    merge_sources,
    present_cursor,
    read_source,
    statements,
)
from ..queries import load_queries
from ..records import Retention

Q: Final = load_queries("sqlite")


def read_events(db: sqlite3.Connection, after: EventCursor | None, limit: int) -> EventPage:
    """The events after a cursor, up to `limit` of each source."""
    ends = db.execute(Q["event_ends"]).fetchone()
    present = present_cursor(ends)
    if after is None:
        return EventPage(events=(), cursor=present)
    if after.is_ahead_of(present) or after.lanes < ends["removed"]:
        return EventPage(events=(), cursor=after, lost=True)
    sources = []
    for name, span in statements(after, present):
        rows = db.execute(Q[name], {**span, "limit": limit}).fetchall()
        sources.append(read_source(name, rows, after, limit))
    return merge_sources(sources, after)


def read_stats(db: sqlite3.Connection, minutes: int, among: Collection[str] | None, now: float) -> Stats:
    """How much happened in the last minutes."""
    this = int(now // 60)
    names = None if among is None else msgspec.json.encode(among).decode()
    rows = db.execute(Q["stats"], {"after": this - minutes, "among": names})
    return Stats(now=this, minutes=tuple(MinuteCounts(**row) for row in rows))


def forget(db: sqlite3.Connection, retention: Retention, now: float) -> bool:
    """Remove some old lane changes and counts; whether there may be more of them."""
    before = {"before": int(now // 60) - STATS_MINUTES, "limit": FORGET_STEP}
    removed = db.execute(Q["remove_counts"], before).rowcount
    if retention.seconds is not None:
        last = db.execute(Q["old_lane_change"], {"before": now - retention.seconds, "limit": FORGET_STEP}).fetchone()
        if last["number"] is not None:
            removed += db.execute(Q["remove_lane_changes"], last).rowcount
            db.execute(Q["mark_lane_change"], last)
    return removed >= FORGET_STEP

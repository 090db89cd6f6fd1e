"""Reading events and counts of the SQLite store. It has one writer, so rows become visible in the order of numbers."""

import sqlite3
from collections.abc import Collection

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
from ..records import Retention
from .connection import execute, rows, value


def read_events(db: sqlite3.Connection, after: EventCursor | None, limit: int) -> EventPage:
    """The events after a cursor, up to `limit` of each source."""
    (ends,) = rows(db, "event_ends")
    present = present_cursor(ends)
    if after is None:
        return EventPage(events=(), cursor=present)
    if after.is_ahead_of(present) or after.lanes < ends["removed"]:
        return EventPage(events=(), cursor=after, lost=True)
    sources = []
    for name, span in statements(after, present):
        sources.append(read_source(name, rows(db, name, **span, limit=limit), after, limit))
    return merge_sources(sources, after)


def read_stats(db: sqlite3.Connection, minutes: int, among: Collection[str] | None, now: float) -> Stats:
    """How much happened in the last minutes."""
    this = int(now // 60)
    counts = rows(db, "stats", after=this - minutes, among=None if among is None else list(among))
    return Stats(now=this, minutes=tuple(MinuteCounts(**each) for each in counts))


def forget(db: sqlite3.Connection, retention: Retention, now: float) -> bool:
    """Remove some old lane changes and counts; whether there may be more of them."""
    removed = execute(db, "remove_counts", before=int(now // 60) - STATS_MINUTES, limit=FORGET_STEP).rowcount
    if retention.seconds is not None:
        number = value(db, "old_lane_change", before=now - retention.seconds, limit=FORGET_STEP)
        if number is not None:
            removed += execute(db, "remove_lane_changes", number=number).rowcount
            execute(db, "mark_lane_change", number=number)
    return removed >= FORGET_STEP

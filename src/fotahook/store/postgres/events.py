"""Reading events and counts of the PostgreSQL store, where rows become visible in another order than their numbers.

A writer has a transaction before it draws a number, since it locks the lanes first. Once all transactions are over that
had begun when the last number was drawn, every row up to that number is visible, or was rolled back. Waiting for that
costs the writers nothing. A long write transaction of any client of the server delays events.
"""

from collections.abc import Collection
from typing import NamedTuple

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
from ..records import Retention
from .connection import Db, rows, value


class _Snapshot(NamedTuple):
    """The last numbers drawn at a moment, and a transaction that began after all that had drawn them."""

    cursor: EventCursor
    transaction: int


class VisibilityTracker:
    """Tracks up to which numbers every row is visible, for the readers of one process."""

    def __init__(self) -> None:
        self._visible = EventCursor()
        self._pending: _Snapshot | None = None

    async def visible(self, db: Db, present: EventCursor) -> EventCursor:
        """The numbers up to which a statement that begins now sees all rows; `present` has the last ones drawn."""
        if present == self._visible:
            return present
        if self._pending is None:
            self._pending = _Snapshot(present, await value(db, "next_transaction"))
        # Another reader may have been here meanwhile.
        pending = self._pending
        if await value(db, "oldest_transaction") > pending.transaction:
            self._visible = self._visible.merge(pending.cursor)
            self._pending = None
        return self._visible


async def read_events(db: Db, tracker: VisibilityTracker, after: EventCursor | None, limit: int) -> EventPage:
    """The events after a cursor, up to `limit` of each source. Each statement sees what was committed before it."""
    (ends,) = await rows(db, "event_ends")
    present = present_cursor(ends)
    if after is None:
        return EventPage(events=(), cursor=present)
    if after.is_ahead_of(present) or after.lanes < ends["removed"]:
        return EventPage(events=(), cursor=after, lost=True)
    visible = await tracker.visible(db, present)
    sources = []
    for name, span in statements(after, visible):
        sources.append(read_source(name, await rows(db, name, **span, limit=limit), after, limit))
    page = merge_sources(sources, after)
    return msgspec.structs.replace(page, more=page.more or visible != present)


async def read_stats(db: Db, minutes: int, among: Collection[str] | None) -> Stats:
    """How much happened in the last minutes."""
    now = await value(db, "this_minute")
    counts = await rows(db, "stats", minutes=minutes, among=None if among is None else list(among))
    return Stats(now=now, minutes=tuple(MinuteCounts(**each) for each in counts))


async def forget(db: Db, retention: Retention) -> bool:
    """Remove some old lane changes and counts; whether there may be more of them."""
    removed = len(await rows(db, "remove_counts", minutes=STATS_MINUTES, limit=FORGET_STEP))
    if retention.seconds is not None:
        number = await value(db, "old_lane_change", seconds=retention.seconds, limit=FORGET_STEP)
        if number is not None:
            removed += len(await rows(db, "remove_lane_changes", number=number))
            await rows(db, "mark_lane_change", number=number)
    return removed >= FORGET_STEP

"""The verbs of a store about events and counts, alike on every engine; old counts are thinned out."""

import heapq
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final

from fotahook.contract.events import (
    AttemptFinished,
    CallbackChanged,
    EventData,
    LaneChanged,
    MessageAccepted,
    MessageDead,
)

from .events import STATS_MINUTES, Backlog, Event, EventCursor, EventPage, MinuteCounts, Source, Stats
from .rows import Row, read
from .session import Engine, Session

STEP: Final = 1000
"""Rows that retention removes in one step, so that other writes do not wait long."""

AUDIT_SECONDS: Final = 400 * 24 * 3600.0
"""How long entries of the audit log are kept: a year, and time to look."""

_SOURCES: Final[Mapping[Source, tuple[str, type[EventData]]]] = {
    "messages": ("messages_accepted", MessageAccepted),
    "attempts": ("attempts_finished", AttemptFinished),
    "callbacks": ("callbacks_changed", CallbackChanged),
    "lanes": ("lanes_changed", LaneChanged),
}
"""The statement that reads each source, and what its rows become."""


class EventVerbs(Engine):
    """Base of the stores, for what happened and how often."""

    async def events(self, after: EventCursor | None, *, limit: int) -> EventPage:
        """Events after a cursor, up to `limit` of each source; for None, no events and a cursor at the present.

        An event appears once every earlier event of its source is visible.
        """
        return await self._read(lambda db: self._read_events(db, after, limit))

    async def stats(self, minutes: int, *, among: Collection[str] | None = None) -> Stats:
        """Counts for the last minutes, the current one included, of these accounts or of all."""

        async def job(db: Session) -> Stats:
            now = await db.value("this_minute")
            counts = await db.rows("stats", minutes=minutes, among=among)
            return Stats(now=now, minutes=tuple(read(MinuteCounts, each) for each in counts))

        return await self._look(job)

    async def backlog(self) -> Backlog:
        """Undelivered messages of the whole store."""
        return read(Backlog, *await self._look(lambda db: db.rows("backlog")))

    async def _visible(self, db: Session, present: EventCursor) -> EventCursor:
        """The cursor up to which every row is visible, given the one at the last row numbers drawn."""
        return present

    async def _read_events(self, db: Session, after: EventCursor | None, limit: int) -> EventPage:
        (ends,) = await db.rows("event_ends")
        present, removed = _cursor(ends, ""), _cursor(ends, "removed_")
        if after is None:
            return EventPage(events=(), cursor=present, removed=removed)
        if after.is_ahead_of(present) or removed.is_ahead_of(after):
            return EventPage(events=(), cursor=after, lost=True)
        last = await self._visible(db, present)
        sources: list[list[Event]] = []
        unfinished: list[Event] = []
        for (source, (statement, kind)), first, end in zip(
            _SOURCES.items(), _row_numbers(after), _row_numbers(last), strict=True
        ):
            if end > first:
                rows = await db.rows(statement, after=first, last=end, limit=limit)
                found = [event for row in rows for event in _read(source, kind, row)]
                sources.append([event for event in found if not after.covers(event)])
                if len(rows) == limit:
                    unfinished.append(sources[-1][-1])
        events = tuple(_by_time(sources, unfinished))
        return EventPage(events=events, cursor=after.advance(events), more=bool(unfinished) or last != present)


def _cursor(ends: Row, prefix: str) -> EventCursor:
    """The cursor after these numbers; an attempt has two positions."""
    messages, attempts, callbacks, lanes = (ends[prefix + name] for name in EventCursor.__struct_fields__)
    return EventCursor(messages, 2 * attempts + 1 if attempts else 0, callbacks, lanes)


def _row_numbers(cursor: EventCursor) -> tuple[int, int, int, int]:
    """The last row of each source that a cursor covers in full; an attempt has two positions."""
    return cursor.messages, (cursor.attempts - 1) // 2, cursor.callbacks, cursor.lanes


def _read(source: Source, kind: type[EventData], row: Row) -> list[Event]:
    """The events of a row. An attempt has two positions, so that a reader can stop between its end and the death of its
    message."""
    position, data = row["position"], read(kind, row)
    if source != "attempts":
        return [Event(source, position, data)]
    if row["state"] != "dead":
        return [Event(source, 2 * position + 1, data)]
    return [Event(source, 2 * position, data), Event(source, 2 * position + 1, read(MessageDead, row))]


def _by_time(sources: Sequence[Sequence[Event]], unfinished: Collection[Event]) -> Iterator[Event]:
    """The events of all sources by time, up to the first that an unread event might precede."""
    for event in heapq.merge(*sources, key=lambda event: event.data.at):
        yield event
        if any(event is last for last in unfinished):
            return


async def thin_out(db: Session, after: int, now: float) -> tuple[bool, int]:
    """Remove old counts and audit entries, and merge the next minute after one into its hour.

    Returns whether there may be more, and how far the minutes are merged.
    """
    this_minute = int(max(now, 0.0) // 60)
    removed = len(await db.rows("remove_counts", before=this_minute - STATS_MINUTES, limit=STEP))
    removed += len(await db.rows("remove_audit", before=now - AUDIT_SECONDS, limit=STEP))
    # Minutes are kept for this hour and the one before.
    fine = await db.row("next_fine_minute", after=after, before=(this_minute // 60 - 1) * 60)
    if fine is not None:
        await db.rows("merge_minute", minute=fine["minute"])
        await db.rows("drop_minute", minute=fine["minute"])
        after = fine["minute"]
    return removed >= STEP or fine is not None, after

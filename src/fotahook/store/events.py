"""Events of a store in one order, cursors that resume after any of them, and counts.

Events are not stored: they are read from the rows of messages, attempts, callback changes and lane changes. In each of
these four sources every event has a growing position, and a cursor holds one position for each source. So a cursor
skips nothing and repeats nothing, however the events of several sources interleave.
"""

import heapq
from collections.abc import Collection, Iterable, Mapping
from typing import Final, Literal, NamedTuple

import msgspec
from msgspec.structs import astuple, replace

from fotahook.contract import events
from fotahook.contract.events import EventData
from fotahook.contract.operator import Counts

from .records import Record
from .session import Engine, Session
from .views import Row, read

STATS_MINUTES: Final = 24 * 60
"""How long counts are kept: for each minute of this hour and the one before, for each hour before that."""

Source = Literal["messages", "attempts", "callbacks", "lanes"]


class EventCursor(msgspec.Struct, frozen=True):
    """The position of the last event read from each source."""

    messages: int = 0
    attempts: int = 0
    callbacks: int = 0
    lanes: int = 0

    def advance(self, events: "Iterable[Event]") -> "EventCursor":
        """The cursor after these events."""
        return replace(self, **{event.source: event.position for event in events})

    def before(self, events: int) -> "EventCursor":
        """The cursor before so many events of each source; lane changes are left out."""
        back = (events, 2 * events, events, 0)
        return EventCursor(*(max(0, position - by) for position, by in zip(astuple(self), back, strict=True)))

    def covers(self, event: "Event") -> bool:
        """Whether the event lies before this cursor."""
        position: int = getattr(self, event.source)
        return event.position <= position

    def merge(self, other: "EventCursor") -> "EventCursor":
        """The cursor that covers what either of two cursors covers."""
        return EventCursor(*map(max, astuple(self), astuple(other)))

    def is_ahead_of(self, other: "EventCursor") -> bool:
        """Whether it covers events that another cursor does not."""
        return self.merge(other) != other

    def rows(self) -> tuple[int, int, int, int]:
        """The last row of each source that it covers in full; an attempt has two positions."""
        return self.messages, (self.attempts - 1) // 2, self.callbacks, self.lanes


class Event(NamedTuple):
    """Something that happened, as the operator API has it, and its position in its source."""

    source: Source
    position: int
    data: EventData


class EventPage(Record, frozen=True, kw_only=True):
    """Some of the events after a cursor, and the cursor to go on from."""

    events: tuple[Event, ...]
    cursor: EventCursor
    removed: EventCursor = EventCursor()
    """What retention removed; told to those who have no cursor."""
    more: bool = False
    lost: bool = False
    """Whether the store was restored from a backup, or retention removed the events after the cursor."""


class Backlog(Record, frozen=True, kw_only=True):
    """Pending and dead deliveries of the whole store, and the age of the oldest pending message in seconds."""

    pending: int
    dead: int
    oldest_age: float | None


_SOURCES: Final[Mapping[Source, tuple[str, type[EventData]]]] = {
    "messages": ("messages_accepted", events.MessageAccepted),
    "attempts": ("attempts_finished", events.AttemptFinished),
    "callbacks": ("callbacks_changed", events.CallbackChanged),
    "lanes": ("lanes_changed", events.LaneChanged),
}


class EventVerbs(Engine):
    async def events(self, after: EventCursor | None, *, limit: int) -> EventPage:
        """Events after a cursor, up to `limit` of each source; for None, no events and a cursor at the present. An
        event appears once every earlier event of its source is visible."""
        return await self._run("read", lambda db: self._read_events(db, after, limit))

    async def stats(self, minutes: int, *, among: Collection[str] | None = None) -> tuple[int, Mapping[int, Counts]]:
        """The current minute since 1970, and counts of those of the last minutes in which something happened."""

        async def job(db: Session) -> tuple[int, Mapping[int, Counts]]:
            now, rows = await db.value("this_minute"), await db.rows("stats", minutes=minutes, among=among)
            return now, {each["minute"]: read(Counts, each) for each in rows}

        return await self._run("look", job)

    async def backlog(self) -> Backlog:
        return read(Backlog, *await self._run("look", lambda db: db.rows("backlog")))

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
        for (source, (statement, kind)), first, end in zip(_SOURCES.items(), after.rows(), last.rows(), strict=True):
            if end > first:
                rows = await db.rows(statement, after=first, last=end, limit=limit)
                found = [event for row in rows for event in _read(source, kind, row)]
                sources.append([event for event in found if not after.covers(event)])
                if len(rows) == limit:
                    unfinished.append(sources[-1][-1])
        events: list[Event] = []
        # By time, up to the first that an unread event might precede.
        for event in heapq.merge(*sources, key=lambda event: event.data.at):
            events.append(event)
            if any(event is last_read for last_read in unfinished):
                break
        return EventPage(events=tuple(events), cursor=after.advance(events), more=bool(unfinished) or last != present)


def _cursor(ends: Row, prefix: str) -> EventCursor:
    """The cursor after these numbers."""
    messages, attempts, callbacks, lanes = (ends[prefix + name] for name in EventCursor.__struct_fields__)
    return EventCursor(messages, 2 * attempts + 1 if attempts else 0, callbacks, lanes)


def _read(source: Source, kind: type[EventData], row: Row) -> list[Event]:
    """The events of a row. A reader can stop between the end of an attempt and the death of its message."""
    position, data = row["position"], read(kind, row)
    if source != "attempts":
        return [Event(source, position, data)]
    if row["state"] != "dead":
        return [Event(source, 2 * position + 1, data)]
    return [Event(source, 2 * position, data), Event(source, 2 * position + 1, read(events.MessageDead, row))]

"""Events of a store in one order, and cursors that resume after any of them.

Events are not stored: they are read from the rows of messages, attempts, callback changes and lane changes. In each of
these four sources every event has a growing position, and a cursor holds one position for each source. So a cursor
skips nothing and repeats nothing, however the events of several sources interleave.
"""

from collections.abc import Iterable
from typing import Final, Literal, NamedTuple

import msgspec

from fotahook.contract.events import EventData

from .records import Record

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
        return msgspec.structs.replace(self, **{event.source: event.position for event in events})

    def before(self, events: int) -> "EventCursor":
        """The cursor before so many events of each source; lane changes are left out."""
        back = (events, 2 * events, events, 0)
        return EventCursor(*(max(0, position - by) for position, by in zip(_positions(self), back, strict=True)))

    def covers(self, event: "Event") -> bool:
        """Whether the event lies before this cursor."""
        position: int = getattr(self, event.source)
        return event.position <= position

    def merge(self, other: "EventCursor") -> "EventCursor":
        """The cursor that covers what either of two cursors covers."""
        return EventCursor(*map(max, _positions(self), _positions(other)))

    def is_ahead_of(self, other: "EventCursor") -> bool:
        """Whether it covers events that another cursor does not."""
        return any(mine > theirs for mine, theirs in zip(_positions(self), _positions(other), strict=True))


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
    """Whether there is more to read now."""
    lost: bool = False
    """Whether the cursor is invalid: the store was restored from a backup, or retention removed the events after it."""


class MinuteCounts(Record, frozen=True, kw_only=True):
    """Counts of one minute: messages accepted, deliveries delivered and dead, attempts failed."""

    minute: int
    """Minutes since 1970."""
    accepted: int
    delivered: int
    failed: int
    dead: int


class Stats(Record, frozen=True, kw_only=True):
    """The minutes in which something happened, oldest first, and the current minute."""

    now: int
    minutes: tuple[MinuteCounts, ...]


class Backlog(Record, frozen=True, kw_only=True):
    """Pending and dead deliveries of the whole store, and the age of the oldest pending message in seconds."""

    pending: int
    dead: int
    oldest_age: float | None


_positions = msgspec.structs.astuple

"""Events of a store in one order, and cursors that resume after any of them.

Events are not stored: they are read from the rows of messages, attempts, callback changes and lane changes. In each of
these four sources every event has a growing position, and a cursor holds one position for each source. So a cursor
skips nothing and repeats nothing, however the events of several sources interleave.
"""

from collections.abc import Iterable
from typing import ClassVar, Final, Literal

import msgspec

from .records import DeliveryState, LaneState, Record

STATS_MINUTES: Final = 24 * 60
"""How long counts are kept: for each minute of this hour and the one before, for each hour before that."""


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
        return EventCursor(
            max(0, self.messages - events),
            max(0, self.attempts - 2 * events),
            max(0, self.callbacks - events),
            self.lanes,
        )

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


class Event(Record, frozen=True, kw_only=True):
    """Something that happened to an account, at a time of the store's clock."""

    source: ClassVar[Literal["messages", "attempts", "callbacks", "lanes"]]
    position: int
    at: float
    account: str


class MessageAccepted(Event, frozen=True, kw_only=True):
    """A message was stored; a duplicate is no event."""

    source = "messages"
    message: str
    type: str | None
    ordering_key: str | None
    size: int


class AttemptFinished(Event, frozen=True, kw_only=True):
    """An attempt was settled. `number` counts the attempts at the message; `state` is that of its delivery then."""

    source = "attempts"
    message: str
    consumer: str
    number: int
    started_at: float
    url: str | None
    outcome: str
    status: int | None
    error_code: str | None
    milliseconds: float | None
    state: DeliveryState


class MessageDead(Event, frozen=True, kw_only=True):
    """A delivery was given up after the attempt that precedes this event."""

    source = "attempts"
    message: str
    consumer: str
    error_code: str | None


class CallbackChanged(Event, frozen=True, kw_only=True):
    """A callback was registered, replaced (there was one `before`) or, without a `url`, deregistered."""

    source = "callbacks"
    url: str | None
    before: bool
    actor: str
    revision: int


class LaneChanged(Event, frozen=True, kw_only=True):
    """A lane changed its state. It is waiting from the first failure of its endpoint to the next success."""

    source = "lanes"
    consumer: str
    state: LaneState
    until: float | None
    """When the endpoint is tried again for the first time."""
    reason: str | None


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


class StateCounts(Record, frozen=True, kw_only=True):
    """How many accounts are in each state, and how many need attention."""

    open: int
    waiting: int
    held: int
    paused: int
    trouble: int


class Backlog(Record, frozen=True, kw_only=True):
    """Pending and dead deliveries of the whole store, and the age of the oldest pending message in seconds."""

    pending: int
    dead: int
    oldest_age: float | None


_positions = msgspec.structs.astuple

"""Events of a store in one order, and cursors that resume after any of them.

Events are not stored: they are read from the rows of messages, attempts, callback changes and lane changes. In each of
these four sources every event has a growing position, and a cursor holds one position for each source. So a cursor
skips nothing and repeats nothing, however the events of several sources interleave.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final, Literal

import msgspec

from .records import DeliveryState, LaneState, Record

STATS_MINUTES: Final = 24 * 60
"""How long the counts of each minute are kept."""
FORGET_STEP: Final = 1000
"""Rows that retention removes in one step, so that other writes do not wait long."""


class EventCursor(msgspec.Struct, frozen=True):
    """The position of the last event read from each source."""

    messages: int = 0
    attempts: int = 0
    callbacks: int = 0
    lanes: int = 0

    def advance(self, events: "Iterable[Event]") -> "EventCursor":
        """The cursor after these events."""
        return msgspec.structs.replace(self, **{event.source: event.position for event in events})

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


class EventSource(msgspec.Struct, frozen=True):
    """Events of one source by position; `more`: there are others after them."""

    events: Sequence[Event]
    more: bool


def present_cursor(ends: Mapping[str, int]) -> EventCursor:
    """The cursor after every event so far, by the last row number of each source."""
    return EventCursor(ends["messages"], 2 * ends["attempts"] + 1, ends["callbacks"], ends["lanes"])


def statements(after: EventCursor, last: EventCursor) -> Iterator[tuple[str, dict[str, int]]]:
    """The names of the statements that read the events after a cursor, with the row numbers to read.

    Rows are those with numbers above `after`, up to `last`. Sources without new events are left out.
    """
    if last.messages > after.messages:
        yield "messages_accepted", {"after": after.messages, "last": last.messages}
    if last.attempts > after.attempts:
        # An attempt has two positions: the row is read again if only the first of them was read.
        yield "attempts_finished", {"after": (after.attempts + 1) // 2 - 1, "last": last.attempts // 2}
    if last.callbacks > after.callbacks:
        yield "callbacks_changed", {"after": after.callbacks, "last": last.callbacks}
    if last.lanes > after.lanes:
        yield "lanes_changed", {"after": after.lanes, "last": last.lanes}


def read_source(statement: str, rows: Sequence[Mapping[str, Any]], after: EventCursor, limit: int) -> EventSource:
    """The events after a cursor in the rows that a statement found."""
    events: Iterable[Event]
    match statement:
        case "messages_accepted":
            events = (MessageAccepted(**row) for row in rows)
        case "attempts_finished":
            events = (event for row in rows for event in _attempt_events(dict(row), after.attempts))
        case "callbacks_changed":
            events = (CallbackChanged(**dict(row) | {"before": bool(row["before"])}) for row in rows)
        case _:
            events = (LaneChanged(**row) for row in rows)
    return EventSource(list(events), len(rows) == limit)


def _attempt_events(row: dict[str, Any], after: int) -> Iterator[Event]:
    """The events of an attempt after a position: that it finished, and that its message is dead.

    They have two positions, so that a reader can stop between them.
    """
    number, phases = row.pop("number"), msgspec.json.decode(row.pop("phases"))
    row |= {"number": row.pop("ordinal"), "milliseconds": phases.get("total")}
    first, last = 2 * number, 2 * number + 1
    finished = AttemptFinished(position=first if row["state"] == "dead" else last, **row)
    if finished.position > after:
        yield finished
    if finished.position == first:
        yield MessageDead(position=last, **{name: row[name] for name in _DEAD})


def merge_sources(sources: Sequence[EventSource], after: EventCursor) -> EventPage:
    """The events of all sources by time, up to the first that an unread event might precede."""
    events = tuple(_by_time(sources))
    return EventPage(events=events, cursor=after.advance(events), more=any(source.more for source in sources))


def _by_time(sources: Sequence[EventSource]) -> Iterator[Event]:
    waiting = [(iter(source.events), source.more) for source in sources]
    heads = [(next(events, None), events, more) for events, more in waiting]
    while True:
        # A source that is used up but has more rows: any of these may come next.
        if any(head is None and more for head, _, more in heads):
            return
        known = [(head.at, place) for place, (head, *_) in enumerate(heads) if head is not None]
        if not known:
            return
        _, place = min(known)
        head, events, more = heads[place]
        assert head is not None
        yield head
        heads[place] = (next(events, None), events, more)


_DEAD: Final = ("at", "account", "message", "consumer", "error_code")
_positions = msgspec.structs.astuple

"""Reads events and counts from the rows of a store, and removes old ones."""

import heapq
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec

from .events import (
    STATS_MINUTES,
    AttemptFinished,
    CallbackChanged,
    Event,
    EventCursor,
    EventPage,
    LaneChanged,
    MessageAccepted,
    MessageDead,
    MinuteCounts,
    Stats,
)
from .records import Retention
from .session import Row, Session

STEP: Final = 1000
"""Rows that retention removes in one step, so that other writes do not wait long."""

AUDIT_SECONDS: Final = 400 * 24 * 3600.0
"""How long entries of the audit log are kept: a year, and time to look."""

_STATEMENTS: Final = ("messages_accepted", "attempts_finished", "callbacks_changed", "lanes_changed")


async def read_events(
    db: Session, after: EventCursor | None, limit: int, visible: Callable[[EventCursor], Awaitable[EventCursor]]
) -> EventPage:
    """The events after a cursor, up to `limit` of each source.

    `visible` returns the cursor up to which every row is visible, given the one at the last row numbers drawn.
    """
    (ends,) = await db.rows("event_ends")
    present = EventCursor(ends["messages"], 2 * ends["attempts"] + 1, ends["callbacks"], ends["lanes"])
    if after is None:
        return EventPage(events=(), cursor=present)
    if after.is_ahead_of(present) or after.lanes < ends["removed"]:
        return EventPage(events=(), cursor=after, lost=True)
    last = await visible(present)
    sources: list[list[Event]] = []
    unfinished: list[Event] = []
    for statement, first_row, last_row in zip(_STATEMENTS, _row_numbers(after), _row_numbers(last), strict=True):
        if last_row > first_row:
            rows = await db.rows(statement, after=first_row, last=last_row, limit=limit)
            sources.append(list(_read_source(statement, rows, after)))
            if len(rows) == limit:
                unfinished.append(sources[-1][-1])
    events = tuple(_by_time(sources, unfinished))
    return EventPage(events=events, cursor=after.advance(events), more=bool(unfinished) or last != present)


def _row_numbers(cursor: EventCursor) -> tuple[int, int, int, int]:
    """The last row of each source that a cursor covers in full; an attempt has two positions."""
    return cursor.messages, (cursor.attempts - 1) // 2, cursor.callbacks, cursor.lanes


def _read_source(statement: str, rows: Sequence[Row], after: EventCursor) -> Iterable[Event]:
    match statement:
        case "messages_accepted":
            return (MessageAccepted(**row) for row in rows)
        case "attempts_finished":
            return (event for row in rows for event in _attempt_events(dict(row), after.attempts))
        case "callbacks_changed":
            return (CallbackChanged(**dict(row) | {"before": bool(row["before"])}) for row in rows)
        case _:
            return (LaneChanged(**row) for row in rows)


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


def _by_time(sources: Sequence[Sequence[Event]], unfinished: Collection[Event]) -> Iterator[Event]:
    """The events of all sources by time, up to the first that an unread event might precede."""
    for event in heapq.merge(*sources, key=lambda event: event.at):
        yield event
        if any(event is last for last in unfinished):
            return


async def read_stats(db: Session, minutes: int, among: Collection[str] | None) -> Stats:
    """How much happened in the last minutes."""
    now = await db.value("this_minute")
    counts = await db.rows("stats", minutes=minutes, among=None if among is None else list(among))
    return Stats(now=now, minutes=tuple(MinuteCounts(**each) for each in counts))


async def forget(db: Session, retention: Retention) -> bool:
    """Remove some old lane changes, counts and audit entries; whether there may be more of them."""
    removed = len(await db.rows("remove_counts", minutes=STATS_MINUTES, limit=STEP))
    removed += len(await db.rows("remove_audit", seconds=AUDIT_SECONDS, limit=STEP))
    if retention.seconds is not None:
        number = await db.value("old_lane_change", seconds=retention.seconds, limit=STEP)
        if number is not None:
            removed += len(await db.rows("remove_lane_changes", number=number))
            await db.rows("mark_lane_change", number=number)
    return removed >= STEP


_DEAD: Final = ("at", "account", "message", "consumer", "error_code")

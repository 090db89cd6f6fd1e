"""Reads events and counts from the rows of a store, and thins out old counts."""

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
    present, removed = _cursor(ends, ""), _cursor(ends, "removed_")
    if after is None:
        return EventPage(events=(), cursor=present, removed=removed)
    if after.is_ahead_of(present) or removed.is_ahead_of(after):
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


def _cursor(ends: Row, prefix: str) -> EventCursor:
    """The cursor after these numbers; an attempt has two positions."""
    messages, attempts, callbacks, lanes = (ends[prefix + name] for name in EventCursor.__struct_fields__)
    return EventCursor(messages, 2 * attempts + 1 if attempts else 0, callbacks, lanes)


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


_DEAD: Final = ("at", "account", "message", "consumer", "error_code")

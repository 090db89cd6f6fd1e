"""What happened, read from the PostgreSQL store, where rows may be seen in another order than that of their numbers.

Whoever writes has a transaction before he draws a number: the lanes are locked first. So once all transactions are over
that had begun when the numbers up to one were drawn, every row up to that number can be seen, or never will be. That
costs those who write nothing. A transaction of anybody on the server that writes for long holds events back.
"""

from collections.abc import AsyncIterator, Collection, Iterator
from typing import Final, NamedTuple

import msgspec

from ..base import Retention
from ..events import (
    STATS_MINUTES,
    CallbackChanged,
    Counts,
    Events,
    Happened,
    LaneChanged,
    Mark,
    MessageAccepted,
    Source,
    Stats,
    attempt_events,
    merged,
    next_attempt,
)
from .connection import Db, Row, rows, value

STEP: Final = 1000
"""Rows that are removed at once, so that nothing waits long behind them."""


class Drawn(NamedTuple):
    """The last numbers drawn at a moment, and a transaction that began later than all that had drawn them."""

    mark: Mark
    transaction: int


class Horizon:
    """Up to which numbers all is decided, as one process knows it."""

    def __init__(self) -> None:
        self._decided = Mark()
        self._awaited: Drawn | None = None

    async def look(self, db: Db, present: Mark) -> Mark:
        """The marks up to which all can be seen by a statement that begins now; `present` are the last ones drawn."""
        if present == self._decided:
            return present
        if self._awaited is None:
            self._awaited = Drawn(present, await value(db, "next_transaction"))
        # Another look may have been here meanwhile.
        awaited = self._awaited
        if await value(db, "oldest_transaction") > awaited.transaction:
            self._decided = self._decided.later(awaited.mark)
            self._awaited = None
        return self._decided


async def read_events(db: Db, horizon: Horizon, after: Mark | None, limit: int) -> Events:
    """Up to `limit` of each source behind a mark. Each statement sees what was committed before it."""
    ends = dict((await rows(db, "event_ends"))[0])
    removed = ends.pop("removed")
    present = Mark(**ends | {"attempts": 2 * ends["attempts"] + 1})
    if after is None:
        return Events(happened=(), mark=present)
    if after.exceeds(present) or after.lanes < removed:
        return Events(happened=(), mark=after, lost=True)
    last = await horizon.look(db, present)
    found = merged([source async for source in _sources(db, after, last, limit)], after)
    return msgspec.structs.replace(found, more=found.more or last != present)


async def _sources(db: Db, after: Mark, last: Mark, limit: int) -> AsyncIterator[Source]:
    """Those in which something may have happened; the others cost no round trip."""
    if last.messages > after.messages:
        found = await rows(db, "messages_accepted", after=after.messages, last=last.messages, limit=limit)
        yield Source([MessageAccepted(**row) for row in found], len(found) == limit)
    if last.attempts > after.attempts:
        span = {"first": next_attempt(after), "last": last.attempts // 2}
        found = await rows(db, "attempts_finished", **span, limit=limit)
        yield Source([event for row in found for event in _attempt(row, after)], len(found) == limit)
    if last.callbacks > after.callbacks:
        found = await rows(db, "callbacks_changed", after=after.callbacks, last=last.callbacks, limit=limit)
        yield Source([CallbackChanged(**row) for row in found], len(found) == limit)
    if last.lanes > after.lanes:
        found = await rows(db, "lanes_changed", after=after.lanes, last=last.lanes, limit=limit)
        yield Source([LaneChanged(**row) for row in found], len(found) == limit)


async def read_stats(db: Db, minutes: int, among: Collection[str] | None) -> Stats:
    """How much happened in the last minutes."""
    now = await value(db, "this_minute")
    names = None if among is None else list(among)
    return Stats(now=now, minutes=tuple(Counts(**row) for row in await rows(db, "stats", minutes=minutes, among=names)))


async def forget(db: Db, retention: Retention) -> bool:
    """Remove some old lane changes and counts; whether there may be more of them."""
    removed = len(await rows(db, "remove_counts", minutes=STATS_MINUTES, limit=STEP))
    if retention.seconds is not None:
        number = await value(db, "old_lane_change", seconds=retention.seconds, limit=STEP)
        if number is not None:
            removed += len(await rows(db, "remove_lane_changes", number=number))
            await rows(db, "mark_lane_change", number=number)
    return removed >= STEP


def _attempt(row: Row, after: Mark) -> Iterator[Happened]:
    facts = dict(row)
    number, phases = facts.pop("number"), msgspec.json.decode(facts.pop("phases"))
    facts |= {"number": facts.pop("ordinal"), "milliseconds": phases.get("total")}
    return attempt_events(number, facts, after.attempts)

"""Sessions of the SQLite store: shared transactions, run to their end by the thread that calls them."""

import sqlite3
from collections.abc import Collection, Coroutine, Sequence, Set
from itertools import chain
from typing import Any, TypeVar

from ..session import LaneName, ReportRow, Row, Session
from .connection import execute, run_rows

T = TypeVar("T")


class SqliteSession(Session):
    """A Session on one connection, at one time of the store's clock. None of its methods suspends its caller."""

    def __init__(self, connection: sqlite3.Connection, now: float) -> None:
        self.connection = connection
        self.now = now

    async def rows(self, statement: str, **values: object) -> Sequence[Row]:
        return execute(self.connection, statement, now=self.now, **values).fetchall()

    async def lock_lanes(
        self, names: Set[LaneName], ids: Collection[int] = (), *, create: bool = True
    ) -> Sequence[Row]:
        """Only creates them: a write transaction has the whole file locked."""
        if create:
            execute(self.connection, "add_lanes", lanes=sorted(names), now=self.now)
        return ()

    async def redeliver(self, seqs: Sequence[int], state: str | None) -> int:
        settled = await self.rows("settled_messages", seqs=seqs)
        for message in settled:
            place = await self.value("next_place")
            moved = await self.rows("redeliver", seq=message["seq"], state=state, place=place)
            await self.rows("raise_dead", seq=message["seq"])
            execute(self.connection, "make_due", lanes=[delivery["lane"] for delivery in moved])
        return len(settled)

    async def record_reports(self, rows: Sequence[ReportRow]) -> Sequence[Row]:
        now = self.now
        timed = [(*row, row[5], now) for row in rows]
        # A row that is repeated changes nothing.
        written = run_rows(self.connection, "record_reports", timed, repeat_last=True)
        if sum(cursor.rowcount for cursor in written) == len(rows):
            return ()
        return list(chain.from_iterable(run_rows(self.connection, "stale_reports", [row[:3] for row in rows])))


def run_to_end(job: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never suspends, outside an event loop."""
    try:
        job.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    job.close()
    raise RuntimeError("a transaction of the SQLite store waited for something else than the store")

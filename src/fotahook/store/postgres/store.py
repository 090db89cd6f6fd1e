"""The store on a PostgreSQL server, for any number of processes that accept and dispatch side by side."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar, cast

from .. import records
from ..base import Clock, FetchRequest, Store
from ..events import EventCursor, EventPage
from ..rows import Row, read_lease, read_note
from ..session import Session
from ..transaction import Connection, Transaction
from .connection import ConnectionPool
from .days import Days
from .lease_horizon import LeaseHorizon
from .notify import Notifier
from .schema import check_schema, create_or_check
from .session import STATEMENTS, PostgresSession
from .visibility import VisibilityTracker

T = TypeVar("T")


class PostgresStore(Store):
    """A Store on a PostgreSQL server, in the schema of the connection's search path. Make one with ``open``.

    Its clock is the server's. A call that fails because the connection was lost may have been written all the same.
    """

    has_many_dispatchers = True

    def __init__(self, pool: ConnectionPool, *, clock: Clock) -> None:
        super().__init__(clock)
        self._pool = pool
        self._notifier = Notifier(pool.connect_for_notifications, self._work)
        # Most connections stay free for reads that are short.
        self._looking = asyncio.Semaphore(1)
        self._visibility = VisibilityTracker()
        self._horizon = LeaseHorizon(time.monotonic)
        self._days = Days(lambda statement, **values: self._write(lambda db: db.rows(statement, **values)))

    @classmethod
    async def open(cls, url: str, *, clock: Clock = time.time) -> "PostgresStore":
        """The store at ``postgresql://…``, created if its schema is empty; `clock` is for the time in message ids.

        ValueError if it is no such URL; StoreUnavailable says what is wrong with the server.
        """
        pool = ConnectionPool(url)
        try:
            await pool.open()
            async with pool.connection() as db:
                await create_or_check(db, pool.public_url)
        except BaseException:
            await pool.close()
            raise
        return cls(pool, clock=clock)

    async def check(self) -> None:
        async with self._pool.connection() as db:
            await check_schema(db, self._pool.public_url)
        await super().check()

    async def close(self) -> None:
        await super().close()
        await self._notifier.close()
        await self._pool.close()

    async def _query(self, statement: str, **values: object) -> Sequence[Row]:
        # No text in PostgreSQL has a NUL, so nothing is found by one that a stranger asks for.
        if any(isinstance(value, str) and "\0" in value for value in values.values()):
            return []
        async with self._pool.connection() as db:
            return await PostgresSession(db).rows(statement, **values)

    async def _read(self, job: Callable[[Session], Awaitable[T]]) -> T:
        return await self._pool.read(lambda db: job(PostgresSession(db)))

    async def _look(self, job: Callable[[Session], Awaitable[T]]) -> T:
        async with self._looking:
            return await self._read(job)

    async def now(self) -> float:
        return cast("float", (await self._query("now"))[0]["now"])

    def _due_since(self) -> float:
        return self._horizon.since()

    async def _transact(self, job: Callable[[Session], Awaitable[T]]) -> T:
        return await self._pool.write(lambda db: job(PostgresSession(db)))

    async def _drop_day(self, retention: records.Retention, excess: int, now: float) -> records.Pruned | None:
        await self._days.make(now)
        return await self._days.drop(retention, excess, now)

    def _notify(self) -> None:
        self._notifier.notify()

    async def events(self, after: EventCursor | None, *, limit: int) -> EventPage:
        # Not in one transaction: each statement must see what was committed before it.
        async with self._pool.connection() as connection:
            return await self._read_events(PostgresSession(connection), after, limit)

    async def _visible(self, db: Session, present: EventCursor) -> EventCursor:
        return await self._visibility.visible(db, present)

    async def lease(self, limit: int, seconds: float) -> list[records.Lease]:
        since = self._horizon.since()
        found = await self._query("lease", limit=limit, seconds=seconds, since=since)
        taken = [each for each in found if each["lane"] is not None]
        missed = found[0]["late"] - sum(each["was_late"] for each in taken)
        # A search for nothing says nothing.
        if missed == 0 and limit > 0:
            now = found[0]["now"]
            self._horizon.looked(now, taken[-1]["next"] if len(taken) == limit else now)
        leases = [read_lease(each) for each in taken]
        if missed > 0 and len(leases) < limit:
            # The lanes leased already must be served even if this fails: the others stay due.
            with contextlib.suppress(records.StoreUnavailable):
                late = await self._query("lease_late", limit=limit - len(leases), seconds=seconds, since=since)
                leases += [read_lease(each) for each in late]
        return leases

    async def _fetch(self, requests: Sequence[FetchRequest]) -> list[list[records.Delivery]]:
        found: list[list[records.Delivery]] = [[] for _ in requests]
        asked = [
            (lease.lane, limit, max_bytes, f"{{{','.join(map(str, without))}}}")
            for lease, limit, without, max_bytes in requests
        ]
        async with self._pool.connection() as db:
            rows = await PostgresSession(db).bulk("fetch", asked)
        for row in rows:
            values = dict(row)
            number, note = values.pop("number"), read_note(values.pop("note"))
            found[number - 1].append(records.Delivery(note=note, **values))
        return found

    def transaction(self, delivery: records.Delivery) -> Transaction:
        async def mark(connection: Connection) -> bool:
            statement = STATEMENTS["mark_handled"].sql
            return await connection.fetchval(statement, delivery.lane, delivery.seq) is not None

        # An asyncpg.Record reads like a mapping, and is none for type checkers.
        connect = cast(
            "Callable[[], contextlib.AbstractAsyncContextManager[Connection]]", self._pool.handler_connection
        )
        return Transaction(connect, mark)

"""The store on a PostgreSQL server, for any number of processes that accept and dispatch side by side."""

import asyncio
import contextlib
import math
import re
import time
from collections import Counter
from collections.abc import Collection, Sequence
from operator import methodcaller
from typing import Final, TypeVar, cast

from fotahook.contract.messages import FINAL_RANK

from .. import records
from ..base import Clock, FetchRequest, Store
from ..events import EventCursor, EventPage
from ..session import Added, Candidate, How, Job, ReportRow, Session
from ..sql import load_queries
from ..transaction import Transaction
from ..views import Row, read_lease, read_note
from .connection import ConnectionPool, Notifier, TransactionRolledBack, check_schema
from .servers import Db

T = TypeVar("T")

DAY: Final = 86400
AHEAD: Final = 7
"""Days that have partitions before they begin. Rows of a day without one are in the default partition."""
BUSY_SECONDS: Final = 10.0
"""Pause after a lock was not to be had: while it is waited for, accepting and settling wait behind it."""
TRANSACTION_TRIES: Final = 4
MARGIN_SECONDS: Final = 2.0
SWEEP_SECONDS: Final = 10.0
SWEEP_LANES: Final = 10_000
"""So often, so many lanes are looked through for one that is due before the search for due lanes begins."""

_PARAMETER = re.compile("(?<!:):([a-z_]+)")


def number_parameters(sql: str) -> tuple[str, list[str]]:
    """A statement in which ``:name`` is ``$1`` and so on, and the names; ``::type`` stays a cast."""
    names = list(dict.fromkeys(_PARAMETER.findall(sql)))
    return _PARAMETER.sub(lambda match: f"${names.index(match[1]) + 1}", sql), names


STATEMENTS: Final = {name: number_parameters(sql) for name, sql in load_queries("postgres").items()}


class PostgresSession(Session):
    def __init__(self, connection: Db) -> None:
        self.connection = connection

    async def rows(self, statement: str, **values: object) -> list[Row]:
        sql, names = STATEMENTS[statement]
        # An asyncpg.Record reads like a mapping, and is none for type checkers.
        return cast("list[Row]", await self.connection.fetch(sql, *[values[name] for name in names]))

    async def bulk(self, statement: str, rows: Sequence[Sequence[object]], **more: object) -> list[Row]:
        """Each column is an array; these are the first parameters, `more` the others."""
        columns = dict(zip(STATEMENTS[statement][1], zip(*rows, strict=True), strict=False))
        return await self.rows(statement, **columns, **more) if rows else []

    async def add_messages(self, given: Sequence[Candidate]) -> Added:
        windowed = [(each.key, window) for each in given if (window := each.message.idempotency_window) is not None]
        await self.bulk("forget_keys", [(*key, window) for key, window in windowed if key is not None])
        columns = [
            (each.id, one.account, one.type, one.ordering_key, one.idempotency_key, one.body, each.digest)
            for each in given
            for one in (each.message,)
        ]
        stored = await self.bulk("add_messages", columns)
        numbers = {row["id"]: row["seq"] for row in stored}
        times = Counter(each.key for each in given if each.key is not None and each.id not in numbers)
        repeated = await self.bulk("count_duplicates", [(*key, count) for key, count in times.items()])
        known = {(row["account"], row["idempotency_key"]): (row["id"], row["sha256"]) for row in repeated}
        return numbers, stored[0]["accepted_at"] if stored else 0.0, known

    async def add_pending(
        self, rows: Sequence[tuple[int, int, str | None]], taken: Collection[int], seconds: float
    ) -> list[Row]:
        return await self.bulk("add_pending", rows, taken=taken, seconds=seconds)

    async def redeliver(self, seqs: Sequence[int], state: str | None) -> int:
        await self.rows("hold_days")
        lanes = await self.rows("lanes_of_messages", seqs=seqs)
        await self.lock_lanes(set(), [lane["lane"] for lane in lanes])
        await self.rows("lock_messages", seqs=seqs)
        return int(await self.value("redeliver", seqs=seqs, state=state))

    async def record_reports(self, rows: Sequence[ReportRow]) -> list[Row]:
        # Transactions that lock rows in one order never wait for each other in a circle.
        in_order = sorted(rows, key=lambda row: row[1:3])
        return await self.bulk("record_reports", in_order, final=FINAL_RANK)


class PostgresStore(Store):
    """A Store on a PostgreSQL server, by its clock, in the schema of the search path. Make one with ``open``. A call
    that loses the connection may have written all the same. A long write transaction of any client delays events."""

    has_many_dispatchers = True

    def __init__(self, pool: ConnectionPool, *, clock: Clock) -> None:
        super().__init__(clock)
        self._pool = pool
        self._notifier = Notifier(pool, self._work)
        self._looking = asyncio.Semaphore(1)
        self._all_visible = EventCursor()
        self._drawn: tuple[EventCursor, int] | None = None
        """The last numbers drawn at a moment, and a transaction that began after all that had drawn them."""
        self._horizon = LeaseHorizon()
        self._due_since = self._horizon.since
        self._sweep_at = time.monotonic() + SWEEP_SECONDS
        self._swept: Row = {"account": "", "consumer": ""}
        self._made = -1.0
        self._kept_from = {"bodies": -math.inf, "attempts": -math.inf}
        self._left: set[tuple[str, int]] = set()
        """Days that hold too much that is needed, or fail to be dropped: their rows are removed one by one."""

    @classmethod
    async def open(cls, url: str, *, clock: Clock = time.time) -> "PostgresStore":
        """The store at ``postgresql://…``, created if its schema is empty; `clock` is for the time in message ids."""
        pool = ConnectionPool(url)
        try:
            await pool.open()
            async with pool.connection() as db:
                await check_schema(db, pool.public_url, create=True)
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

    async def _run(self, how: How, job: Job[T]) -> T:
        # Most connections stay free for reads that are short.
        async with self._looking if how == "look" else contextlib.nullcontext():
            is_write, tries = how == "write", 0
            while True:
                tries += 1
                try:
                    async with (
                        self._pool.connection() as db,
                        db.transaction(isolation=None if is_write else "repeatable_read", readonly=not is_write),
                    ):
                        return await job(PostgresSession(db))
                except TransactionRolledBack:
                    if tries >= TRANSACTION_TRIES:
                        raise

    async def now(self) -> float:
        return cast("float", (await self._query("now"))[0]["now"])

    async def _make_days(self, now: float) -> None:
        """Make the partitions of today and of the next days, by the server's clock: once a day, and at a first -inf."""
        if (day := max(now, 0.0) // DAY) != self._made:
            if await self._write(lambda db: db.value("make_days", ahead=AHEAD)):
                self._made = day
            else:
                await asyncio.sleep(BUSY_SECONDS)

    async def _drop_day(self, retention: records.Retention, excess: int, now: float) -> records.Pruned | None:
        """Drop the oldest day that is older than what is kept, or no larger than `excess`, but what is needed of it."""
        await self._make_days(now)
        bodies = math.inf if retention.seconds is None else retention.seconds
        attempts = math.inf if retention.attempts is None else max(retention.attempts, bodies)
        for parent, age, most in (("bodies", bodies, excess), ("attempts", attempts, 0)):
            # Not a number, which is no later than any day, if nothing is old.
            kept_from = (now - age) // DAY
            if not (kept_from > self._kept_from[parent] or most > 0):
                continue
            for each in await self._query("days", parent=parent):
                day = each["day"]
                is_small = each["bytes"] <= most and day < now // DAY
                if (day < kept_from or is_small) and (parent, day) not in self._left:
                    # One that fails, as one that takes too long, is not tried again today.
                    self._left.add((parent, day))
                    drop = methodcaller("rows", "drop_day", parent=parent, day=day, before=float(kept_from * DAY))
                    (found,) = await self._write(drop)
                    if found["busy"]:
                        self._left.remove((parent, day))
                        await asyncio.sleep(BUSY_SECONDS)
                        return records.Pruned(bodies=0, bytes=0, more=True)
                    if found["dropped"]:
                        bodies = found["dropped"] if parent == "bodies" else 0
                        return records.Pruned(bodies=bodies, bytes=found["bytes"], more=True)
            if kept_from > self._kept_from[parent]:
                self._kept_from[parent] = kept_from
                self._left = {left for left in self._left if left[0] != parent}
        return None

    def _notify(self) -> None:
        self._notifier.notify()

    async def events(self, after: EventCursor | None, *, limit: int) -> EventPage:
        # Not in one transaction: each statement must see what was committed before it.
        async with self._pool.connection() as connection:
            return await self._read_events(PostgresSession(connection), after, limit)

    async def _visible(self, db: Session, present: EventCursor) -> EventCursor:
        # Rows become visible in another order than that of their numbers. A writer has a transaction before it draws a
        # number, since it locks the lanes first. Once all transactions are over that had begun when the last number was
        # drawn, every row up to that number is visible, or was rolled back. Waiting for that costs the writers nothing.
        if present == self._all_visible:
            return present
        if self._drawn is None:
            self._drawn = present, await db.value("next_transaction")
        # Another reader may have been here meanwhile.
        drawn, transaction = self._drawn
        if await db.value("oldest_transaction") > transaction:
            self._all_visible = self._all_visible.merge(drawn)
            self._drawn = None
        return self._all_visible

    async def lease(self, limit: int, seconds: float) -> list[records.Lease]:
        if time.monotonic() >= self._sweep_at:
            self._sweep_at = time.monotonic() + SWEEP_SECONDS
            since = self._horizon.since()
            (self._swept,) = await self._query("sweep_lanes", since=since, limit=SWEEP_LANES, **self._swept)
            self._horizon.lower(self._swept["earliest"])
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
        # Of those in flight the text of an array.
        asked = [(lease.lane, limit, size, f"{{{','.join(map(str, seqs))}}}") for lease, limit, seqs, size in requests]
        async with self._pool.connection() as db:
            rows = await PostgresSession(db).bulk("fetch", asked)
        for row in rows:
            values = dict(row)
            number, note = values.pop("number"), read_note(values.pop("note"))
            found[number - 1].append(records.Delivery(note=note, **values))
        return found

    def transaction(self, delivery: records.Delivery) -> Transaction:
        statement = STATEMENTS["mark_handled"][0]
        return Transaction(self._pool.handler_connection, statement, delivery.lane, delivery.seq)


class LeaseHorizon:
    """Remembers up to when a process has leased everything that was due, which is where its search for more begins: it
    does not walk over what other snapshots keep of earlier leases. A write sets the time at which a lane is due no
    earlier than its transaction began. What a long one brings, or one while the clock was back, is found by a sweep."""

    def __init__(self) -> None:
        self._now = self._done_until = -math.inf

    def since(self) -> float:
        return self._done_until - MARGIN_SECONDS

    def looked(self, now: float, done_until: float) -> None:
        """A search at `now`, by the server's clock, has leased all that was due before `done_until`."""
        # A clock that went back writes earlier times than before.
        self._done_until = done_until if now >= self._now else -math.inf
        self._now = now

    def lower(self, due: float) -> None:
        """There is a lane that was due at this time."""
        self._done_until = min(self._done_until, due)

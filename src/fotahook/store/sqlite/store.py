"""The embedded store: one SQLite file in WAL mode, every commit synced, one dispatcher per file."""

import contextlib
import os
import sqlite3
import time
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Collection, Coroutine, Iterator, Mapping, Sequence
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import msgspec

from .. import records
from ..base import Clock, FetchRequest, Store
from ..session import Added, Candidate, How, Job, ReportRow, Session
from ..views import Row, read_lease, read_note
from .connection import Q, Worker, check_schema, connect, describe_error, execute, file_check, key_hash, lock_dispatcher

T = TypeVar("T")

ROWS_LIMIT: Final = 256
CHUNK_BYTES: Final = 256 << 10
"""Bodies in one statement, unless a single one is longer: SQLite keeps them in memory until it runs again."""
_ROW_COUNTS: Final = (*range(8, 65, 8), 128, 192, ROWS_LIMIT)
"""Numbers of rows that statements are prepared for; missing rows are filled with null."""
_FETCHED: Final = ("seq", "message", "type", "ordering_key", "accepted_at", "attempts", "strikes", "age")


class SqliteSession(Session):
    """A Session at one time of the store's clock, whose methods never suspend their caller. The writing thread competes
    with the event loop for Python's lock after each statement, so one does the work for all rows of a table."""

    def __init__(self, connection: sqlite3.Connection, now: float) -> None:
        self.connection, self.now = connection, now

    async def rows(self, statement: str, **values: object) -> Sequence[Row]:
        return execute(self.connection, statement, now=self.now, **values).fetchall()

    async def bulk(self, statement: str, rows: Sequence[Sequence[object]], *first: object) -> Sequence[Row]:
        """The rows are the statement's ``values``, `first` what it takes before them."""
        found: list[Row] = []
        for begin in range(0, len(rows), ROWS_LIMIT):
            part = rows[begin : begin + ROWS_LIMIT]
            width, count = len(part[0]), _ROW_COUNTS[bisect_left(_ROW_COUNTS, len(part))]
            values = (*first, *chain.from_iterable(part), *(None,) * (width * (count - len(part))))
            found += self.connection.execute(_statement(statement, width, count), values)
        return found

    async def add_messages(self, given: Sequence[Candidate]) -> Added:
        hashes = {key: key_hash(*key) for each in given if (key := each.key) is not None}
        known = await self._known(given, hashes) if hashes else {}
        first: int = await self.value("next_seq")
        new: list[Candidate] = []
        values: list[Sequence[object]] = []
        repeated: Counter[str] = Counter()
        for each in given:
            key, message = each.key, each.message
            if key is not None and (earlier := known.setdefault(key, (each.id, each.digest)))[0] != each.id:
                repeated[earlier[0]] += 1
                continue
            names = (each.id, message.account, message.type, message.ordering_key, message.idempotency_key)
            number = None if key is None else hashes[key]
            values.append((first + len(new), *names, number, len(message.body), each.digest, self.now))
            new.append(each)
        await self.bulk("add_messages", values)
        bodies = [(number, each.message.body) for number, each in enumerate(new, first)]
        step = max(1, CHUNK_BYTES // max((len(body) + 1 for _, body in bodies), default=1))
        for begin in range(0, len(bodies), step):
            await self.bulk("add_bodies", bodies[begin : begin + step])
        if repeated:
            await self.rows("count_duplicates", repeated=list(repeated.items()))
        return {each.id: number for number, each in enumerate(new, first)}, self.now, known

    async def _known(
        self, given: Sequence[Candidate], hashes: Mapping[tuple[str, str], int]
    ) -> dict[tuple[str, str], tuple[str, bytes]]:
        """Id and hash of the stored messages that these may duplicate; those whose window is over lose their key."""
        windows = {each.key: each.message.idempotency_window for each in given}
        known: dict[tuple[str, str], tuple[str, bytes]] = {}
        expired: list[str] = []
        for row in await self.bulk("known_messages", [(number,) for number in hashes.values()]):
            key = (row["account"], row["idempotency_key"])
            # Of another key only the hash is the same. A message of the future was accepted while the clock was ahead.
            if (window := windows.get(key)) is not None and abs(self.now - row["accepted_at"]) >= window:
                expired.append(row["id"])
            elif key in hashes:
                known[key] = row["id"], row["sha256"]
        if expired:
            await self.rows("forget_keys", ids=expired)
        return known

    async def add_pending(
        self, rows: Sequence[tuple[int, int, str | None]], taken: Collection[int], seconds: float
    ) -> Sequence[Row]:
        keys: set[tuple[int, str | None]] = set()
        values: list[Sequence[object]] = []
        for lane, number, key in rows:
            values.append((lane, number, key, key is None or (lane, key) not in keys, self.now))
            keys.add((lane, key))
        await self.bulk("add_pending", values)
        counts = Counter([lane for lane, _, _ in rows])
        await self.rows("count_accepted", counts=list(counts.items()))
        if others := [lane for lane in counts if lane not in taken]:
            await self.rows("make_due", lanes=others)
        if not taken:
            return ()
        await self.rows("take_lanes", lanes=taken, seconds=seconds)
        return await self.rows("leased_lanes", lanes=taken)

    async def settle(self, rows: Sequence[tuple[Any, ...]], keys: Sequence[tuple[int, str, int]]) -> None:
        put_off, dead, ended, attempts = (list[Sequence[object]]() for _ in range(4))
        counts: defaultdict[int, list[int]] = defaultdict(lambda: [0, 0, 0])
        for lane, seq, state, delay, charged, strikes, _, *attempt in rows:
            if state == "pending":
                put_off.append((lane, seq, self.now + delay, charged, strikes))
            else:
                ended.append((lane, seq))
            if state == "dead":
                dead.append((lane, seq, charged, self.now))
            attempts.append((seq, lane, *attempt, self.now, state, charged))
            outcome, count = attempt[2], counts[lane]
            count[0] += outcome == "delivered"
            count[1] += outcome == "failed"
            count[2] += state == "dead"
        steps = {"put_off": put_off, "bury": dead, "end_pending": ended, "add_attempts": attempts}
        for statement, values in steps.items():
            await self.bulk(statement, values)
        await self.rows("count_settled", counts=[(lane, *count) for lane, count in counts.items()])
        await self.bulk("promote", keys, self.now)

    async def keep_lanes(self, rows: Sequence[tuple[Any, ...]]) -> Sequence[Row]:
        kept = await self.rows("keep_lanes", verdicts=rows)
        leased = [lane for lane, _, keep, *_ in rows if keep > 0]
        leases = {row["lane"]: row for row in await self.rows("leased_lanes", lanes=leased)} if leased else {}
        return [{**leases.get(row["lane"], {}), **row} for row in kept]

    async def redeliver(self, seqs: Sequence[int], state: str | None) -> int:
        settled = await self.rows("settled_messages", seqs=seqs)
        for message in settled:
            moved = await self.rows("redeliver", seq=message["seq"], state=state, place=await self.value("next_place"))
            await self.rows("raise_dead", seq=message["seq"])
            await self.rows("make_due", lanes=[delivery["lane"] for delivery in moved])
        return len(settled)

    async def record_reports(self, rows: Sequence[ReportRow]) -> Sequence[Row]:
        before = self.connection.total_changes
        await self.bulk("record_reports", rows, self.now)
        if self.connection.total_changes - before == len(rows):
            return ()
        return await self.bulk("stale_reports", [row[:3] for row in rows])


@cache
def _statement(name: str, width: int, count: int) -> str:
    row = f"({', '.join('?' * width)})"
    return Q[name].format(rows=", ".join([row] * count))


def run_to_end(job: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never suspends, outside an event loop."""
    try:
        job.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    job.close()
    raise RuntimeError("a transaction of the SQLite store waited for something else than the store")


class SqliteStore(Store):
    """A Store in one file. Make one with ``open``; several processes may read and accept, one may dispatch."""

    def __init__(self, path: Path, *, clock: Clock) -> None:
        super().__init__(clock)
        self._path, self._url, self._clock = path, f"sqlite:///{path}", clock
        self._dispatcher_lock: int | None = None
        # Only the process that dispatches may lease.
        self._may_lease = False
        writing, reading, looking = connect(path), connect(path), connect(path)
        self._peeking = connect(path, busy_seconds=0)
        # The triggers that record lane changes use the same clock.
        writing.create_function("store_now", 0, clock)
        for db in (self._peeking, reading):
            db.create_function("key_hash", 2, key_hash, deterministic=True)
        self._writer = Worker(writing, begin="begin immediate", end="commit")
        self._workers: dict[How, Worker] = {"read": Worker(reading), "look": Worker(looking), "write": self._writer}

    @classmethod
    async def open(cls, path: str | os.PathLike[str], *, clock: Clock = time.time) -> "SqliteStore":
        """The store in this file, created if it is empty. StoreUnavailable says what is wrong with the file."""
        path = Path(path)
        store = cls(path, clock=clock)
        try:
            with store._describing_errors():
                await store._writer.run(lambda db: check_schema(db, store._url, create=True))
            store._writer.check = file_check(path)
        except BaseException:
            await store.close()
            raise
        return store

    async def check(self) -> None:
        with self._describing_errors():
            await self._workers["read"].run(lambda db: check_schema(db, self._url))
            # An immediate transaction alone would begin on a file that can only be read.
            await super().check()

    @contextlib.contextmanager
    def _describing_errors(self) -> Iterator[None]:
        """Adds to SQLite's errors the file they are about, and what to do."""
        try:
            yield
        except (records.StoreFull, records.StoreUnavailable) as error:
            if isinstance(error.__cause__, sqlite3.Error):
                raise type(error)(describe_error(self._path, error.__cause__)) from error.__cause__
            raise

    async def close(self) -> None:
        await super().close()
        for worker in self._workers.values():
            await worker.close()
        self._peeking.close()
        if self._dispatcher_lock is not None:
            os.close(self._dispatcher_lock)
            self._dispatcher_lock = None

    async def _query(self, statement: str, **values: object) -> Sequence[Row]:
        return await self._run("read", lambda db: db.rows(statement, **values))

    async def _find_row(self, statement: str, /, **values: object) -> Row | None:
        # In the event loop: a page or two of the file, mostly in memory, take a tenth of the way to a thread and back.
        with contextlib.suppress(sqlite3.Error):
            return cast("Row | None", execute(self._peeking, statement, now=self._clock(), **values).fetchone())
        # The thread may wait for a lock.
        return await super()._find_row(statement, **values)

    async def now(self) -> float:
        return self._clock()

    async def _run(self, how: How, job: Job[T]) -> T:
        def run(db: sqlite3.Connection) -> T:
            return run_to_end(cast("Coroutine[Any, Any, T]", job(SqliteSession(db, self._clock()))))

        return await self._workers[how].run(run)

    async def _write(self, job: Job[T]) -> T:
        return cast("T", await self._writes.submit(job))

    def _notify(self) -> None:
        self._work.set()

    async def lease(self, limit: int, seconds: float) -> list[records.Lease]:
        if self._dispatcher_lock is None:
            self._dispatcher_lock = lock_dispatcher(self._path)
            self._may_lease = True
            # Leases found now belong to a process that has ended.
            await self._write(lambda db: db.rows("forget_leases"))

        async def job(db: Session) -> Sequence[Row]:
            taken = await db.rows("lease", seconds=seconds, limit=limit)
            return await db.rows("leased_lanes", lanes=[lane["id"] for lane in taken])

        return [read_lease(row) for row in await self._write(job)]

    async def _fetch(self, requests: Sequence[FetchRequest]) -> list[list[records.Delivery]]:
        async def job(db: Session) -> list[list[records.Delivery]]:
            return [await _fetch(db, *request) for request in requests]

        return await self._run("read", job)


async def _fetch(
    db: Session, lease: records.Lease, limit: int, without: Collection[int], max_bytes: int
) -> list[records.Delivery]:
    (row,) = await db.rows("fetch", lane=lease.lane, limit=limit, without=without, max_bytes=max_bytes)
    deliveries, end = [], 0
    for size, followed, note, *columns in msgspec.json.decode(row["deliveries"]):
        begin, end = end, end + size
        values: dict[str, Any] = dict(zip(_FETCHED, columns, strict=True))
        values |= {"lane": lease.lane, "account": lease.account, "body": row["bodies"][begin:end]}
        deliveries.append(records.Delivery(followed=bool(followed), note=read_note(note), **values))
    return deliveries

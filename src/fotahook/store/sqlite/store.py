"""The embedded store: one SQLite file in WAL mode, every commit synced, one dispatcher per file."""

import contextlib
import os
import sqlite3
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import msgspec

from .. import records
from ..base import Clock, FetchRequest, Store
from ..session import Session
from ..views import Row, read_lease, read_note
from .connection import Job, Worker, connect, describe_error, execute, file_check, lock_dispatcher
from .schema import check_schema, create_or_check, key_hash
from .session import SqliteSession, run_to_end

T = TypeVar("T")

_FETCHED: Final = ("seq", "message", "type", "ordering_key", "accepted_at", "attempts", "strikes", "age")


class SqliteStore(Store):
    """A Store in one file. Make one with ``open``; several processes may read and accept, one may dispatch."""

    def __init__(self, path: Path, *, clock: Clock) -> None:
        super().__init__(clock)
        self._path = path
        self._url = f"sqlite:///{path}"
        self._clock = clock
        self._dispatcher_lock: int | None = None
        writing, reading, looking = connect(path), connect(path), connect(path)
        self._peeking = connect(path, busy_seconds=0)
        # The triggers that record lane changes use the same clock.
        writing.create_function("store_now", 0, clock)
        for db in (self._peeking, reading):
            db.create_function("key_hash", 2, key_hash, deterministic=True)
        self._writer = Worker(writing, begin="begin immediate", end="commit")
        self._reader = Worker(reading)
        self._looker = Worker(looking)

    @classmethod
    async def open(cls, path: str | os.PathLike[str], *, clock: Clock = time.time) -> "SqliteStore":
        """The store in this file, created if it is empty. StoreUnavailable says what is wrong with the file."""
        path = Path(path)
        store = cls(path, clock=clock)
        try:
            with store._describing_errors():
                await store._writer.run(lambda db: create_or_check(db, store._url))
            store._writer.check = file_check(path)
        except BaseException:
            await store.close()
            raise
        return store

    async def check(self) -> None:
        with self._describing_errors():
            await self._reader.run(lambda db: check_schema(db, self._url))
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
        for worker in (self._writer, self._reader, self._looker):
            await worker.close()
        self._peeking.close()
        if self._dispatcher_lock is not None:
            os.close(self._dispatcher_lock)
            self._dispatcher_lock = None

    async def _query(self, statement: str, **values: object) -> Sequence[Row]:
        return await self._read(lambda db: db.rows(statement, **values))

    async def _find_row(self, statement: str, /, **values: object) -> Row | None:
        # In the event loop: a page or two of the file, mostly in memory, take a tenth of the way to a thread and back.
        with contextlib.suppress(sqlite3.Error):
            return cast("Row | None", execute(self._peeking, statement, now=self._clock(), **values).fetchone())
        # The thread may wait for a lock.
        return await super()._find_row(statement, **values)

    async def _read(self, job: Callable[[Session], Awaitable[T]]) -> T:
        return await self._reader.run(self._in_session(job))

    async def _look(self, job: Callable[[Session], Awaitable[T]]) -> T:
        return await self._looker.run(self._in_session(job))

    async def now(self) -> float:
        return self._clock()

    async def _transact(self, job: Callable[[Session], Awaitable[T]]) -> T:
        return await self._writer.run(self._in_session(job))

    async def _write(self, job: Callable[[Session], Awaitable[T]]) -> T:
        return cast("T", await self._writes.submit(job))

    def _in_session(self, job: Callable[[Session], Awaitable[T]]) -> Job[T]:
        def run(db: sqlite3.Connection) -> T:
            return run_to_end(cast("Coroutine[Any, Any, T]", job(SqliteSession(db, self._clock()))))

        return run

    def _notify(self) -> None:
        self._work.set()

    def _lease_request(self) -> records.LeaseRequest | None:
        # Only the process that dispatches may lease.
        return None if self._dispatcher_lock is None else super()._lease_request()

    async def lease(self, limit: int, seconds: float) -> list[records.Lease]:
        if self._dispatcher_lock is None:
            self._dispatcher_lock = lock_dispatcher(self._path)
            # Leases found now belong to a process that has ended.
            await self._write(lambda db: db.rows("forget_leases"))

        async def job(db: Session) -> Sequence[Row]:
            taken = await db.rows("lease", seconds=seconds, limit=limit)
            return await db.rows("leased_lanes", lanes=[lane["id"] for lane in taken])

        return [read_lease(row) for row in await self._write(job)]

    async def _fetch(self, requests: Sequence[FetchRequest]) -> list[list[records.Delivery]]:
        async def job(db: Session) -> list[list[records.Delivery]]:
            return [await _fetch(db, request) for request in requests]

        return await self._read(job)


async def _fetch(db: Session, request: FetchRequest) -> list[records.Delivery]:
    lease, limit, without, max_bytes = request
    (row,) = await db.rows("fetch", lane=lease.lane, limit=limit, without=without, max_bytes=max_bytes)
    deliveries, end = [], 0
    for size, followed, note, *columns in msgspec.json.decode(row["deliveries"]):
        begin, end = end, end + size
        values: dict[str, Any] = dict(zip(_FETCHED, columns, strict=True))
        values |= {"lane": lease.lane, "account": lease.account, "body": row["bodies"][begin:end]}
        deliveries.append(records.Delivery(followed=bool(followed), note=read_note(note), **values))
    return deliveries

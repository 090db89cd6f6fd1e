"""The embedded store: one SQLite file in WAL mode, every commit synced, one dispatcher per file."""

import asyncio
import contextlib
import os
import sqlite3
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterator, Sequence
from itertools import chain, repeat
from pathlib import Path
from typing import Any, TypeVar, cast

from .. import records
from ..base import Clock, Store
from ..handing import Handing
from ..ids import MessageIds
from ..session import Row, Session
from ..turns import accept_turn
from .accept import accept_all
from .connection import connect, describe_error, execute, file_check, lock_dispatcher
from .lanes import fetch_deliveries, lease_lanes
from .schema import check_schema, create_or_check, key_hash
from .session import SqliteSession, run_to_end
from .settle import Settled, SettleRequest, settle_all
from .writer import Job, Reader, Writer

T = TypeVar("T")
_AcceptRequest = tuple[Sequence[records.NewMessage], records.LeaseRequest | None]
_AcceptResult = tuple[list[records.Accepted], Handing | None]
"""What is handed over comes with the first result of a transaction."""


class SqliteStore(Store):
    """A Store in one file. Make one with ``open``; several processes may read and accept, one may dispatch."""

    def __init__(self, path: Path, *, clock: Clock) -> None:
        super().__init__()
        self._path = path
        self._url = f"sqlite:///{path}"
        self._clock = clock
        self._ids = MessageIds(clock)
        self._dispatcher_lock: int | None = None
        writing, reading, looking = connect(path), connect(path), connect(path)
        self._peeking = connect(path, busy_seconds=0)
        # The triggers that record lane changes use the same clock.
        writing.create_function("store_now", 0, clock)
        for db in (self._peeking, reading):
            db.create_function("key_hash", 2, key_hash, deterministic=True)
        self._writer = Writer(writing)
        self._reader = Reader(reading)
        self._looker = Reader(looking)

    @classmethod
    async def open(cls, path: str | os.PathLike[str], *, clock: Clock = time.time) -> "SqliteStore":
        """The store in this file, created if it is empty. StoreUnavailable says what is wrong with the file."""
        path = Path(path)
        store = cls(path, clock=clock)
        try:
            with store._describing_errors():
                await store._writer.run(lambda db: create_or_check(db, store._url))
            store._writer.check_with(file_check(path))
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
        await asyncio.to_thread(self._writer.close)
        await asyncio.to_thread(self._reader.close)
        await asyncio.to_thread(self._looker.close)
        self._peeking.close()
        if self._dispatcher_lock is not None:
            os.close(self._dispatcher_lock)
            self._dispatcher_lock = None

    async def _query(self, statement: str, **values: object) -> Sequence[Row]:
        return await self._read(lambda db: db.rows(statement, **values))

    async def _find(self, statement: str, **values: object) -> Row | None:
        # In the event loop: a page or two of the file, mostly in memory, take a tenth of the way to a thread and back.
        with contextlib.suppress(sqlite3.Error):
            return cast("Row | None", execute(self._peeking, statement, now=self._clock(), **values).fetchone())
        # The thread may wait for a lock.
        return next(iter(await self._query(statement, **values)), None)

    async def _read(self, job: Callable[[Session], Awaitable[T]]) -> T:
        return await self._reader.run(self._in_session(job))

    async def _look(self, job: Callable[[Session], Awaitable[T]]) -> T:
        return await self._looker.run(self._in_session(job))

    async def now(self) -> float:
        return self._clock()

    async def _write(self, job: Callable[[Session], Awaitable[T]]) -> T:
        return await self._writer.run(self._in_session(job))

    def _in_session(self, job: Callable[[Session], Awaitable[T]]) -> Job[T]:
        def run(db: sqlite3.Connection) -> T:
            return run_to_end(cast("Coroutine[Any, Any, T]", job(SqliteSession(db, self._clock()))))

        return run

    def _notify(self) -> None:
        self._work.set()

    async def accept(self, messages: Sequence[records.NewMessage]) -> list[records.Accepted]:
        # Only the process that dispatches may lease.
        request = None if self._dispatcher_lock is None else self._request()
        accepting = self._writer.run_with_others(self._accept, (messages, request), *accept_turn(messages))
        # A caller that is cancelled must not take leases with it.
        accepting.add_done_callback(self._on_accepted)
        accepted, _ = await asyncio.shield(accepting)
        return accepted

    def _on_accepted(self, accepting: "asyncio.Future[_AcceptResult]") -> None:
        if accepting.exception() is None and (handing := accepting.result()[1]) is not None:
            self._deal_out(handing)

    def _accept(self, db: sqlite3.Connection, requests: Sequence[_AcceptRequest]) -> list[_AcceptResult]:
        handing = Handing(next((request for _, request in requests if request is not None), None))
        accepted = accept_all(db, [messages for messages, _ in requests], self._ids, handing, self._clock())
        return list(zip(accepted, chain([handing], repeat(None)), strict=False))

    async def lease(self, limit: int, seconds: float) -> list[records.Lease]:
        if self._dispatcher_lock is None:
            self._dispatcher_lock = lock_dispatcher(self._path)
            # Leases found now belong to a process that has ended.
            await self._writer.run(lambda db: execute(db, "forget_leases"))
        return await self._writer.run(lambda db: lease_lanes(db, limit, seconds, self._clock()))

    async def fetch(
        self, lease: records.Lease, limit: int, *, without: Collection[int] = (), max_bytes: int = records.FETCH_BYTES
    ) -> list[records.Delivery]:
        return await self._reader.run_with_others(
            lambda db: fetch_deliveries(db, lease, limit, without, max_bytes, self._clock())
        )

    async def settle(
        self,
        lease: records.Lease,
        settlements: Sequence[records.Settlement],
        verdict: records.LaneVerdict,
        *,
        keep: float,
    ) -> records.Lease | None:
        request = (lease, settlements, verdict, keep)
        kept, is_due = await self._writer.run_with_others(self._settle, request, lease.lane, len(settlements))
        if kept is None and is_due:
            self._notify()
        return kept

    def _settle(self, db: sqlite3.Connection, requests: Sequence[SettleRequest]) -> list[Settled]:
        return settle_all(db, requests, self._clock())

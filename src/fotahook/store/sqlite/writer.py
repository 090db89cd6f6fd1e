"""SQLite from asyncio: one writing thread whose concurrent jobs share a commit, one reading thread beside it."""

import asyncio
import contextlib
import queue
import sqlite3
import threading
from collections import defaultdict
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

import msgspec

from ..records import StoreUnavailable
from ..turns import Turns
from .connection import translate

T = TypeVar("T")
Item = TypeVar("Item")
Job = Callable[[sqlite3.Connection], T]
BulkJob = Callable[[sqlite3.Connection, list[Item]], list[T]]
"""Does a job for many items at once; a result for each, in order."""

_GATHERING_TURNS: Final = 3
"""Maximum number of event loop turns that a commit waits while each turn brings more jobs."""


class _Entry(msgspec.Struct, eq=False):
    job: BulkJob[Any, Any]
    item: object
    future: asyncio.Future[Any]
    owner: Hashable
    weight: int
    result: object = None
    error: Exception | None = None


_Read = tuple[Job[Any], asyncio.Future[Any]]


class Writer:
    """Runs jobs one after the other in a thread. A job's result is returned after its commit is synced to disk."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._entries: queue.SimpleQueue[_Entry] = queue.SimpleQueue()
        self._turns: Turns[_Entry] = Turns()
        """Of the thread: what it took from the queue."""
        # Wakes the thread; False ends it.
        self._calls: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._calling: asyncio.AbstractEventLoop | None = None
        self._connection = connection
        self._thread = threading.Thread(target=self._work, name="fotahook-store-writer", daemon=True)
        # An entry that is queued after the last call would wait forever.
        self._closing = threading.Lock()
        self._closed = False
        self._check: Callable[[], None] = lambda: None
        self._thread.start()

    def check_with(self, check: Callable[[], None]) -> None:
        """Call `check` before every transaction; if it raises, all jobs of that transaction fail."""
        self._check = check

    async def run(self, job: Job[T]) -> T:
        """Return what `job` returns once its transaction is on disk. If it raises, only its own writes are undone."""

        def alone(db: sqlite3.Connection, _: list[None]) -> list[T]:
            return [job(db)]

        return await self.run_with_others(alone, None)

    def run_with_others(
        self, job: BulkJob[Item, T], item: Item, owner: Hashable = None, weight: int = 1
    ) -> asyncio.Future[T]:
        """What `job` returns for `item`; it is called once with the items of several callers, who take turns."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        with self._closing:
            if self._closed:
                raise StoreUnavailable("the store is closed")
            self._entries.put(_Entry(job, item, future, owner, weight))
        if self._calling is not loop:
            self._calling = loop
            loop.call_soon(self._call, loop, 0, _GATHERING_TURNS)
        return future

    def close(self) -> None:
        """Finish all queued jobs, then end the thread."""
        with self._closing:
            self._closed = True
        self._calls.put(False)
        self._thread.join()

    def _call(self, loop: asyncio.AbstractEventLoop, seen: int, turns: int) -> None:
        """Wake the thread, unless the loop's last turn brought more: it would start with the first of them alone."""
        waiting = self._entries.qsize()
        if waiting > seen and turns > 0:
            loop.call_soon(self._call, loop, waiting, turns - 1)
        else:
            self._calling = None
            self._calls.put(True)

    def _work(self) -> None:
        running = True
        while running:
            running = self._calls.get()
            while entries := self._next_batch():
                self._commit(entries)
                _resolve(entries)
        self._connection.close()

    def _next_batch(self) -> list[_Entry]:
        with contextlib.suppress(queue.Empty):
            while True:
                entry = self._entries.get_nowait()
                self._turns.put(entry, entry.owner, entry.weight)
        return self._turns.take()

    def _commit(self, entries: list[_Entry]) -> None:
        try:
            self._check()
            self._run_all(_grouped(entries, lambda entry: entry.job))
            self._connection.execute("commit")
        except Exception as error:
            # Nothing of this batch is on disk, so all of its jobs fail.
            for entry in entries:
                entry.error = translate(error)
            # A rollback that fails now is repeated later: until then no transaction can begin.
            with contextlib.suppress(sqlite3.Error):
                self._roll_back()

    def _run_all(self, groups: list[list[_Entry]]) -> None:
        """Run the jobs in a new transaction; if one of them raises, its writes alone are undone."""
        self._connection.execute("begin immediate")
        try:
            # Jobs rarely fail, so a savepoint for each would only cost time.
            for group in groups:
                _run(self._connection, group)
        except Exception:
            self._roll_back()
            self._connection.execute("begin immediate")
            for group in groups:
                self._run_in_savepoint(group)

    def _run_in_savepoint(self, group: list[_Entry]) -> None:
        self._connection.execute("savepoint job")
        try:
            _run(self._connection, group)
        except Exception as error:
            # A full disk ends the whole transaction by itself, savepoints included.
            if not self._connection.in_transaction:
                raise
            self._connection.execute("rollback to job")
            if len(group) > 1:
                # Each by itself, so that the failure of one is not another's.
                for entry in group:
                    self._run_in_savepoint([entry])
            else:
                group[0].error = translate(error)
        self._connection.execute("release job")

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("rollback")


def _run(db: sqlite3.Connection, group: list[_Entry]) -> None:
    results = group[0].job(db, [entry.item for entry in group])
    for entry, result in zip(group, results, strict=True):
        entry.result = result


def _grouped(entries: list[_Entry], key: Callable[[_Entry], Hashable]) -> list[list[_Entry]]:
    """Entries with the same key together, in the order of the first of each."""
    groups: defaultdict[Hashable, list[_Entry]] = defaultdict(list)
    for entry in entries:
        groups[key(entry)].append(entry)
    return list(groups.values())


def _resolve(entries: list[_Entry]) -> None:
    for group in _grouped(entries, lambda entry: entry.future.get_loop()):
        # One wake-up of the loop for the whole batch. A closed loop has no callers left.
        with contextlib.suppress(RuntimeError):
            group[0].future.get_loop().call_soon_threadsafe(_resolve_all, group)


def _resolve_all(entries: list[_Entry]) -> None:
    for entry in entries:
        if entry.future.done():  # the caller was cancelled meanwhile
            continue
        if entry.error is not None:
            entry.future.set_exception(entry.error)
        else:
            entry.future.set_result(entry.result)


class Reader:
    """Runs reads in a thread of its own: they see what is committed and never wait for a write."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="fotahook-store-reader")
        self._gathered: dict[asyncio.AbstractEventLoop, list[_Read]] = {}
        self._closed = False

    async def run(self, job: Job[T]) -> T:
        """Return what `job` returns."""
        if self._closed:
            raise StoreUnavailable("the store is closed")
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._read, job)

    async def run_with_others(self, job: Job[T]) -> T:
        """Return what `job` returns; all that begin in the same turn of the event loop share a way to the thread."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        if loop not in self._gathered:
            self._gathered[loop] = []
            loop.call_soon(self._run_gathered, loop)
        self._gathered[loop].append((job, future))
        return await future

    def _run_gathered(self, loop: asyncio.AbstractEventLoop) -> None:
        reads = self._gathered.pop(loop)

        def run_all(db: sqlite3.Connection) -> list[object]:
            return [_result_of(job, db) for job, _ in reads]

        def resolve(reading: asyncio.Future[list[object]]) -> None:
            error = reading.exception()
            results = [error] * len(reads) if error is not None else reading.result()
            for (_, future), result in zip(reads, results, strict=True):
                if future.done():  # the caller was cancelled meanwhile
                    continue
                if isinstance(result, BaseException):
                    future.set_exception(result)
                else:
                    future.set_result(result)

        asyncio.ensure_future(self.run(run_all)).add_done_callback(resolve)

    def close(self) -> None:
        """Finish the reads under way, then end the thread."""
        self._closed = True
        self._executor.shutdown()
        self._connection.close()

    def _read(self, job: Job[T]) -> T:
        try:
            # One transaction, so that a job of several statements sees one state of the store.
            self._connection.execute("begin")
            try:
                return job(self._connection)
            finally:
                self._connection.execute("rollback")
        except sqlite3.Error as error:
            raise translate(error) from error


def _result_of(job: Job[T], db: sqlite3.Connection) -> T | Exception:
    try:
        return job(db)
    except Exception as error:
        return translate(error)

"""SQLite from asyncio: transactions in a thread of their own."""

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from ..records import StoreUnavailable
from .connection import translate

T = TypeVar("T")
Job = Callable[[sqlite3.Connection], T]


class Worker:
    """Runs transactions one after the other, on a connection and in a thread that are its own.

    Reads that have a worker see what is committed, and never wait for a write.
    """

    def __init__(self, connection: sqlite3.Connection, *, begin: str = "begin", end: str = "rollback") -> None:
        self._connection = connection
        self._begin = begin
        self._end = end
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="fotahook-store")
        self._closed = False
        self.check: Callable[[], None] = lambda: None
        """Called before every transaction, which fails if it raises."""

    async def run(self, job: Job[T]) -> T:
        """Return what `job` returns, once its transaction is over; if it raises, nothing was written."""
        if self._closed:
            raise StoreUnavailable("the store is closed")
        # Shielded: a caller that is cancelled, as at the end of its event loop, does not undo what others wait for.
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._executor, self._run, job))

    async def close(self) -> None:
        """Finish the transactions under way, then end the thread."""
        self._closed = True
        await asyncio.to_thread(self._executor.shutdown)
        self._connection.close()

    def _run(self, job: Job[T]) -> T:
        try:
            self.check()
            # One transaction, so that a job of several statements sees one state of the store.
            self._connection.execute(self._begin)
            result = job(self._connection)
            self._connection.execute(self._end)
            return result
        except Exception as error:
            # A rollback that fails now is repeated later: until then no transaction can begin.
            with contextlib.suppress(sqlite3.Error):
                if self._connection.in_transaction:
                    self._connection.execute("rollback")
            if (translated := translate(error)) is error:
                raise
            raise translated from error

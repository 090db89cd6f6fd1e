"""A transaction in which a handler writes, and in which its message is marked as handled."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, cast

from .records import StoreError

if TYPE_CHECKING:
    # Its extra may be missing.
    from asyncpg import Record
    from asyncpg.pool import PoolConnectionProxy

log = logging.getLogger("fotahook.store")


class AlreadyHandled(BaseException):
    """An earlier attempt committed. Not an Exception: a handler that catches those must not go on."""


class Transaction:
    """Statements on the database of the inbox, which commit with the message or not at all.

    It begins with the first statement, on a connection of its own. Parameters are ``$1``, ``$2`` and so on, as in
    asyncpg. It commits after all handlers of the message have succeeded: do not commit or roll back in it.
    """

    def __init__(
        self,
        connect: "Callable[[], contextlib.AbstractAsyncContextManager[PoolConnectionProxy[Record]]]",
        mark: str,
        *values: object,
    ) -> None:
        """`mark` is a statement that marks the delivery as handled; it returns nothing if it is handled already."""
        self._connect = connect
        self._mark = mark, values
        self._connection: PoolConnectionProxy[Record] | None = None
        self._stack = contextlib.AsyncExitStack()
        self._beginning = asyncio.Lock()
        self._is_repeated = False

    async def execute(self, query: str, /, *values: object) -> str:
        """Run a statement; returns its status, such as ``INSERT 0 1``."""
        return await (await self._begin()).execute(query, *values)

    async def executemany(self, query: str, rows: Iterable[Sequence[object]], /) -> None:
        """Run a statement once for each row of values."""
        await (await self._begin()).executemany(query, rows)

    async def fetch(self, query: str, /, *values: object) -> Sequence[Mapping[str, object]]:
        """All rows of a statement."""
        # An asyncpg.Record reads like a mapping, and is none for type checkers.
        return cast("Sequence[Mapping[str, object]]", await (await self._begin()).fetch(query, *values))

    async def fetchrow(self, query: str, /, *values: object) -> Mapping[str, object] | None:
        """The first row of a statement, None if it has none."""
        return cast("Mapping[str, object] | None", await (await self._begin()).fetchrow(query, *values))

    async def fetchval(self, query: str, /, *values: object) -> object:
        """The first value of a statement's first row, None if it has none."""
        return await (await self._begin()).fetchval(query, *values)

    async def _begin(self) -> "PoolConnectionProxy[Record]":
        async with self._beginning:
            if self._connection is None:
                self._connection = await self._stack.enter_async_context(self._connect())
                await self._connection.execute("begin")
                mark, values = self._mark
                self._is_repeated = await self._connection.fetchval(mark, *values) is None
            if self._is_repeated:
                raise AlreadyHandled
            return self._connection

    async def commit(self) -> None:
        """Commit, if it has begun. StoreError if one of its statements had failed: then nothing was written."""
        if self._connection is None:
            return
        if self._is_repeated:
            raise AlreadyHandled
        # After a failed statement, PostgreSQL rolls back and reports no error.
        if await self._connection.execute("commit") != "COMMIT":
            raise StoreError("the transaction was rolled back, since a statement in it had failed")
        self._connection = None

    async def close(self) -> None:
        """Roll back what was not committed, and return the connection."""
        connection, self._connection = self._connection, None
        try:
            async with self._stack:
                if connection is not None:
                    await connection.execute("rollback")
        except Exception:
            log.warning("a handler's transaction could not be rolled back; the server does it", exc_info=True)

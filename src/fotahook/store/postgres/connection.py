"""PostgreSQL: a pool of connections with timeouts, and the driver's errors as the store's own."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import Final, TypeAlias, TypeVar
from urllib.parse import urlsplit

import asyncpg

from ...contract.urls import origin, without_password
from ..records import StoreError, StoreFull, StoreUnavailable

T = TypeVar("T")
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Db: TypeAlias = "Connection | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"

POOL_SIZE: Final = 4
"""Of one process, beside the connection for notifications: twenty processes fit into a server's usual hundred."""
HANDLER_CONNECTIONS: Final = 8
"""Of one process, for transactions of handlers; they are made when they are needed."""
CONNECT_SECONDS: Final = 5.0
ACQUIRE_SECONDS: Final = 5.0
LOCK_SECONDS: Final = 5.0
STATEMENT_SECONDS: Final = 10.0
"""After this time the server ends a statement; after RESPONSE_SECONDS the client stops waiting for a response."""
RESPONSE_SECONDS: Final = 15.0
PREPARED_SECONDS: Final = 30
"""How long a statement stays prepared: its plan may be for tables that have grown since."""
TRANSACTION_TRIES: Final = 4
"""How often a transaction is tried that the server rolls back because of another one."""

_DRIVER_ERRORS: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
_REMEDY: Final = "check the user, host, port and database in its URL, and that the server runs"

SESSION: Final[Mapping[str, str]] = {
    "application_name": "fotahook",
    "timezone": "UTC",
    # A plan made while the tables were empty must still do when they are full, and every statement has an index to use.
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
}


class TransactionRolledBack(StoreUnavailable):
    """The server rolled back a transaction because of another one (SQLSTATE class 40); it may run again at once."""


class ConnectionPool:
    """Connections to one server. Every call ends within the timeouts, with a result or a StoreError."""

    def __init__(self, url: str) -> None:
        check_url(url)
        self._url = url
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._handlers: asyncpg.Pool[asyncpg.Record] | None = None

    @property
    def public_url(self) -> str:
        """Its URL, without the password."""
        return without_password(self._url)

    async def open(self) -> None:
        """Connect once, so that a wrong URL fails at once."""
        try:
            self._pool = await asyncpg.create_pool(
                self._url,
                min_size=1,
                max_size=POOL_SIZE,
                init=_check_session,
                reset=_keep_session,
                timeout=CONNECT_SECONDS,
                command_timeout=RESPONSE_SECONDS,
                max_cached_statement_lifetime=PREPARED_SECONDS,
                server_settings={
                    **SESSION,
                    "lock_timeout": _milliseconds(LOCK_SECONDS),
                    "statement_timeout": _milliseconds(STATEMENT_SECONDS),
                    # A process that froze within a transaction must not keep its lanes locked.
                    "idle_in_transaction_session_timeout": _milliseconds(RESPONSE_SECONDS),
                },
            )
            # Connects when a handler needs it.
            self._handlers = await asyncpg.create_pool(
                self._url,
                min_size=0,
                max_size=HANDLER_CONNECTIONS,
                timeout=CONNECT_SECONDS,
                server_settings={"application_name": "fotahook handlers"},
            )
        except _DRIVER_ERRORS as error:
            raise StoreUnavailable(
                f"cannot open the store {_server(self._url)}: {translate(error)}; {_REMEDY}"
            ) from error

    async def close(self) -> None:
        pools = [pool for pool in (self._pool, self._handlers) if pool is not None]
        self._pool = self._handlers = None
        for pool in pools:
            try:
                await asyncio.wait_for(pool.close(), ACQUIRE_SECONDS)
            except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                pool.terminate()

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Db]:
        """A connection for single statements."""
        if self._pool is None:
            raise StoreUnavailable("the store is closed")
        with translated():
            async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as db:
                yield db

    @contextlib.asynccontextmanager
    async def handler_connection(self) -> AsyncIterator[Db]:
        """A connection with the server's own settings, for statements of users; such connections have a pool apart."""
        if self._handlers is None:
            raise StoreUnavailable("the store is closed")
        # The handler's own time limit ends the wait for a free one.
        async with self._handlers.acquire() as db:
            yield db

    async def read(self, job: Callable[[Db], Awaitable[T]]) -> T:
        """Return what `job` returns; all its statements see one state of the store."""
        async with self.connection() as db, db.transaction(isolation="repeatable_read", readonly=True):
            return await job(db)

    async def write(self, job: Callable[[Db], Awaitable[T]]) -> T:
        """Return what `job` returns, once its transaction is on disk. It runs again if the server rolled it back."""
        for _ in range(TRANSACTION_TRIES - 1):
            with contextlib.suppress(TransactionRolledBack):
                return await self._write(job)
        return await self._write(job)

    async def _write(self, job: Callable[[Db], Awaitable[T]]) -> T:
        async with self.connection() as db, db.transaction():
            return await job(db)

    async def connect_for_notifications(self) -> Connection:
        """A connection outside the pool, whose commits need not be durable."""
        with translated():
            return await asyncpg.connect(
                self._url,
                timeout=CONNECT_SECONDS,
                command_timeout=RESPONSE_SECONDS,
                server_settings={**SESSION, "synchronous_commit": "off"},
            )


def check_url(url: str) -> None:
    """ValueError, without the URL's secrets, unless it is the URL of a PostgreSQL server."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme == "postgresql" and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable:
        # The error of urlsplit or of the driver may quote a part of the password.
        raise ValueError(
            "not the URL of a PostgreSQL server; use postgresql://USER:PASSWORD@HOST:PORT/DATABASE, "
            "with the password percent-encoded"
        )


def _server(url: str) -> str:
    """A URL without the user."""
    return origin(url) + urlsplit(url).path


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turns errors of the driver and the network into the store's own."""
    try:
        yield
    except _DRIVER_ERRORS as error:
        raise translate(error) from error


def translate(error: Exception) -> StoreError:
    """The store's own error for one of the driver's or the network's."""
    # The first line: the others may quote rows.
    text = f"PostgreSQL: {str(error).partition(chr(10))[0] or 'no answer in time'} ({type(error).__name__})"
    if isinstance(error, asyncpg.DiskFullError):
        return StoreFull(text)
    state = error.sqlstate or "" if isinstance(error, asyncpg.PostgresError) else ""
    if state.startswith(("22", "23")):
        # The values are at fault, so trying again is no use.
        return StoreError(text)
    kind = TransactionRolledBack if state.startswith("40") else StoreUnavailable
    return kind(text)


def unsafe_settings(settings: Mapping[str, str]) -> str | None:
    """Why a server with these settings would lose or garble data; None if it is safe."""
    if settings["fsync"] == "off" or settings["synchronous_commit"] == "off":
        return (
            f"PostgreSQL would lose what it says it has stored: fsync is {settings['fsync']}, synchronous_commit is "
            f"{settings['synchronous_commit']}; both must be on"
        )
    if settings["server_encoding"] != "UTF8":
        return f"the database is encoded in {settings['server_encoding']}; it must be UTF8"
    return None


async def _check_session(db: Db) -> None:
    # A setting of the session no longer changes when the server reloads its configuration.
    found = await db.fetchrow(
        "select current_setting('fsync') as fsync, current_setting('server_encoding') as server_encoding,"
        " set_config('synchronous_commit', current_setting('synchronous_commit'), false) as synchronous_commit"
    )
    reason = unsafe_settings(dict(found or {}))
    if reason is not None:
        raise StoreUnavailable(reason)


async def _keep_session(db: Db) -> None:
    """Nothing changes a session, so resetting it would only cost a round trip."""


def _milliseconds(seconds: float) -> str:
    return str(round(seconds * 1000))

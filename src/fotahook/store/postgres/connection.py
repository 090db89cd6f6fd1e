"""The way to a PostgreSQL server: connections with bounded patience, statements by name, errors in our own words."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar, cast
from urllib.parse import urlsplit

import asyncpg

from ...contract.urls import without_password
from ..queries import load_queries
from ..records import StoreError, StoreFull, StoreUnavailable

T = TypeVar("T")
Db: TypeAlias = "asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"
Row: TypeAlias = Mapping[str, Any]
"""An asyncpg.Record, which reads like a mapping of its columns."""
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

CONNECTIONS: Final = 4
"""Of one process, beside the one for hints: twenty processes fit into a server's usual hundred."""
CONNECT_SECONDS: Final = 5.0
ACQUIRE_SECONDS: Final = 5.0
LOCK_SECONDS: Final = 5.0
STATEMENT_SECONDS: Final = 10.0
"""After this the server itself ends a statement, and after SILENCE_SECONDS we stop listening for its answer."""
SILENCE_SECONDS: Final = 15.0
PLAN_SECONDS: Final = 30
"""How long a statement is kept prepared: its plan may be one for tables that have grown since."""
TRIES: Final = 4
"""Of a transaction that the server ends in favour of another one."""

_RAISED: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
"""By the driver and by the network."""
_REMEDY: Final = "check the user, host, port and database in its URL, and that the server runs"

SESSION: Final[Mapping[str, str]] = {
    "application_name": "fotahook",
    "timezone": "UTC",
    # A plan that was made while the tables were empty must still do when they have filled, and every statement has an
    # index to go by.
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
}


class Sacrificed(StoreUnavailable):
    """The server ended a transaction in favour of another one; it may be run again at once."""


class Statement(NamedTuple):
    """A statement with numbered parameters, and what they were called."""

    sql: str
    names: tuple[str, ...]


def number_parameters(sql: str) -> Statement:
    """``:name`` becomes ``$1`` and so on; ``::type`` stays a cast."""
    names: list[str] = []

    def number(match: re.Match[str]) -> str:
        if match[1] not in names:
            names.append(match[1])
        return f"${names.index(match[1]) + 1}"

    return Statement(re.sub(r"(?<!:):([a-z_]+)", number, sql), tuple(names))


S: Final = {name: number_parameters(sql) for name, sql in load_queries("postgres").items()}


async def rows(db: Db, name: str, **values: object) -> list[Row]:
    """The rows that the named statement returns."""
    sql, names = S[name]
    return cast("list[Row]", await db.fetch(sql, *[values[each] for each in names]))


async def row(db: Db, name: str, **values: object) -> Row | None:
    """The first row that the named statement returns."""
    sql, names = S[name]
    return cast("Row | None", await db.fetchrow(sql, *[values[each] for each in names]))


async def value(db: Db, name: str, **values: object) -> Any:
    """The first value of the first row that the named statement returns."""
    sql, names = S[name]
    return await db.fetchval(sql, *[values[each] for each in names])


class Link:
    """A pool of connections to one server. Every call ends within bounds, with an answer or a StoreError."""

    def __init__(self, url: str) -> None:
        check_url(url)
        self._url = url
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None

    @property
    def shown(self) -> str:
        """Its URL, without the password."""
        return without_password(self._url)

    async def open(self) -> None:
        """Connect once, so that what is wrong is heard at once."""
        try:
            self._pool = await asyncpg.create_pool(
                self._url,
                min_size=1,
                max_size=CONNECTIONS,
                init=_check_session,
                reset=_leave_as_it_is,
                timeout=CONNECT_SECONDS,
                command_timeout=SILENCE_SECONDS,
                max_cached_statement_lifetime=PLAN_SECONDS,
                server_settings={
                    **SESSION,
                    "lock_timeout": _milliseconds(LOCK_SECONDS),
                    "statement_timeout": _milliseconds(STATEMENT_SECONDS),
                    # A process that froze within a transaction must not keep its lanes locked.
                    "idle_in_transaction_session_timeout": _milliseconds(SILENCE_SECONDS),
                },
            )
        except _RAISED as error:
            raise StoreUnavailable(
                f"cannot open the store {_place(self._url)}: {translate(error)}; {_REMEDY}"
            ) from error

    async def close(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
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

    async def read(self, job: Callable[[Db], Awaitable[T]]) -> T:
        """What `job` returns, from one state of the store."""
        async with self.connection() as db, db.transaction(isolation="repeatable_read", readonly=True):
            return await job(db)

    async def write(self, job: Callable[[Db], Awaitable[T]]) -> T:
        """What `job` returns, once its transaction is on disk. It is run again if the server sacrificed it."""
        for _ in range(TRIES - 1):
            with contextlib.suppress(Sacrificed):
                return await self._write(job)
        return await self._write(job)

    async def _write(self, job: Callable[[Db], Awaitable[T]]) -> T:
        async with self.connection() as db, db.transaction():
            return await job(db)

    async def connect_for_hints(self) -> Connection:
        """A connection outside the pool, whose commits need not be durable."""
        with translated():
            return await asyncpg.connect(
                self._url,
                timeout=CONNECT_SECONDS,
                command_timeout=SILENCE_SECONDS,
                server_settings={**SESSION, "synchronous_commit": "off"},
            )


def check_url(url: str) -> None:
    """ValueError, without the URL's secrets, for what is not the URL of a PostgreSQL server."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme == "postgresql" and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable:
        # What urlsplit or the driver would say may quote a piece of the password.
        raise ValueError(
            "not the URL of a PostgreSQL server; use postgresql://USER:PASSWORD@HOST:PORT/DATABASE, "
            "with the password percent-encoded"
        )


def _place(url: str) -> str:
    """Where a URL leads to, without who connects."""
    parts = urlsplit(url)
    return f"postgresql://{parts.netloc.rpartition('@')[2]}{parts.path}"


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turns what the driver and the network raise into the store's own errors."""
    try:
        yield
    except _RAISED as error:
        raise translate(error) from error


def translate(error: Exception) -> StoreError:
    """The store's own error for one of the driver's or the network's."""
    # The first line: what follows may quote rows.
    text = f"PostgreSQL: {str(error).partition(chr(10))[0] or 'no answer in time'} ({type(error).__name__})"
    if isinstance(error, asyncpg.DiskFullError):
        return StoreFull(text)
    state = error.sqlstate or "" if isinstance(error, asyncpg.PostgresError) else ""
    if state.startswith(("22", "23")):
        # It lies with what was asked for, so there is no use in trying again.
        return StoreError(text)
    kind = Sacrificed if state.startswith("40") else StoreUnavailable
    return kind(text)


def refusal(settings: Mapping[str, str]) -> str | None:
    """Why a server with these settings cannot keep what it was given; None if it can."""
    if settings["fsync"] == "off" or settings["synchronous_commit"] == "off":
        return (
            f"PostgreSQL would lose what it says it has stored: fsync is {settings['fsync']}, synchronous_commit is "
            f"{settings['synchronous_commit']}; both must be on"
        )
    if settings["server_encoding"] != "UTF8":
        return f"the database is encoded in {settings['server_encoding']}; it must be UTF8"
    return None


async def _check_session(db: Db) -> None:
    # What is set for the session no longer follows when the server's configuration is read again.
    found = await db.fetchrow(
        "select current_setting('fsync') as fsync, current_setting('server_encoding') as server_encoding,"
        " set_config('synchronous_commit', current_setting('synchronous_commit'), false) as synchronous_commit"
    )
    reason = refusal(dict(found or {}))
    if reason is not None:
        raise StoreUnavailable(reason)


async def _leave_as_it_is(db: Db) -> None:
    """Nothing is ever changed in a session, so there is nothing to put back, and a round trip is spared."""


def _milliseconds(seconds: float) -> str:
    return str(round(seconds * 1000))

"""PostgreSQL: connections with timeouts, notifications, the driver's errors as the store's own, and the schema."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Final
from urllib.parse import urlsplit

import asyncpg

from ...contract.addresses import without_password
from ..records import StoreError, StoreFull, StoreUnavailable
from ..sql import Migrated, check_version, load_migrations, next_migrations
from .servers import Connection, Db, Servers

POOL_SIZE: Final = 4
"""Of one process, beside the connection for notifications: twenty processes fit into a server's usual hundred."""
HANDLER_CONNECTIONS: Final = 8
ACQUIRE_SECONDS: Final = 5.0
LOCK_SECONDS: Final = 5.0
IDLE_SECONDS: Final = 3.0
"""After this time the server ends a transaction whose process froze, before those who wait for its lanes give up."""
STATEMENT_SECONDS: Final = 10.0
"""After this time the server ends a statement; after RESPONSE_SECONDS the client stops waiting for a response."""
RESPONSE_SECONDS: Final = 15.0
PREPARED_SECONDS: Final = 30
"""How long a statement stays prepared: its plan may be for tables that have grown since."""
MIGRATION_SECONDS: Final = 600.0
LONGEST_SECONDS: Final = 86400.0
"""How long a statement of a migration may take: some write all rows of a table anew."""
INTERVAL_SECONDS: Final = 0.01
RECONNECT_SECONDS: Final = 1.0
SILENCE_SECONDS: Final = 1.0
"""After so long without a notification the server is asked for a sign of life, and it has as long to give one."""

log = logging.getLogger("fotahook.store")

_DRIVER_ERRORS: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
_STARTUP: Final = {"application_name": "fotahook", "timezone": "UTC"}
"""All that PgBouncer lets through at the start of a session; the rest is set by a statement."""
SESSION: Final[Mapping[str, str]] = {
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
    """Connections to the server that accepts writes. Every call ends in time, with a result or a StoreError."""

    def __init__(self, url: str) -> None:
        self._url, self.public_url = url, without_password(url)
        self._servers = Servers(url)
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._handlers: asyncpg.Pool[asyncpg.Record] | None = None
        self._busy_since: dict[object, float] = {}

    async def open(self) -> None:
        """Connect once, so that a wrong URL fails at once."""
        connect = self._servers.connect
        try:
            await self._servers.look()
            self._pool = await asyncpg.create_pool(
                self._url,
                min_size=1,
                max_size=POOL_SIZE,
                connect=connect,
                init=_check_session,
                reset=_keep_session,
                command_timeout=RESPONSE_SECONDS,
                max_cached_statement_lifetime=PREPARED_SECONDS,
                server_settings=_STARTUP,
            )
            # Connects when a handler needs it.
            own = {"application_name": "fotahook handlers"}
            self._handlers = await asyncpg.create_pool(
                self._url, min_size=0, max_size=HANDLER_CONNECTIONS, connect=connect, server_settings=own
            )
        except (*_DRIVER_ERRORS, StoreError) as error:
            reason = str(error)
            if not isinstance(error, StoreError):
                remedy = "check the user, host, port and database in its URL, and that the server runs"
                reason = f"{translate(error)}; {remedy}"
            place = ",".join(map(str, self._servers.addresses)) + urlsplit(self._url).path
            raise StoreUnavailable(f"cannot open the store postgresql://{place}: {reason}") from error
        with translated():
            # A pooler may give another connection the session of one that is open.
            async with self._pool.acquire() as ours:
                session = await ours.fetchval("select pg_backend_pid()")
                other = await connect(server_settings=_STARTUP)
                try:
                    shared = await other.fetchval("select pg_backend_pid()") == session
                finally:
                    await other.close()
        if shared:
            raise StoreUnavailable(
                "the pooler in front of PostgreSQL shares sessions between transactions, which loses settings, "
                "notifications and prepared statements: set pool_mode = session for fotahook (PgBouncer)"
            )

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
        use = object()
        self._busy_since[use] = time.monotonic()
        try:
            with translated():
                async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as db:
                    yield db
        finally:
            del self._busy_since[use]

    @contextlib.asynccontextmanager
    async def handler_connection(self) -> AsyncIterator["asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"]:
        """A connection with the server's own settings, for statements of users; such connections have a pool apart."""
        if self._handlers is None:
            raise StoreUnavailable("the store is closed")
        # The handler's own time limit ends the wait for a free one.
        async with self._handlers.acquire() as db:
            yield db

    async def look_for_another(self, connection: Connection, asked_at: float) -> None:
        """StoreUnavailable if another server was promoted, for which this looks when the present one seems slow: it
        answered on this connection, asked at a time of the monotonic clock. One that only a commit hangs on waits for
        its synchronous standby, which may be the one that was promoted."""
        now = time.monotonic()
        busy = now - min(self._busy_since.values(), default=now)
        # A database that is slow for long is not looked at all the time.
        if (
            (now - asked_at > SILENCE_SECONDS / 2 or busy > SILENCE_SECONDS)
            and now - self._servers.looked_at > SILENCE_SECONDS
            and await self._servers.look(connection)
        ):
            raise StoreUnavailable("another server was promoted")

    async def connect_for_notifications(self) -> Connection:
        """A connection outside the pool. The pool's connections to another server than the one it leads to are ended:
        theirs was replaced, and may be frozen, so that they would hang."""
        with translated():
            connection = await self._servers.connect(command_timeout=RESPONSE_SECONDS, server_settings=_STARTUP)
        if self._servers.end_others(connection):
            log.warning("the store's server was replaced or restarted: connections to the former one end")
        return connection


@contextlib.contextmanager
def translated() -> Iterator[None]:
    try:
        yield
    except _DRIVER_ERRORS as error:
        raise translate(error) from error


def translate(error: Exception) -> StoreError:
    """The store's own error for one of the driver's or the network's."""
    # The first line: the others may quote rows.
    text = f"PostgreSQL: {str(error).partition(chr(10))[0] or 'no answer in time'} ({type(error).__name__})"
    state, raised_by = "", ""
    if isinstance(error, asyncpg.PostgresError):
        state, raised_by = error.sqlstate or "", error.server_source_function or ""
    # XX000: PostgreSQL has no code of its own for a quota that lets no file grow.
    if state == "53100" or (state == "XX000" and raised_by in ("mdextend", "mdzeroextend")):
        return StoreFull(text)
    if state.startswith(("22", "23")):
        # The values are at fault, so trying again is no use.
        return StoreError(text)
    return (TransactionRolledBack if state.startswith("40") else StoreUnavailable)(text)


def unsafe_settings(settings: Mapping[str, str]) -> str | None:
    """Why a server with these settings would lose or garble data; None if it is safe."""
    # local: a commit does not wait for the synchronous standby, and is gone after a failover to it.
    if settings["fsync"] == "off" or settings["synchronous_commit"] in ("off", "local"):
        return (
            f"PostgreSQL would lose what it says it has stored: fsync is {settings['fsync']}, synchronous_commit is "
            f"{settings['synchronous_commit']}; both must be on (or remote_write, remote_apply)"
        )
    if settings["server_encoding"] != "UTF8":
        return f"the database is encoded in {settings['server_encoding']}; it must be UTF8"
    return None


async def _configure(db: Db, settings: Mapping[str, str]) -> None:
    set_all = "select set_config(name, value, false) from unnest($1::text[], $2::text[]) as given (name, value)"
    await db.execute(set_all, list(settings), list(settings.values()))


async def _check_session(db: Db) -> None:
    limits = {"lock": LOCK_SECONDS, "statement": STATEMENT_SECONDS, "idle_in_transaction_session": IDLE_SECONDS}
    await _configure(db, {**SESSION, **{f"{name}_timeout": f"{seconds}s" for name, seconds in limits.items()}})
    # A setting of the session no longer changes when the server reloads its configuration.
    found = await db.fetchrow(
        "select current_setting('fsync') as fsync, current_setting('server_encoding') as server_encoding,"
        " set_config('synchronous_commit', current_setting('synchronous_commit'), false) as synchronous_commit"
    )
    if (reason := unsafe_settings(dict(found or {}))) is not None:
        raise StoreUnavailable(reason)


async def _keep_session(db: Db) -> None:
    """Nothing changes a session, so resetting it would only cost a round trip."""


class Notifier:
    """Notifies other processes of work, and sets `work` when they notify this one. Notifications may be lost. It also
    notices that the server hangs: it asks for a sign of life, and connects anew without one."""

    def __init__(self, pool: ConnectionPool, work: asyncio.Event) -> None:
        self._pool, self._work = pool, work
        self._pending = asyncio.Event()
        self._task = asyncio.create_task(self._keep_connected())

    def notify(self) -> None:
        """Wake dispatchers: here at once, elsewhere soon. Call it after the commit."""
        self._work.set()
        self._pending.set()

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _keep_connected(self) -> None:
        while True:
            try:
                await self._exchange()
            except StoreError as error:
                log.info("no notifications from other processes at the moment: %s", error)
            await asyncio.sleep(RECONNECT_SECONDS)

    async def _exchange(self) -> None:
        """Receive and send notifications until the connection is lost."""
        connection = await self._pool.connect_for_notifications()
        try:
            with translated():
                # A notification need not be durable.
                await _configure(connection, {"synchronous_commit": "off"})
                channel = await connection.fetchval("select 'fotahook_' || current_schema()::regnamespace::oid")
                connection.add_termination_listener(lambda _: self._pending.set())
                own = connection.get_server_pid()

                def receive(_: object, pid: int, channel: str, payload: object) -> None:
                    if pid != own:
                        self._work.set()

                await connection.add_listener(channel, receive)
                # Notifications sent before this moment are lost.
                self._work.set()
                while True:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(SILENCE_SECONDS):
                            await self._pending.wait()
                    statement = "select pg_notify($1, '')" if self._pending.is_set() else "select $1::text"
                    self._pending.clear()
                    asked_at = time.monotonic()
                    await connection.execute(statement, channel, timeout=SILENCE_SECONDS)
                    await self._pool.look_for_another(connection, asked_at)
                    await asyncio.sleep(INTERVAL_SECONDS)
        finally:
            connection.terminate()


async def check_schema(db: Db, url: str, *, create: bool = False) -> int:
    """The version of the tables, which it can `create` if there are none; WrongSchema if it is not this fotahook's."""
    if create and await _version(db) == 0:
        await _step(db, only_new=True)
    return check_version(await _version(db), load_migrations("postgres"), url)


async def migrate(db: Db, url: str) -> Migrated:
    """Apply the missing migrations, each in a transaction of its own."""
    before, applied = await _version(db), list[str]()
    while names := await _step(db):
        applied += names
    return Migrated(before=before, after=await check_schema(db, url), applied=tuple(applied))


async def migrate_url(url: str) -> Migrated:
    pool = ConnectionPool(url)
    await pool.open()
    try:
        async with pool.connection() as db:
            return await migrate(db, pool.public_url)
    finally:
        await pool.close()


async def _step(db: Db, *, only_new: bool = False) -> list[str]:
    """One transaction, one process at a time, on a new store or on any; the names of what it applied."""
    async with db.transaction():
        await db.execute(f"set local lock_timeout = '{MIGRATION_SECONDS}s'", timeout=MIGRATION_SECONDS)
        await db.execute(f"set local statement_timeout = '{LONGEST_SECONDS}s'")
        lock = "select pg_advisory_xact_lock(hashtext('fotahook'), hashtext(current_schema()))"
        await db.execute(lock, timeout=MIGRATION_SECONDS)
        await db.execute("create table if not exists fotahook_migrations (number integer primary key)")
        # Another process may have been here meanwhile.
        version = await _version(db)
        todo = () if only_new and version > 0 else next_migrations(version, load_migrations("postgres"))
        for migration in todo:
            await db.execute(migration.sql, timeout=LONGEST_SECONDS)
            await db.execute("insert into fotahook_migrations (number) values ($1)", migration.number)
    return [migration.name for migration in todo]


async def _version(db: Db) -> int:
    if await db.fetchval("select to_regclass('fotahook_migrations') is null"):
        return 0
    return int(await db.fetchval("select coalesce(max(number), 0) from fotahook_migrations"))

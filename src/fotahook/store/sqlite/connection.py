"""SQLite: connections to the store's file, their threads, statements by name, the lock of its dispatcher, and the
schema: the file's `user_version` is the number of the last migration."""

import asyncio
import contextlib
import fcntl
import hashlib
import os
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import NoneType
from typing import Final, TypeVar

import msgspec

from ..records import DispatchedElsewhere, StoreError, StoreFull, StoreUnavailable
from ..sql import Migrated, Migration, check_version, load_migrations, load_queries, next_migrations

BUSY_SECONDS: Final = 2.0
"""How long a write waits for another process that holds the file; a migration waits longer."""
MIGRATION_SECONDS: Final = 600.0
PREPARED_STATEMENTS: Final = 256
"""Statements that a connection keeps prepared: all of them, with those for many rows in every length."""
_SCALARS: Final = (str, int, float, bytes, NoneType)
_SETTINGS: Final = (
    "journal_mode = wal",
    "synchronous = full",
    "foreign_keys = on",
    # In KiB: enough for the upper levels of the indexes of a long backlog.
    "cache_size = -16384",
    # Rollback data of a statement stays in memory instead of a file made for each transaction.
    "temp_store = memory",
    # In pages: the more, the more often a busy page is copied only once.
    "wal_autocheckpoint = 4000",
)
_REMEDIES: Final = {
    "SQLITE_BUSY": "another process holds it: let that one end",
    "SQLITE_CORRUPT": "put a backup in its place",
    "SQLITE_NOTADB": "choose another file",
}

T = TypeVar("T")
Q: Final = load_queries("sqlite")


def execute(db: sqlite3.Connection, name: str, **values: object) -> sqlite3.Cursor:
    """Run the named statement; collections go in as JSON."""
    for key, given in values.items():
        if not isinstance(given, _SCALARS):
            values[key] = msgspec.json.encode(list(given)).decode()  # type: ignore[call-overload]  # a collection
    return db.execute(Q[name], values)


def connect(path: Path, *, busy_seconds: float | None = None) -> sqlite3.Connection:
    """A connection that syncs every commit and returns rows as dicts. StoreUnavailable names the file."""
    wait = BUSY_SECONDS if busy_seconds is None else busy_seconds
    connection = None
    try:
        # An empty file that only its owner can read: message bodies may contain a password. An existing one is not even
        # opened: closing it would drop the locks of this process's other connections to it, and the next process to
        # close the file would believe it is the last one and remove the log.
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        connection = sqlite3.connect(
            path, timeout=wait, isolation_level=None, check_same_thread=False, cached_statements=PREPARED_STATEMENTS
        )
        connection.row_factory = lambda cursor, row: {
            column[0]: value for column, value in zip(cursor.description, row, strict=True)
        }
        for setting in _SETTINGS:
            connection.execute(f"pragma {setting}")
    except (OSError, sqlite3.Error) as error:
        if connection is not None:
            connection.close()
        raise StoreUnavailable(describe_error(path, error)) from error
    return connection


def translate(error: Exception) -> Exception:
    """The store's own error for one of SQLite's; any other exception as it is."""
    if isinstance(error, StopIteration):  # a future would not take it
        return RuntimeError("a job of the store raised StopIteration")
    if not isinstance(error, sqlite3.Error):
        return error
    name = getattr(error, "sqlite_errorname", "")
    kind: type[StoreError] = StoreFull if name == "SQLITE_FULL" else StoreUnavailable
    return kind(f"SQLite: {error} ({name or type(error).__name__})")


def describe_error(path: Path, error: OSError | sqlite3.Error) -> str:
    name = getattr(error, "sqlite_errorname", "")
    what = (error.strerror if isinstance(error, OSError) else None) or str(error)
    # SQLite has one error for all of these files, and for the directory in which it makes them.
    needed = (str(path), f"{path}-wal", f"{path}-shm", str(path.parent))
    closed = [each for each in needed if os.path.exists(each) and not os.access(each, os.W_OK, effective_ids=True)]
    if not os.path.isdir(path.parent):
        remedy = f"make the directory {path.parent} first"
    elif os.path.isdir(path):
        remedy = "name a file, not a directory"
    elif closed:
        remedy = f"give this user (uid {os.geteuid()}) the right to write to {', '.join(closed)}"
    else:
        remedy = _REMEDIES.get(name, "check the file, and the disk that it is on")
    return f"cannot open the store {path}: {what}{f' ({name})' if name else ''}; {remedy}"


def file_check(path: Path) -> Callable[[], None]:
    """A check that a store's files are still those that were opened; StoreUnavailable names a missing one, since SQLite
    goes on writing to a removed or moved file, where the data would be lost."""
    opened = {name: os.stat(name) for name in (str(path), f"{path}-wal") if os.path.exists(name)}

    def check() -> None:
        for name, facts in opened.items():
            with contextlib.suppress(OSError):
                if os.path.samestat(os.stat(name), facts):
                    continue
            raise StoreUnavailable(f"{name} was removed or replaced while in use; put it back, or start afresh")

    return check


def lock_dispatcher(path: Path) -> int:
    """The dispatcher lock of a store's file, as a file descriptor; the lock ends with the process."""
    lock = os.open(f"{path}.dispatcher", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise DispatchedElsewhere(f"another process dispatches from {path}; stop it first") from error
    return lock


class Worker:
    """Runs transactions for asyncio one after the other, on a connection and in a thread that are its own."""

    def __init__(self, connection: sqlite3.Connection, *, begin: str = "begin", end: str = "rollback") -> None:
        self._connection, self._begin, self._end = connection, begin, end
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="fotahook-store")
        self._closed = False
        self.check: Callable[[], None] = lambda: None

    async def run(self, job: Callable[[sqlite3.Connection], T]) -> T:
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

    def _run(self, job: Callable[[sqlite3.Connection], T]) -> T:
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


def key_hash(account: str, key: str) -> int:
    """The number by which an idempotency key is found; several keys may share it."""
    return short_hash(hashlib.sha256(f"{account}\0{key}".encode()).digest())


def short_hash(digest: bytes) -> int:
    return int.from_bytes(digest[:8], signed=True)


def check_schema(db: sqlite3.Connection, url: str, *, create: bool = False) -> int:
    """The version of the schema, which it can `create` in an empty file; WrongSchema if it is not this fotahook's."""
    if create and _version(db) == 0:
        _apply(db, load_migrations("sqlite"))
    return check_version(_version(db), load_migrations("sqlite"), url)


def migrate(path: Path) -> Migrated:
    """Apply the missing migrations, each in a transaction of its own."""
    with contextlib.closing(connect(path, busy_seconds=MIGRATION_SECONDS)) as db:
        try:
            before, applied = _version(db), list[str]()
            while names := _step(db):
                applied += names
        except sqlite3.Error as error:
            raise translate(error) from error
        return Migrated(before=before, after=check_schema(db, f"sqlite:///{path}"), applied=tuple(applied))


def _step(db: sqlite3.Connection) -> list[str]:
    """One transaction; the names of what it applied. Other processes may do the same meanwhile."""
    with db:
        db.execute("begin immediate")
        todo = next_migrations(_version(db), load_migrations("sqlite"))
        _apply(db, todo)
    return [migration.name for migration in todo]


def _apply(db: sqlite3.Connection, migrations: Sequence[Migration]) -> None:
    if _version(db) == 0 and db.execute("select 1 from sqlite_schema limit 1").fetchone() is not None:
        file = db.execute("pragma database_list").fetchone()["file"]
        raise StoreUnavailable(f"{file} is the database of something else; choose another file")
    db.create_function("key_hash", 2, key_hash, deterministic=True)
    db.create_function("short_hash", 1, short_hash, deterministic=True)
    for migration in migrations:
        # Statement by statement, since executescript would commit.
        statement = ""
        for line in migration.sql.splitlines(keepends=True):
            statement += line
            if sqlite3.complete_statement(statement):
                db.execute(statement)
                statement = ""
        db.execute(f"pragma user_version = {migration.number}")


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("pragma user_version").fetchone()["user_version"])

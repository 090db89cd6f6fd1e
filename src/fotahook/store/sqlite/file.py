"""The file of a SQLite store: how it is opened, watched and claimed for dispatching."""

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from ..records import DispatchedElsewhere, StoreUnavailable

BUSY_SECONDS: Final = 2.0
"""How long a write waits for another process that holds the file."""

CACHE_KIB: Final = 16 * 1024
"""Pages kept by each connection: enough for the upper levels of the indexes of a long backlog."""

STATEMENTS: Final = 256
"""Statements that a connection keeps prepared: all that there are, those for many rows in all their lengths."""

CHECKPOINT_PAGES: Final = 4000
"""Pages in the log before they go to the file: the more, the more often a busy page goes there only once."""


_REMEDIES: Final = {
    "SQLITE_BUSY": "another process holds it: let that one end",
    "SQLITE_CORRUPT": "put a backup in its place",
    "SQLITE_NOTADB": "choose another file",
}


def connect(path: Path, *, busy_seconds: float | None = None) -> sqlite3.Connection:
    """A connection whose every commit is synced, and whose rows are dicts. StoreUnavailable names the file.

    `busy_seconds`: how long a statement waits for another process, BUSY_SECONDS unless it is given.
    """
    try:
        _make(path)
        return _connect(path, BUSY_SECONDS if busy_seconds is None else busy_seconds)
    except (OSError, sqlite3.Error) as error:
        raise StoreUnavailable(told(path, error)) from error


def told(path: Path, error: OSError | sqlite3.Error) -> str:
    """What is wrong with a store's file, and what to do."""
    name = getattr(error, "sqlite_errorname", "")
    what = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return f"cannot open the store {path}: {what}{f' ({name})' if name else ''}; {_remedy(path, name)}"


def _remedy(path: Path, name: str) -> str:
    if not os.path.isdir(path.parent):
        return f"make the directory {path.parent} first"
    if os.path.isdir(path):
        return "name a file, not a directory"
    # SQLite says the same of all of them. The directory is where it makes the other two.
    needed = (str(path), f"{path}-wal", f"{path}-shm", str(path.parent))
    closed = [each for each in needed if os.path.exists(each) and not os.access(each, os.W_OK, effective_ids=True)]
    if closed:
        return f"give this user (uid {os.geteuid()}) the right to write to {', '.join(closed)}"
    return _REMEDIES.get(name, "check the file, and the disk that it is on")


def _make(path: Path) -> None:
    """An empty file for its owner alone: it is to hold message bodies, which may echo a password.

    One that is there already is not even opened: closing it would drop the locks of every other connection that this
    process has to it, and the next process to come and go would take itself for the last one, and remove the log.
    """
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))


def _connect(path: Path, busy_seconds: float) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path, timeout=busy_seconds, isolation_level=None, check_same_thread=False, cached_statements=STATEMENTS
    )
    connection.row_factory = as_dict
    try:
        connection.execute("pragma journal_mode = wal")
        connection.execute("pragma synchronous = full")
        connection.execute("pragma foreign_keys = on")
        connection.execute(f"pragma cache_size = -{CACHE_KIB}")
        # What a statement may have to take back is kept in memory instead of a file made for each transaction.
        connection.execute("pragma temp_store = memory")
        connection.execute(f"pragma wal_autocheckpoint = {CHECKPOINT_PAGES}")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def as_dict(cursor: sqlite3.Cursor, row: tuple[Any, ...]) -> dict[str, Any]:
    return {column[0]: value for column, value in zip(cursor.description, row, strict=True)}


def watch(path: Path) -> Callable[[], None]:
    """A check that a store's files are those that were opened; StoreUnavailable names the one that is not.

    SQLite goes on writing to a file that was removed or moved away, where nobody would ever read it again.
    """
    opened = {name: _identity(name) for name in (str(path), f"{path}-wal")}

    def check() -> None:
        for name, identity in opened.items():
            if _identity(name) != identity:
                raise StoreUnavailable(f"{name} was removed or replaced while in use; put it back, or start afresh")

    return check


def _identity(name: str) -> tuple[int, int] | None:
    try:
        facts = os.stat(name)
    except OSError:
        return None
    return facts.st_dev, facts.st_ino


def lock_file(path: Path) -> int:
    """The dispatcher lock of a store's file; it goes with the process, however that ends."""
    lock = os.open(f"{path}.dispatcher", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise DispatchedElsewhere(f"another process dispatches from {path}; stop it first") from error
    return lock

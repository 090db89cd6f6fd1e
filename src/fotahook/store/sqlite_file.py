"""The file of a SQLite store: how it is opened, brought up to date and claimed for dispatching."""

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from .base import StoreUnavailable
from .queries import load_migrations

BUSY_SECONDS: Final = 2.0
"""How long a write waits for another process that holds the file."""


def connect(path: Path) -> sqlite3.Connection:
    """A connection whose every commit is synced, and whose rows are dicts."""
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    connection.row_factory = as_dict
    connection.execute("pragma journal_mode = wal")
    connection.execute("pragma synchronous = full")
    connection.execute("pragma foreign_keys = on")
    return connection


def as_dict(cursor: sqlite3.Cursor, row: tuple[Any, ...]) -> dict[str, Any]:
    return {column[0]: value for column, value in zip(cursor.description, row, strict=True)}


def migrate(db: sqlite3.Connection) -> None:
    """Apply the migrations that this file has not had; the schema's version is the number of the last."""
    version = db.execute("pragma user_version").fetchone()["user_version"]
    migrations = load_migrations("sqlite")
    if version > migrations[-1].number:
        raise StoreUnavailable(
            f"the store was written by a newer fotahook (schema {version}, this one knows {migrations[-1].number})"
        )
    for migration in migrations:
        if migration.number > version:
            # Not executescript, which would commit: the whole step belongs to the writer's transaction.
            for statement in _statements(migration.sql):
                db.execute(statement)
            db.execute(f"pragma user_version = {migration.number}")


def _statements(script: str) -> Iterator[str]:
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def lock_file(path: Path) -> int:
    """The dispatcher lock of a store's file; it goes with the process, however that ends."""
    lock = os.open(f"{path}.dispatcher", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise StoreUnavailable(f"another process dispatches from {path}; stop it first") from error
    return lock

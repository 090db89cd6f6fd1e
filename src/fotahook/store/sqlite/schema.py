"""The schema of a SQLite store: the file's `user_version` is the number of the last migration."""

import hashlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from ..records import StoreUnavailable
from ..sql import Migrated, Migration, check_version, load_migrations, next_migrations
from .connection import connect, translate

MIGRATION_SECONDS: Final = 600.0
"""How long a migration waits for another process that writes or migrates."""


def key_hash(account: str, key: str) -> int:
    """The number by which an idempotency key is found; several keys may share it."""
    return short_hash(hashlib.sha256(f"{account}\0{key}".encode()).digest())


def short_hash(digest: bytes) -> int:
    """The part of a hash that fits into SQLite's integers."""
    return int.from_bytes(digest[:8], signed=True)


def create_or_check(db: sqlite3.Connection, url: str) -> None:
    """Create the schema if the file is empty; WrongSchema if it is another version's. Within a transaction."""
    if _version(db) == 0:
        _apply(db, load_migrations("sqlite"))
    check_schema(db, url)


def check_schema(db: sqlite3.Connection, url: str) -> None:
    """WrongSchema if the file has another version's schema."""
    check_version(_version(db), load_migrations("sqlite"), url)


def migrate(path: Path) -> Migrated:
    """Apply the missing migrations, each in a transaction of its own."""
    migrations = load_migrations("sqlite")
    db = connect(path, busy_seconds=MIGRATION_SECONDS)
    try:
        before = after = _version(db)
        applied: list[str] = []
        while after < migrations[-1].number:
            applied += _step(db, migrations)
            after = _version(db)
    except sqlite3.Error as error:
        raise translate(error) from error
    finally:
        db.close()
    check_version(after, migrations, f"sqlite:///{path}")
    return Migrated(before=before, after=after, applied=tuple(applied))


def _step(db: sqlite3.Connection, migrations: Sequence[Migration]) -> list[str]:
    """One transaction; the names of what it applied, none if another process was first."""
    db.execute("begin immediate")
    try:
        todo = next_migrations(_version(db), migrations)
        _apply(db, todo)
        db.execute("commit")
    except BaseException:
        db.rollback()
        raise
    return [migration.name for migration in todo]


def _apply(db: sqlite3.Connection, migrations: Sequence[Migration]) -> None:
    if _version(db) == 0 and db.execute("select 1 from sqlite_schema limit 1").fetchone() is not None:
        file = db.execute("pragma database_list").fetchone()["file"]
        raise StoreUnavailable(f"{file} is the database of something else; choose another file")
    db.create_function("key_hash", 2, key_hash, deterministic=True)
    db.create_function("short_hash", 1, short_hash, deterministic=True)
    for migration in migrations:
        # Not executescript, which would commit.
        for statement in _statements(migration.sql):
            db.execute(statement)
        db.execute(f"pragma user_version = {migration.number}")


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("pragma user_version").fetchone()["user_version"])


def _statements(script: str) -> Iterator[str]:
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""

"""The schema of a SQLite store: the file's `user_version` is the number of the last migration."""

import hashlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from ..queries import Migration, load_migrations
from ..records import StoreUnavailable
from ..schema import Migrated, check_version, next_steps
from .file import connect
from .writer import translate

MIGRATION_SECONDS: Final = 600.0
"""How long another process that writes, or migrates, is waited for."""


def key_hash(account: str, key: str) -> int:
    """The number under which an idempotency key is found. Others may have it too."""
    return short_hash(hashlib.sha256(f"{account}\0{key}".encode()).digest())


def short_hash(digest: bytes) -> int:
    """As much of a hash as one of SQLite's integers holds."""
    return int.from_bytes(digest[:8], signed=True)


def make_or_check(db: sqlite3.Connection, url: str) -> None:
    """Make the store if the file is empty; WrongSchema if it is another version's. Within a transaction."""
    migrations = load_migrations("sqlite")
    if _version(db) == 0:
        _apply(db, migrations)
    check_schema(db, url)


def check_schema(db: sqlite3.Connection, url: str) -> None:
    """WrongSchema if the file has another version's schema."""
    check_version(_version(db), load_migrations("sqlite")[-1].number, url)


def migrate(path: Path) -> Migrated:
    """Apply the migrations that the file has not had, each in a transaction of its own."""
    migrations = load_migrations("sqlite")
    db = connect(path, busy_seconds=MIGRATION_SECONDS)
    try:
        before = after = _version(db)
        applied: list[str] = []
        while after < migrations[-1].number:
            after, names = _step(db, migrations)
            applied += names
    except sqlite3.Error as error:
        raise translate(error) from error
    finally:
        db.close()
    check_version(after, migrations[-1].number, f"sqlite:///{path}")
    return Migrated(before=before, after=after, applied=tuple(applied))


def _step(db: sqlite3.Connection, migrations: Sequence[Migration]) -> tuple[int, list[str]]:
    """One transaction: the version after it, and what it applied; nothing if another process was here first."""
    db.execute("begin immediate")
    try:
        todo = next_steps(_version(db), migrations)
        _apply(db, todo)
        db.execute("commit")
    except BaseException:
        db.rollback()
        raise
    return _version(db), [migration.name for migration in todo]


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
    version: int = db.execute("pragma user_version").fetchone()["user_version"]
    return version


def _statements(script: str) -> Iterator[str]:
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""

"""The durable store of callbacks, messages and deliveries: the Store protocol, on SQLite and on PostgreSQL."""

import asyncio
import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from ..contract.addresses import without_password
from .base import Clock, Store
from .sql import Migrated
from .sqlite.connection import migrate
from .sqlite.store import SqliteStore


async def open_store(url: str, *, clock: Clock = time.time) -> Store:
    """The store at ``sqlite:///relative.db``, ``sqlite:////absolute.db`` or ``postgresql://…``, created if missing.

    `clock` is the time of a SQLite store; PostgreSQL has its own. Raises ValueError for any other URL, ImportError if
    the extra is missing, StoreUnavailable if the file or the server cannot be used, WrongSchema if another version of
    fotahook made the store.
    """
    if not url.startswith("postgresql://"):
        return await SqliteStore.open(sqlite_path(url), clock=clock)
    with _postgres_installed():
        from .postgres.store import PostgresStore
    return await PostgresStore.open(url, clock=clock)


async def migrate_store(url: str) -> Migrated:
    """Bring the store at a URL to this version's schema, creating it if it is missing. Others may do so meanwhile."""
    if not url.startswith("postgresql://"):
        return await asyncio.to_thread(migrate, Path(sqlite_path(url)))
    with _postgres_installed():
        from .postgres.connection import migrate_url
    return await migrate_url(url)


@contextlib.contextmanager
def _postgres_installed() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise ImportError(f"a store on PostgreSQL needs {error.name}: pip install 'fotahook[postgres]'") from error


def sqlite_path(url: str) -> str:
    """The file of a ``sqlite:///`` URL; ValueError for any other URL."""
    path = url.removeprefix("sqlite:///")
    if path == ":memory:":
        raise ValueError("sqlite:///:memory: would keep nothing on disk; use sqlite:///FILE")
    if not url.startswith("sqlite:///") or not path:
        raise ValueError(f"not the URL of a store: {without_password(url)}; use sqlite:///FILE or postgresql://…")
    return path


__all__ = ["Migrated", "SqliteStore", "Store", "migrate_store", "open_store", "sqlite_path"]

"""Keeps it: the Protocol that the other rooms speak, and the stores that fulfil it."""

import time
from typing import Final

from .base import Clock, Store
from .sqlite import SqliteStore

_SQLITE: Final = "sqlite:///"
_POSTGRES: Final = "postgresql://"


async def open_store(url: str, *, clock: Clock = time.time) -> Store:
    """The store at ``sqlite:///relative.db``, ``sqlite:////absolute.db`` or ``postgresql://…``, migrated as needed.

    `clock` is what a SQLite store goes by; PostgreSQL has its own. ValueError for any other URL, ImportError if the
    extra is missing; StoreUnavailable says what is wrong with the file or the server.
    """
    if not url.startswith(_POSTGRES):
        return await SqliteStore.open(sqlite_path(url), clock=clock)
    try:
        from .postgres import PostgresStore
    except ImportError as error:
        raise ImportError(f"a store on PostgreSQL needs {error.name}: pip install 'fotahook[postgres]'") from error
    return await PostgresStore.open(url, clock=clock)


def sqlite_path(url: str) -> str:
    """The file of a ``sqlite:///`` URL; ValueError if it is none."""
    path = url.removeprefix(_SQLITE)
    if not url.startswith(_SQLITE) or not path or path == ":memory:":
        # Not the URL itself: another database's may hold a password.
        scheme = url.partition("//")[0]
        raise ValueError(f"not the URL of a store: {scheme}…; use sqlite:///FILE or postgresql://…")
    return path


__all__ = ["SqliteStore", "Store", "open_store", "sqlite_path"]

"""Keeps it: the Protocol that the other rooms speak, and the stores that fulfil it."""

import time
from typing import Final

from .base import Clock, Store
from .sqlite import SqliteStore

_SQLITE: Final = "sqlite:///"


async def open_store(url: str, *, clock: Clock = time.time) -> Store:
    """The store at ``sqlite:///relative.db`` or ``sqlite:////absolute.db``, made and migrated as needed.

    ValueError for any other URL; StoreUnavailable says what is wrong with the file.
    """
    return await SqliteStore.open(sqlite_path(url), clock=clock)


def sqlite_path(url: str) -> str:
    """The file of a ``sqlite:///`` URL; ValueError if it is none."""
    path = url.removeprefix(_SQLITE)
    if not url.startswith(_SQLITE) or not path or path == ":memory:":
        raise ValueError(f"not the URL of a store: {url!r}; use sqlite:///FILE")
    return path


__all__ = ["SqliteStore", "Store", "open_store", "sqlite_path"]

"""URLs of stores as flags."""

from typing import Final

from fotahook.store import sqlite_path

from .failures import UsageError

POSTGRES: Final = "postgresql://"


def store_file(flag: str, url: str) -> str | None:
    """The file of a SQLite store; None for one on PostgreSQL. A usage error for any other URL."""
    if url.startswith(POSTGRES):
        return None
    try:
        return sqlite_path(url)
    except ValueError as error:
        raise UsageError(f"{flag}: {error}") from error

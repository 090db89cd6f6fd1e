"""What flags say of stores: where they are, and how much they keep."""

from pathlib import Path
from typing import Final

from .errors import UsageError

POSTGRES: Final = "postgresql://"
LONGEST_DAYS: Final = 3650.0


def store_file(flag: str, url: str) -> str | None:
    """The file of a SQLite store; None for one on PostgreSQL. A usage error for any other URL."""
    if url.startswith(POSTGRES):
        return None
    # Not before a store is named: commands about a service need none.
    from fotahook.store import sqlite_path

    try:
        return sqlite_path(url)
    except ValueError as error:
        raise UsageError(f"{flag}: {error}") from error


def check_there(flag: str, url: str) -> None:
    """A usage error where no store's file is: a path misspelt must not make an empty store."""
    path = store_file(flag, url)
    if path is not None and not Path(path).exists():
        raise UsageError(f"{flag} {url}: there is no such file")


def check_retention(keep_days: float, keep_bytes: int | None) -> None:
    """A usage error for what cannot be kept for so long, or in so little."""
    if not 0 <= keep_days <= LONGEST_DAYS:
        raise UsageError(f"--keep-days {keep_days:g}: choose 0 to {LONGEST_DAYS:g} days")
    if keep_bytes is not None and keep_bytes < 0:
        raise UsageError(f"--keep-bytes {keep_bytes}: choose 0 or more")

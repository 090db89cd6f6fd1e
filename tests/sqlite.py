"""SQLite stores for tests: copies of one with the schema, which takes longer to make than most tests run."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from fotahook.store.sqlite.connection import migrate


@cache
def _empty_store() -> bytes:
    with TemporaryDirectory(prefix="fotahook-store-") as folder:
        file = Path(folder, "store.db")
        migrate(file)
        return file.read_bytes()


def put_empty_store(file: Path) -> None:
    """Write a store in which nothing is, as a process that opened it first leaves it."""
    file.touch(0o600, exist_ok=False)
    file.write_bytes(_empty_store())

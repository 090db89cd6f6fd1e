"""The secret key that is made once and kept beside a store's file."""

import contextlib
import os
import tempfile
from pathlib import Path

from fotahook.contract.keys import generate_secret_key, parse_secret_key


def key_file(store_file: str) -> Path:
    """Where the key of a store in this file is kept."""
    return Path(f"{store_file}.key")


def read_or_make_key(store_file: str) -> bytes:
    """The key beside a store's file, made if there is none; ValueError says what is wrong with it, never what it is."""
    path = key_file(store_file)
    if not path.exists():
        _make(path)
    try:
        return parse_secret_key(path.read_text(encoding="ascii", errors="replace"))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _make(path: Path) -> None:
    """Write a fresh key. Whoever comes first wins, and nobody ever sees half of one."""
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # 0600 from the start
    try:
        with os.fdopen(handle, "w") as file:
            file.write(generate_secret_key() + "\n")
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        os.unlink(draft)

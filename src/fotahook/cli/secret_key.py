"""The service's secret key: from the environment, or made once and kept beside a SQLite store's file."""

import contextlib
import os
import tempfile
from pathlib import Path
from typing import Final

from fotahook.contract.keys import generate_secret_key, parse_secret_key

from .failures import Failure

VARIABLE: Final = "FOTAHOOK_SECRET_KEY"


def secret_key(store_file: str | None) -> bytes:
    """The key; `store_file` None where the store is no file. Failure says what is wrong with it, never what it is."""
    text = os.environ.get(VARIABLE)
    if text is not None:
        return _parsed(text, VARIABLE)
    if store_file is None:
        raise Failure(
            f"{VARIABLE} is not set: every process on one PostgreSQL needs the same 32 random bytes in URL-safe "
            "base64, such as openssl rand -base64 32 | tr '+/' '-_' prints"
        )
    path = _beside(store_file)
    if not path.exists():
        _make(path)
    return _parsed(path.read_text(encoding="ascii", errors="replace"), str(path))


def key_place(store_file: str | None) -> str:
    """Where the key comes from."""
    if store_file is None or VARIABLE in os.environ:
        return VARIABLE
    return str(_beside(store_file))


def _beside(store_file: str) -> Path:
    return Path(f"{store_file}.key")


def _parsed(text: str, place: str) -> bytes:
    try:
        return parse_secret_key(text)
    except ValueError as error:
        raise Failure(f"{place}: {error}") from error


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

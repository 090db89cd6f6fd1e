"""The secret key: from the environment, or made once and kept beside a SQLite store's file."""

import os
from typing import Final

from fotahook.contract.keys import parse_secret_key
from fotahook.store.key_file import key_file, read_or_make_key

from .errors import Failure, UsageError

VARIABLE: Final = "FOTAHOOK_SECRET_KEY"


def secret_key(store_file: str | None) -> bytes:
    """The key; `store_file` None where the store is no file. Failure says what is wrong with it, never what it is."""
    if (key := secret_key_from_environment()) is not None:
        return key
    if store_file is None:
        raise Failure(
            f"{VARIABLE} is not set: every process on one PostgreSQL needs the same 32 random bytes in URL-safe "
            "base64, such as openssl rand -base64 32 | tr '+/' '-_' prints"
        )
    try:
        return read_or_make_key(store_file)
    except ValueError as error:
        raise Failure(str(error)) from error


def secret_key_from_environment() -> bytes | None:
    """The key that the variable holds, if it is set. UsageError if that is none."""
    text = os.environ.get(VARIABLE)
    try:
        return None if text is None else parse_secret_key(text)
    except ValueError as error:
        raise UsageError(f"{VARIABLE}: {error}") from error


def key_place(store_file: str | None) -> str:
    """Where the key comes from."""
    return VARIABLE if store_file is None or VARIABLE in os.environ else str(key_file(store_file))

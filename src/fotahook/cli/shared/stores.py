"""Stores as flags name them, and the secret key that goes with one."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, TypeAlias

from cyclopts import Parameter
from cyclopts.validators import Number

from .errors import Failure, UsageError
from .output import Json

VARIABLE: Final = "FOTAHOOK_SECRET_KEY"

KeepDays: TypeAlias = Annotated[
    float,
    Parameter(help="Days that the bytes of delivered and dead messages are kept.", validator=Number(gte=0, lte=3650)),
]
KeepBytes: TypeAlias = Annotated[
    int | None,
    Parameter(help="Size of the store in bytes above which the oldest are removed earlier.", validator=Number(gte=0)),
]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class StoreFlags:
    """Flags of the commands that open a store themselves."""

    store: Annotated[str, Parameter(env_var="FOTAHOOK_STORE")] = "sqlite:///fotahook.db"
    "The store of the service, or a listener's inbox."
    as_json: Json = False


DEFAULT_STORE: Final = StoreFlags()


def store_file(flag: str, url: str) -> str | None:
    """The file of a SQLite store; None for one on PostgreSQL. A usage error for any other URL."""
    if url.startswith("postgresql://"):
        return None
    # Commands about a service do not wait for stores to load.
    from fotahook.store import sqlite_path

    try:
        return sqlite_path(url)
    except ValueError as error:
        raise UsageError(f"{flag}: {error}") from error


def check_exists(flag: str, url: str) -> None:
    """A usage error if a SQLite store has no file: a misspelt path must not make an empty store."""
    path = store_file(flag, url)
    if path is not None and not Path(path).exists():
        raise UsageError(f"{flag} {url}: there is no such file")


def secret_key(file: str | None) -> bytes:
    """The key from the environment, or the one beside a SQLite store's file, made if there is none.

    Failure says what is wrong with it, but does not show it.
    """
    if (key := secret_key_from_environment()) is not None:
        return key
    if file is None:
        raise Failure(
            f"{VARIABLE} is not set: every process on one PostgreSQL needs the same 32 random bytes in URL-safe "
            "base64, such as openssl rand -base64 32 | tr '+/' '-_' prints"
        )
    from fotahook.store.key_file import read_or_make_key

    try:
        return read_or_make_key(file)
    except ValueError as error:
        raise Failure(str(error)) from error


def secret_key_from_environment() -> bytes | None:
    """The key in the variable, None if it is not set. UsageError if it is invalid."""
    from fotahook.contract.keys import parse_secret_key

    text = os.environ.get(VARIABLE)
    try:
        return None if text is None else parse_secret_key(text)
    except ValueError as error:
        raise UsageError(f"{VARIABLE}: {error}") from error


def key_source(file: str | None) -> str:
    """Where the key comes from: the variable or the key file."""
    from fotahook.store.key_file import key_file

    return VARIABLE if file is None or VARIABLE in os.environ else str(key_file(file))

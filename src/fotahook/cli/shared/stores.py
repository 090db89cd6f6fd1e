"""Stores as flags name them, and the secret key that goes with one."""

import logging
import os
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias, TypeVar
from urllib.parse import urlsplit

from cyclopts import Group, Parameter
from cyclopts.validators import Number

from .errors import Failure, UsageError, flag_named
from .output import Json

if TYPE_CHECKING:
    from asyncio import Runner

    from fotahook.store import Store
    from fotahook.store.records import Retention

T = TypeVar("T")
InStore = Annotated[T, Parameter(group=Group("Store", sort_key=2))]

VARIABLE: Final = "FOTAHOOK_SECRET_KEY"
PREVIOUS: Final = "FOTAHOOK_PREVIOUS_SECRET_KEY"

log = logging.getLogger("fotahook")

Days: TypeAlias = Annotated[float, Parameter(validator=Number(gte=0, lte=3650))]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class StoreFlags:
    """Flags of the commands that open a store themselves."""

    store: Annotated[str, Parameter(env_var="FOTAHOOK_STORE")] = "sqlite:///fotahook.db"
    "The store of the service, or a listener's inbox."
    as_json: Json = False

    def run(self, do: "Callable[[Store], Coroutine[Any, Any, T]]", *, new: bool = False) -> T:
        """The result of `do` with the store, which must exist unless it may be `new`."""
        with opened("--store", self.store, new=new) as (store, runner):
            return runner.run(do(store))


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class RetentionFlags:
    """What a store keeps of messages that are delivered or dead."""

    keep_days: InStore[Days] = 30.0
    "Days that the bytes of delivered and dead messages are kept."
    keep_attempts: InStore[Days] = 30.0
    "Days that attempts are kept, once the bytes are removed."
    keep_ids: InStore[Days] = 400.0
    "Days that ids and idempotency keys are kept: duplicates are recognized for so long."
    keep_bytes: InStore[Annotated[int | None, Parameter(validator=Number(gte=0))]] = None
    "Size of the store in bytes above which the oldest are removed earlier."

    @property
    def retention(self) -> "Retention":
        """The same for the store."""
        from fotahook.delivery.policy import DAY
        from fotahook.store.records import Retention

        bodies, attempts, ids = (days * DAY for days in (self.keep_days, self.keep_attempts, self.keep_ids))
        return Retention(seconds=bodies, attempts=attempts, ids=ids, bytes=self.keep_bytes)


DEFAULT_STORE: Final = StoreFlags()
DEFAULT_RETENTION: Final = RetentionFlags()


def store_file(flag: str, url: str) -> str | None:
    """The file of a SQLite store; None for one on PostgreSQL. A usage error for any other URL."""
    if url.startswith("postgresql://"):
        return None
    # Commands about a service do not wait for stores to load.
    from fotahook.store import sqlite_path

    with flag_named(flag):
        return sqlite_path(url)


def check_exists(flag: str, url: str) -> None:
    """A usage error if a SQLite store has no file: a misspelt path must not make an empty store."""
    path = store_file(flag, url)
    if path is not None and not Path(path).exists():
        raise UsageError(f"{flag} {url}: there is no such file")


@contextmanager
def opened(flag: str, url: str, *, new: bool = False) -> "Iterator[tuple[Store, Runner]]":
    """A store, which must exist unless it may be `new`, and what runs its methods."""
    if not new:
        check_exists(flag, url)
    # Nor for an event loop.
    from asyncio import Runner

    from fotahook.store import open_store

    with Runner() as runner:
        store = runner.run(open_store(url))
        try:
            yield store, runner
        finally:
            runner.run(store.close())


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

    with _failing():
        return read_or_make_key(file)


@contextmanager
def _failing() -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise Failure(str(error)) from error


def secret_key_from_environment(variable: str = VARIABLE) -> bytes | None:
    """The key in the variable, None if it is not set. UsageError if it is invalid."""
    from fotahook.contract.keys import parse_secret_key

    text = os.environ.get(variable)
    with flag_named(variable):
        return None if text is None else parse_secret_key(text)


async def open_secret_keys(store: "Store", file: str | None) -> tuple[bytes, bytes | None]:
    """The key of an open store, and the one before it if that is given. Failure if the store was used with another."""
    from fotahook.store.key_file import check_key, check_key_exists, readable_by_others

    previous = secret_key_from_environment(PREVIOUS)
    with _failing():
        if file is not None and secret_key_from_environment() is None:
            await check_key_exists(store, file)
        key = secret_key(file)
        await check_key(store, key, previous)
    for path in readable_by_others(file) if file is not None else ():
        log.warning("%s can be read by other users: chmod 600 %s", path, path)
    return key, previous


def key_source(file: str | None) -> str:
    """Where the key comes from: the variable or the key file."""
    from fotahook.store.key_file import key_file

    return VARIABLE if file is None or VARIABLE in os.environ else str(key_file(file))


async def when_it_answers(url: str, job: Callable[[], Awaitable[T]]) -> T:
    """What `job` returns with the store at a URL. While its server is away, a line in the log says it is waited for."""
    from asyncio import sleep

    from fotahook.store.records import StoreError

    delays = chain((1, 2, 4, 8, 16), repeat(30))
    while True:
        try:
            return await job()
        except StoreError as error:
            if urlsplit(url).scheme == "sqlite" or not _is_away(error):
                raise
            seconds = next(delays)
            log.warning("%s; trying again in %d s", error, seconds)
        await sleep(seconds)


def _is_away(error: BaseException | None) -> bool:
    while error is not None:
        # 08: the connection was lost; 57: PostgreSQL starts, stops or takes too long; 53300: it has no connection left.
        # 25006: it is a standby, as yet.
        state = getattr(error, "sqlstate", None) or ""
        if isinstance(error, OSError) or state.startswith(("08", "57", "53300", "25006")):
            return True
        error = error.__cause__ or error.__context__
    return False

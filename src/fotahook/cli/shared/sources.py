"""What commands work on: a service by its URL and the SDK's credentials, or a store by its URL and its secret key."""

import logging
import os
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias, TypeVar

from cyclopts import Group, Parameter
from cyclopts.validators import Number

from fotahook.client import AsyncClient, Client, OperatorClient
from fotahook.contract.auth import SessionCredentials, ThingspaceOauthCredentials
from fotahook.contract.operator import AccountState
from fotahook.contract.servers import checked_base_url

from .arguments import flag_class
from .errors import Failure, UsageError, flag_named
from .output import Json, note

if TYPE_CHECKING:
    from asyncio import Runner

    from fotahook.listener.inbox import InboxMessages
    from fotahook.store import Store
    from fotahook.store.records import Retention

T = TypeVar("T")
C = TypeVar("C", Client, AsyncClient)
InStore = Annotated[T, Parameter(group=Group("Store", sort_key=2))]
Days: TypeAlias = Annotated[float, Parameter(validator=Number(gte=0, lte=3650))]
Messages: TypeAlias = "OperatorClient | InboxMessages"

VARIABLE: Final = "FOTAHOOK_SECRET_KEY"
PREVIOUS: Final = "FOTAHOOK_PREVIOUS_SECRET_KEY"
# What `fotahook serve --dev` provisions; importing them from the service room would load all of it.
_DEV_CLIENT: Final = ("dev", "dev-secret")
_DEV_USER: Final = ("dev", "dev-password")
_LOCAL: Final = ", or give --local for a service in --dev"

log = logging.getLogger("fotahook")


def _check_base_url(_: object, url: str) -> None:
    """A usage error for an invalid URL. It is not shown: it may carry a password."""
    try:
        checked_base_url(url)
    except ValueError as error:
        raise UsageError("--base-url" + str(error).removeprefix("base_url")) from error


BaseUrl: TypeAlias = Annotated[str, Parameter(validator=_check_base_url)]


@flag_class
class Remote:
    base_url: BaseUrl = "http://127.0.0.1:8080"
    "The service to call."
    local: Annotated[bool, Parameter(name=("--local", "--dev"))] = False
    "Use the credentials of a service in --dev instead of those in the environment."
    as_json: Json = False

    def operator(self, max_retries: int = 2) -> OperatorClient:
        """The SDK for fotahook's own calls. UsageError names a missing variable."""
        names = "THINGSPACE_OAUTH_OAUTH_CLIENT_ID", "THINGSPACE_OAUTH_OAUTH_CLIENT_SECRET"
        client_id, secret = _DEV_CLIENT if self.local else (os.environ.get(name, "") for name in names)
        if not client_id or not secret:
            raise UsageError(f"no credentials: set {' and '.join(names)}{_LOCAL}")
        return OperatorClient(self.base_url, client_id, secret, max_retries=max_retries)

    def client(self, kind: type[C]) -> C:
        """The SDK for ThingSpace's calls, for threads or for an event loop. UsageError names a missing variable."""
        if self.local:
            return kind(
                base_url=self.base_url,
                thingspace_oauth_credentials=ThingspaceOauthCredentials(*_DEV_CLIENT),
                vz_m2m_token_credentials=SessionCredentials(*_DEV_USER),
            )
        try:
            return kind.from_environment(base_url=self.base_url)
        except ValueError as error:
            raise UsageError(f"{error}{_LOCAL if 'no credentials' in str(error) else ''}") from error


@flag_class
class Source(Remote):
    inbox: str | None = None
    "A listener's inbox, such as sqlite:///inbox.db, instead of a service; the listener may be running."

    @contextmanager
    def open(self) -> Iterator[Messages]:
        """Access to the messages. UsageError if there is no such inbox, or no credentials for a service."""
        if self.inbox is None:
            with self.operator() as client:
                yield client
            return
        # Commands about a service do not wait for stores to load.
        from fotahook.listener.inbox import InboxMessages

        with opened("--inbox", self.inbox) as (store, runner):
            yield InboxMessages(store, runner)


def warn_if_unknown(client: Messages, name: str, account: AccountState | None = None) -> None:
    """Say on stderr that an account was never used: its name may be misspelt."""
    if isinstance(client, OperatorClient) and not (account or client.account(name)).known:
        note(f"account {name!r} is unknown: it never had a callback or a message; check the name")


@flag_class
class StoreFlags:
    store: Annotated[str, Parameter(env_var="FOTAHOOK_STORE")] = "sqlite:///fotahook.db"
    "The store of the service, or a listener's inbox."
    as_json: Json = False

    def run(self, do: "Callable[[Store], Coroutine[Any, Any, T]]", *, new: bool = False) -> T:
        with opened("--store", self.store, new=new) as (store, runner):
            return runner.run(do(store))


@flag_class
class RetentionFlags:
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
        from fotahook.delivery.policy import DAY
        from fotahook.store.records import Retention

        seconds, attempts, ids = (days * DAY for days in (self.keep_days, self.keep_attempts, self.keep_ids))
        return Retention(seconds=seconds, attempts=attempts, ids=ids, bytes=self.keep_bytes)


def store_file(flag: str, url: str) -> str | None:
    """The file of a SQLite store; None for one on PostgreSQL. A usage error for any other URL."""
    # Commands about a service do not wait for stores to load, nor for an event loop.
    from fotahook.store import sqlite_path

    with flag_named(flag):
        return None if url.startswith("postgresql://") else sqlite_path(url)


@contextmanager
def opened(flag: str, url: str, *, new: bool = False) -> "Iterator[tuple[Store, Runner]]":
    """A store, which must exist unless it may be `new`, and what runs its methods."""
    from asyncio import Runner

    from fotahook.store import open_store

    if not new and (path := store_file(flag, url)) is not None and not Path(path).exists():
        # A misspelt path must not make an empty store.
        raise UsageError(f"{flag} {url}: there is no such file")
    with Runner() as runner:
        store = runner.run(open_store(url))
        try:
            yield store, runner
        finally:
            runner.run(store.close())


def paged(read: Callable[[Any], Sequence[T]], name: str, last: str | int | None) -> Iterator[T]:
    while page := read(last):
        last = getattr(page[-1], name)
        yield from page


def secret_key(file: str | None) -> bytes:
    """The key from the environment, or the one beside a SQLite store's file, made if there is none."""
    from fotahook.store.key_file import read_or_make_key

    if (key := secret_key_from_environment()) is not None:
        return key
    if file is None:
        raise Failure(
            f"{VARIABLE} is not set: every process on one PostgreSQL needs the same 32 random bytes in URL-safe "
            "base64, such as openssl rand -base64 32 | tr '+/' '-_' prints"
        )
    return read_or_make_key(file)


def secret_key_from_environment(variable: str = VARIABLE) -> bytes | None:
    """The key in the variable, None if it is not set. UsageError if it is invalid."""
    from fotahook.contract.keys import parse_secret_key

    with flag_named(variable):
        return parse_secret_key(os.environ[variable]) if variable in os.environ else None


def check_keys() -> None:
    """Before a store is made: UsageError for an invalid key in the environment."""
    for variable in (VARIABLE, PREVIOUS):
        secret_key_from_environment(variable)


async def open_secret_keys(store: "Store", file: str | None) -> tuple[bytes, bytes | None]:
    """The key of an open store, and the one before it if that is given. Failure if the store was used with another."""
    from fotahook.store.key_file import check_key, check_key_exists, readable_by_others

    previous = secret_key_from_environment(PREVIOUS)
    try:
        if file is not None and VARIABLE not in os.environ:
            await check_key_exists(store, file)
        key = secret_key(file)
        await check_key(store, key, previous)
    except ValueError as error:
        raise Failure(str(error)) from error
    for path in readable_by_others(file) if file is not None else ():
        log.warning("%s can be read by other users: chmod 600 %s", path, path)
    return key, previous


async def when_it_answers(url: str, job: Callable[[], Awaitable[T]]) -> T:
    """What `job` returns with the store at a URL. While its server is away, a line in the log says it is waited for."""
    from asyncio import sleep

    from fotahook.store.records import StoreError

    seconds = 1
    while True:
        try:
            return await job()
        except StoreError as error:
            if url.startswith("sqlite:") or not _is_away(error):
                raise
            log.warning("%s; trying again in %d s", error, seconds)
        await sleep(seconds)
        seconds = min(2 * seconds, 30)


def _is_away(error: BaseException | None) -> bool:
    if error is None:
        return False
    # 08: the connection was lost; 57: PostgreSQL starts, stops or takes too long; 53300: it has no connection left.
    # 25006: it is a standby, as yet.
    state = str(getattr(error, "sqlstate", ""))
    is_away = isinstance(error, OSError) or state.startswith(("08", "57", "53300", "25006"))
    return is_away or _is_away(error.__cause__ or error.__context__)

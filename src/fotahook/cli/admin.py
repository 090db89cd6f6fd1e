"""`fotahook admin`: who may use a service, and maintenance of its store, which these commands open themselves."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Annotated, Final, Literal, TypeVar

import msgspec
from cyclopts import App, Parameter
from msgspec import UNSET

from fotahook import service
from fotahook.contract.urls import without_password
from fotahook.delivery.policy import DAY
from fotahook.service import SCOPES
from fotahook.store import Store, migrate_store, open_store
from fotahook.store.records import Credential, Retention

from .shared.arguments import split_at_commas
from .shared.configuration import PREFIX
from .shared.errors import UsageError
from .shared.output import Columns, counting, print_facts, print_json, print_list
from .shared.stores import DEFAULT_STORE, KeepBytes, KeepDays, StoreFlags, check_exists, store_file

PAUSE_SECONDS: Final = 0.01
"""Pause between two steps of pruning, in which a service on the same file gets its turn."""

T = TypeVar("T")

Kind = Literal["client", "user"]

Accounts = Annotated[tuple[str, ...], Parameter(name="--account", help="Account that is allowed; repeatable.")]
Scopes = Annotated[
    tuple[str, ...],
    Parameter(name="--scope", converter=split_at_commas, help=f"Allowed: {', '.join(SCOPES)}; repeatable."),
]
AllAccounts = Annotated[bool, Parameter(help="Allow all accounts.")]


class Entry(msgspec.Struct, frozen=True, rename="camel"):
    """A client or a user as it is listed; `accounts` None means all of them."""

    name: str
    accounts: tuple[str, ...] | None
    scopes: tuple[str, ...]
    created_at: datetime
    age_seconds: int

    @classmethod
    def of(cls, credential: Credential) -> "Entry":
        """The entry of a stored credential."""
        age = time.time() - credential.created_at
        created_at = datetime.fromtimestamp(credential.created_at, UTC)
        return cls(credential.id, credential.accounts, credential.scopes, created_at, int(age))


COLUMNS: Columns[Entry] = {
    "name": lambda it: it.name,
    "accounts": lambda it: "(all)" if it.accounts is None else " ".join(it.accounts),
    "scopes": lambda it: " ".join(it.scopes),
    "created": lambda it: it.created_at,
    "age": lambda it: format_age(it.age_seconds),
}


def _group(
    kind: Kind,
    description: str,
    secret: str,
    fields: tuple[str, str],
) -> App:
    """The commands for clients, or for users."""
    group = App(name=kind, help=description)

    @group.command(
        help=f"""Make a {kind} and print its {secret}, which is shown only once.

        Without --account it is for all accounts, without --scope it may do everything.

        Example: fotahook admin {kind} create campaigns --account 0000123456-00001 --scope callbacks
        """
    )
    def create(
        name: str, /, *, accounts: Accounts = (), scopes: Scopes = SCOPES, flags: StoreFlags = DEFAULT_STORE
    ) -> None:
        made = _in_store(
            flags.store,
            lambda it: service.create_credential(it, kind, name, accounts=accounts or None, scopes=scopes),
            new=True,
        )
        print_facts(dict(zip(fields, (name, made), strict=True)), as_json=flags.as_json)

    @group.command(
        name="list",
        help=f"""List the {kind}s, oldest first: what they may do, and how old they are.

        Example: fotahook admin {kind} list
        """,
    )
    def list_(*, flags: StoreFlags = DEFAULT_STORE) -> None:
        found = _in_store(flags.store, lambda store: store.credentials(kind, ""))
        print_list(COLUMNS, [[Entry.of(credential) for credential in found]], as_json=flags.as_json)

    _add_changes(group, kind, secret)
    return group


def _add_changes(group: App, kind: Kind, secret: str) -> None:
    """The commands that change what a client or a user may do."""

    @group.command(
        help=f"""Change what a {kind} may do; what is not given stays. It takes effect within a second.

        Example: fotahook admin {kind} grant campaigns --all-accounts --scope callbacks
        """
    )
    def grant(
        name: str,
        /,
        *,
        accounts: Accounts = (),
        all_accounts: AllAccounts = False,
        scopes: Scopes = (),
        flags: StoreFlags = DEFAULT_STORE,
    ) -> None:
        if accounts and all_accounts:
            raise UsageError("--account and --all-accounts: give one of them")
        if not (accounts or all_accounts or scopes):
            raise UsageError("give --account, --all-accounts or --scope")
        allowed = accounts or (None if all_accounts else UNSET)
        granted = _in_store(
            flags.store, lambda it: service.grant(it, kind, name, accounts=allowed, scopes=scopes or UNSET)
        )
        if granted is None:
            raise _unknown(kind, name)
        print_list(COLUMNS, [[Entry.of(granted)]], as_json=flags.as_json)

    @group.command(
        help=f"""Revoke a {kind}: its {secret} becomes invalid, and what it has open ends within a second.

        Example: fotahook admin {kind} revoke campaigns
        """
    )
    def revoke(name: str, /, *, flags: StoreFlags = DEFAULT_STORE) -> None:
        if not _in_store(flags.store, lambda store: service.revoke(store, kind, name)):
            raise _unknown(kind, name)
        print_facts({"name": name, "revoked": True}, as_json=flags.as_json)


app = App(name="admin", help="Manage clients, users and the store of a service.")
app.command(
    _group(
        "client",
        "Clients: they publish, operate, and ask for ThingSpace's OAuth token.",
        "secret",
        ("clientId", "clientSecret"),
    )
)
app.command(_group("user", "Users: they log in for ThingSpace's session token.", "password", ("username", "password")))


@app.command
def migrate(*, flags: StoreFlags = DEFAULT_STORE) -> None:
    """Bring a store that an older fotahook made to this one's schema.

    Stop the service and back its store up first. Each migration is one transaction, so running this twice, or in two
    places at once, does no harm. A store that does not exist is made.

    Example: fotahook admin migrate --store sqlite:///fotahook.db
    """
    store_file("--store", flags.store)
    done = asyncio.run(migrate_store(flags.store))
    url = without_password(flags.store)
    if flags.as_json:
        print_json({"before": done.before, "after": done.after, "applied": done.applied})
    elif not done.applied:
        print(f"{url} has schema {done.after}, as it should: nothing to do")
    elif done.before == 0:
        print(f"{url} was made, with schema {done.after}")
    else:
        print(f"{url} went from schema {done.before} to {done.after}: {', '.join(done.applied)}")


@app.command
def prune(
    *,
    keep_days: Annotated[KeepDays, Parameter(env_var=f"{PREFIX}KEEP_DAYS")] = 30.0,
    keep_bytes: Annotated[KeepBytes, Parameter(env_var=f"{PREFIX}KEEP_BYTES")] = None,
    flags: StoreFlags = DEFAULT_STORE,
) -> None:
    """Remove now what a service removes gradually: the bytes of old messages that are delivered or dead.

    It works in small steps, whether the service runs or not. Ids stay, so that duplicates are still recognized.

    Example: fotahook admin prune --keep-days 7
    """
    check_exists("--store", flags.store)
    bodies, size = asyncio.run(_prune(flags.store, Retention(seconds=keep_days * DAY, bytes=keep_bytes)))
    if flags.as_json:
        print_json({"bodies": bodies, "bytes": size})
    else:
        print(f"{without_password(flags.store)}: removed the bytes of {bodies} messages, {size} in all")


async def _prune(url: str, retention: Retention) -> tuple[int, int]:
    """Number and size of the removed bodies."""
    bodies = size = 0
    store = await open_store(url)
    try:
        with counting(None, "pruned") as count:
            while (step := await store.prune(retention)).more:
                bodies, size = bodies + step.bodies, size + step.bytes
                count(bodies)
                await asyncio.sleep(PAUSE_SECONDS)
    finally:
        await store.close()
    return bodies, size


def _in_store(url: str, do: Callable[[Store], Awaitable[T]], *, new: bool = False) -> T:
    """The result of `do` with a store, which must exist unless it may be `new`."""
    if not new:
        check_exists("--store", url)

    async def run() -> T:
        store = await open_store(url)
        try:
            return await do(store)
        finally:
            await store.close()

    return asyncio.run(run())


def _unknown(kind: str, name: str) -> UsageError:
    return UsageError(f"there is no {kind} {name!r}; see fotahook admin {kind} list")


def format_age(seconds: int) -> str:
    """A time in its largest unit."""
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds // length}{unit}"
    return f"{max(seconds, 0)}s"

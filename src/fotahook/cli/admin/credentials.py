"""`fotahook admin`: who may use a service, and maintenance of its store, which these commands open themselves."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Annotated, Literal, TypeVar

import msgspec
from cyclopts import App, Parameter
from msgspec import UNSET

from fotahook import service
from fotahook.service import SCOPES
from fotahook.store import Store, open_store
from fotahook.store.records import Credential

from ..shared.arguments import split_at_commas
from ..shared.errors import UsageError
from ..shared.stores import DEFAULT_STORE, StoreFlags, check_exists
from ..shared.tables import Columns, print_facts, print_list

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
app.command("fotahook.cli.admin.maintenance:migrate")
app.command("fotahook.cli.admin.maintenance:prune")


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

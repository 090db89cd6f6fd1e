"""`fotahook admin`: who may use a service, and upkeep. It opens the store itself: who may write to it may do this."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Final, Literal, TypeVar

import msgspec
from cyclopts import App, Parameter
from msgspec import UNSET

from fotahook import service
from fotahook.service import SCOPES
from fotahook.store import Store, open_store
from fotahook.store.records import Credential

from ..shared.configuration import PREFIX
from ..shared.errors import UsageError
from ..shared.store_flags import check_there
from ..shared.tables import print_facts, print_structs
from ..shared.times import shown_moment

T = TypeVar("T")

Account = Annotated[tuple[str, ...], Parameter(help="Account it is for; may be given more than once.")]
Scope = Annotated[tuple[str, ...], Parameter(help=f"What it may do: {', '.join(SCOPES)}; may be given more than once.")]
AllAccounts = Annotated[bool, Parameter(help="For all accounts.")]
StoreUrl = Annotated[str, Parameter(help="The service's store.", env_var=f"{PREFIX}STORE")]
Json = Annotated[bool, Parameter(name="--json", help="Print JSON.")]

COLUMNS: Final = ("name", "accounts", "scopes", "created", "age")


@dataclass(frozen=True)
class Kind:
    """Clients or users: what they are called, and what can be done with them."""

    name: Literal["client", "user"]
    help: str
    secret: str
    shown_as: tuple[str, str]
    ends_with: str


class Entry(msgspec.Struct, frozen=True, rename="camel"):
    """A client or a user as it is listed; `accounts` None means all of them."""

    name: str
    accounts: tuple[str, ...] | None
    scopes: tuple[str, ...]
    created_at: datetime
    age_seconds: int


CLIENT: Final = Kind(
    name="client",
    help="Clients: they publish, operate, and ask for ThingSpace's OAuth token.",
    secret="secret",
    shown_as=("clientId", "clientSecret"),
    ends_with="tokens",
)
USER: Final = Kind(
    name="user",
    help="Users: they log in for ThingSpace's session token.",
    secret="password",
    shown_as=("username", "password"),
    ends_with="sessions",
)


def _group(kind: Kind) -> App:
    """The commands for clients, or for users."""
    group = App(name=kind.name, help=kind.help)

    @group.command(
        help=f"""Make a {kind.name} and print its {kind.secret}, which is shown this once.

        Without --account it is for all accounts, without --scope it may do everything.

        Example: fotahook admin {kind.name} create campaigns --account 0000123456-00001 --scope callbacks
        """
    )
    def create(
        name: str,
        /,
        *,
        account: Account = (),
        scope: Scope = SCOPES,
        store: StoreUrl = "sqlite:///fotahook.db",
        as_json: Json = False,
    ) -> None:
        secret = _in_store(
            store,
            lambda opened: service.create_credential(opened, kind.name, name, accounts=account or None, scopes=scope),
            made=True,
        )
        print_facts(dict(zip(kind.shown_as, (name, secret), strict=True)), as_json=as_json)

    @group.command(
        name="list",
        help=f"""List the {kind.name}s, the oldest first: what they may do, and how old they are.

        Example: fotahook admin {kind.name} list
        """,
    )
    def show(*, store: StoreUrl = "sqlite:///fotahook.db", as_json: Json = False) -> None:
        found = _in_store(store, lambda opened: opened.credentials(kind.name, ""))
        now = time.time()
        print_structs(COLUMNS, [_entry(each, now) for each in found], _row, as_json=as_json)

    @group.command(
        help=f"""Change what a {kind.name} may do. What is not given stays.

        It holds within a second, for {kind.ends_with} that are open too.

        Example: fotahook admin {kind.name} grant campaigns --all-accounts --scope callbacks
        """
    )
    def grant(
        name: str,
        /,
        *,
        account: Account = (),
        all_accounts: AllAccounts = False,
        scope: Scope = (),
        store: StoreUrl = "sqlite:///fotahook.db",
        as_json: Json = False,
    ) -> None:
        if account and all_accounts:
            raise UsageError("--account and --all-accounts: give one of them")
        if not (account or all_accounts or scope):
            raise UsageError("give --account, --all-accounts or --scope")
        accounts = account or (None if all_accounts else UNSET)
        granted = _in_store(
            store, lambda opened: service.grant(opened, kind.name, name, accounts=accounts, scopes=scope or UNSET)
        )
        if granted is None:
            raise _unknown(kind, name)
        print_structs(COLUMNS, [_entry(granted, time.time())], _row, as_json=as_json)

    @group.command(
        help=f"""Revoke a {kind.name}: its {kind.secret} is good for nothing any more, and its {kind.ends_with} end.

        It holds within a second.

        Example: fotahook admin {kind.name} revoke campaigns
        """
    )
    def revoke(name: str, /, *, store: StoreUrl = "sqlite:///fotahook.db", as_json: Json = False) -> None:
        if not _in_store(store, lambda opened: service.revoke(opened, kind.name, name)):
            raise _unknown(kind, name)
        print_facts({"name": name, "revoked": True}, as_json=as_json)

    return group


app = App(name="admin", help="Clients and users of a service, and the upkeep of its store.")
app.command(_group(CLIENT))
app.command(_group(USER))
app.command("fotahook.cli.admin.maintenance:migrate")
app.command("fotahook.cli.admin.maintenance:prune")


def _in_store(url: str, do: Callable[[Store], Awaitable[T]], *, made: bool = False) -> T:
    """What `do` finds or does in a store, which must be there unless it may be `made`."""
    if not made:
        check_there("--store", url)

    async def opened() -> T:
        store = await open_store(url)
        try:
            return await do(store)
        finally:
            await store.close()

    return asyncio.run(opened())


def _unknown(kind: Kind, name: str) -> UsageError:
    return UsageError(f"there is no {kind.name} {name!r}; see fotahook admin {kind.name} list")


def _entry(credential: Credential, now: float) -> Entry:
    return Entry(
        name=credential.id,
        accounts=credential.accounts,
        scopes=credential.scopes,
        created_at=datetime.fromtimestamp(credential.created_at, UTC),
        age_seconds=int(now - credential.created_at),
    )


def _row(entry: Entry) -> Sequence[str]:
    accounts = "(all)" if entry.accounts is None else " ".join(entry.accounts)
    age = _age(entry.age_seconds)
    return entry.name, accounts, " ".join(entry.scopes), shown_moment(entry.created_at), age


def _age(seconds: int) -> str:
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds // length}{unit}"
    return f"{max(seconds, 0)}s"

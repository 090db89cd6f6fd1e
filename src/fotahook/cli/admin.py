"""`fotahook admin`: who may use a service, and upkeep. It opens the store itself: who may write to it may do this."""

import asyncio
from collections.abc import Awaitable
from typing import Annotated, Protocol

from cyclopts import App, Parameter

from fotahook.service import SCOPES, create_client, create_user
from fotahook.store import Store, open_store

from .configuration import PREFIX
from .output import print_facts

app = App(name="admin", help="Clients and users of a service, and the upkeep of its store.")
client = App(name="client", help="Clients: they publish, operate, and ask for ThingSpace's OAuth token.")
user = App(name="user", help="Users: they log in for ThingSpace's session token.")
app.command(client)
app.command(user)
app.command("fotahook.cli.upkeep:migrate")
app.command("fotahook.cli.upkeep:prune")

Account = Annotated[
    tuple[str, ...], Parameter(help="Account it is for; may be given more than once, all of them without it.")
]
Scope = Annotated[tuple[str, ...], Parameter(help=f"What it may do: {', '.join(SCOPES)}; all of it without this.")]
StoreUrl = Annotated[str, Parameter(help="The service's store.", env_var=f"{PREFIX}STORE")]
Json = Annotated[bool, Parameter(name="--json", help="Print JSON.")]


class Create(Protocol):
    """`create_client` or `create_user` of the service."""

    def __call__(
        self, store: Store, name: str, /, *, accounts: tuple[str, ...] | None, scopes: tuple[str, ...]
    ) -> Awaitable[str]: ...


@client.command(name="create")
def create_a_client(
    name: str,
    /,
    *,
    account: Account = (),
    scope: Scope = SCOPES,
    store: StoreUrl = "sqlite:///fotahook.db",
    as_json: Json = False,
) -> None:
    """Make a client and print its secret, which is shown this once.

    Example: fotahook admin client create campaigns --account 0000123456-00001 --scope publish
    """
    secret = _create(create_client, name, account, scope, store)
    print_facts({"clientId": name, "clientSecret": secret}, as_json=as_json)


@user.command(name="create")
def create_a_user(
    name: str,
    /,
    *,
    account: Account = (),
    scope: Scope = SCOPES,
    store: StoreUrl = "sqlite:///fotahook.db",
    as_json: Json = False,
) -> None:
    """Make a user for the session login and print the password, which is shown this once.

    Example: fotahook admin user create operations
    """
    password = _create(create_user, name, account, scope, store)
    print_facts({"username": name, "password": password}, as_json=as_json)


def _create(create: Create, name: str, accounts: tuple[str, ...], scopes: tuple[str, ...], url: str) -> str:
    async def create_in_store() -> str:
        store = await open_store(url)
        try:
            return await create(store, name, accounts=accounts or None, scopes=scopes)
        finally:
            await store.close()

    return asyncio.run(create_in_store())

"""`fotahook admin`: who may use a service, and maintenance of its store, which these commands open themselves."""

import asyncio
import getpass
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Annotated, Any, Final, Literal, TypeVar

from cyclopts import App, Parameter
from cyclopts.config import Env
from cyclopts.validators import Number

from fotahook.contract.addresses import without_password
from fotahook.delivery.policy import DAY
from fotahook.service import credentials
from fotahook.store import Store, migrate_store, records
from fotahook.store.key_file import mark_key
from fotahook.store.records import Credential
from fotahook.store.views import audit_entry, to_datetime, to_datetime_or_none

from .shared.arguments import Limit, OptionalAccount, flag_class, split_at_commas
from .shared.errors import UsageError
from .shared.output import counting, fields, limited, note, print_facts, print_json, print_list
from .shared.sources import RetentionFlags, StoreFlags, opened, paged, secret_key, store_file

PAUSE_SECONDS: Final = 0.01
"""Pause between two steps of pruning, in which a service on the same file gets its turn."""

T = TypeVar("T")
Kind = Literal["client", "user"]
Hours = Annotated[float, Parameter(validator=Number(gte=0, lte=8760))]
_SCOPE: Final = Parameter(converter=split_at_commas, help=f"Allowed: {', '.join(credentials.SCOPES)}; repeatable.")


@flag_class
class Grants:
    account: tuple[str, ...] = ()
    "Account that is allowed; repeatable."
    all_accounts: bool = False
    "Allow all accounts."
    scope: Annotated[tuple[str, ...], _SCOPE] = ()
    network: Annotated[tuple[str, ...], Parameter(converter=split_at_commas)] = ()
    "Network (CIDR) it may be used from; repeatable."
    expires_days: Annotated[float | None, Parameter(validator=Number(gte=0, lte=36500))] = None
    "Days until it ends; 0 for never."

    def given(self) -> dict[str, Any]:
        if self.account and self.all_accounts:
            raise UsageError("--account and --all-accounts: give one of them")
        lists = {"accounts": self.account, "scopes": self.scope, "networks": self.network}
        given: dict[str, Any] = {name: values for name, values in lists.items() if values}
        if self.expires_days is not None:
            given["expires_at"] = time.time() + self.expires_days * DAY if self.expires_days else None
        return given | ({"accounts": None} if self.all_accounts else {})


def create(kind: Kind, name: str, /, *, grants: Grants = Grants(), flags: StoreFlags = StoreFlags()) -> None:
    """Make a client or a user, and print the secret or password, which is shown only once.

    It may do nothing that is not given: --scope says what, --account or --all-accounts for which accounts.
    """
    given = grants.given()
    made = flags.run(lambda it: credentials.create_credential(it, kind, name, **given, by=operator()), new=True)
    facts = {"clientId": name, "clientSecret": made} if kind == "client" else {"username": name, "password": made}
    print_facts(facts, as_json=flags.as_json)
    if not {"accounts", "scopes"} <= set(given):
        note(f"{name} may do nothing yet: grant --scope, and --account or --all-accounts")


def list_(kind: Kind, /, *, flags: StoreFlags = StoreFlags()) -> None:
    """List clients or users, oldest first, and what they may do."""
    _print(flags.run(lambda it: credentials.list_credentials(it, kind)), flags)


def grant(kind: Kind, name: str, /, *, grants: Grants = Grants(), flags: StoreFlags = StoreFlags()) -> None:
    """Change what a client or a user may do; what is not given stays. It takes effect within a second."""
    if not (given := grants.given()):
        raise UsageError("give --account, --all-accounts or --scope, --network or --expires-days")
    granted = flags.run(lambda it: credentials.grant(it, kind, name, **given, by=operator()))
    _print([_known(granted, kind, name)], flags)


def revoke(kind: Kind, name: str, /, *, flags: StoreFlags = StoreFlags()) -> None:
    """Revoke a client or a user: it is refused from now on, and what it has open ends within a second."""
    revoked = flags.run(lambda it: credentials.revoke(it, kind, name, by=operator()))
    _known(revoked or None, kind, name)
    print_facts({"name": name, "revoked": True}, as_json=flags.as_json)


def rotate(kind: Kind, name: str, /, *, overlap_hours: Hours = 24.0, flags: StoreFlags = StoreFlags()) -> None:
    """Make a new secret for a client and print it; it is shown only once. The former one stays valid for a time.

    Args:
        overlap_hours: Hours for which the former secret stays valid.
    """
    made = flags.run(lambda it: credentials.rotate_secret(it, name, overlap=overlap_hours * 3600, by=operator()))
    print_facts({"clientId": name, "clientSecret": _known(made, kind, name)}, as_json=flags.as_json)


app = App(name="admin", help="Manage clients, users and the store of a service.")
_BOTH: Final[dict[str, Callable[..., None]]] = {
    "create {} --account 0000123456-00001 --scope {}": create,
    "list": list_,
    "grant {} --all-accounts --scope callbacks": grant,
    "revoke {}": revoke,
}
_OF_CLIENTS: Final = "Clients: they publish, operate, and ask for ThingSpace's OAuth token."
for kind, about, names, more in (
    ("client", _OF_CLIENTS, ("campaigns", "publish"), {"rotate {}": rotate}),
    ("user", "Users: they log in for ThingSpace's session token.", ("operations", "callbacks"), {}),
):
    app.command(group := App(name=kind, help=about))
    for example, command in (_BOTH | more).items():
        epilogue = f"Example: fotahook admin {kind} {example.format(*names)}"
        group.command(partial(command, kind), name=example.partition(" ")[0], help_epilogue=epilogue)


def _known(found: T | None, kind: Kind, name: str) -> T:
    if found is None:
        raise UsageError(f"there is no {kind} {name!r}; see fotahook admin {kind} list")
    return found


def _print(found: Sequence[Credential], flags: StoreFlags) -> None:
    columns: dict[str, Callable[[dict[str, Any]], object]] = {
        "name": lambda it: it["name"],
        "accounts": lambda it: "(all)" if it["accounts"] is None else " ".join(it["accounts"]),
        "scopes": lambda it: " ".join(it["scopes"]),
        "created": lambda it: it["createdAt"],
    }
    if any(one.networks or one.expires_at for one in found):
        columns["networks"] = lambda it: " ".join(it["networks"]) or "(any)"
        columns["expires"] = lambda it: it["expiresAt"]
    entries = []
    for it in found:
        shown = {"name": it.id, "accounts": it.accounts, "scopes": it.scopes, "networks": it.networks}
        times = {"createdAt": to_datetime(it.created_at), "expiresAt": to_datetime_or_none(it.expires_at)}
        entries.append(shown | times)
    print_list(columns, entries, as_json=flags.as_json)


@app.command(help_epilogue="Example: fotahook admin audit --limit 0 --json > audit.ndjson")
def audit(*, account: OptionalAccount = None, limit: Limit = 50, flags: StoreFlags = StoreFlags()) -> None:
    """Print the audit log, newest first: who changed credentials, keys, callbacks and limits, paused or redelivered.

    Args:
        account: Only entries about this account.
    """
    among = None if account is None else [account]
    columns = fields("at actor from=address action account subject detail")
    with opened("--store", flags.store) as (store, runner):

        def listed(size: int) -> Iterator[records.AuditEntry]:
            return paged(lambda last: runner.run(store.audit(among=among, before=last, limit=size)), "number", None)

        print_list(columns, map(audit_entry, limited(listed, limit)), as_json=flags.as_json)


@app.command(help_epilogue="Example: fotahook admin migrate --store sqlite:///fotahook.db")
def migrate(*, flags: StoreFlags = StoreFlags()) -> None:
    """Bring a store that an older fotahook made to this one's schema.

    Stop the service and back its store up first. Each migration is one transaction, so running this twice, or in two
    places at once, does no harm. A store that does not exist is made.
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


@app.command(help_epilogue="Example: fotahook admin reset-key")
def reset_key(*, flags: StoreFlags = StoreFlags()) -> None:
    """Let the store work with another secret key, because the one it was used with is lost.

    With SQLite and without FOTAHOOK_SECRET_KEY it makes a new key file if there is none. All signing keys and tokens
    change: receivers need the new ones.
    """
    key = secret_key(store_file("--store", flags.store))
    entry = records.AuditEntry(**operator()._asdict(), action="secret_key.change")
    flags.run(lambda store: mark_key(store.audited(entry), key))
    print_facts({"store": without_password(flags.store), "reset": True}, as_json=flags.as_json)


@app.command(config=Env("FOTAHOOK_", command=False, show=False), help_epilogue="Example: fotahook admin prune")
def prune(*, retention: RetentionFlags = RetentionFlags(), flags: StoreFlags = StoreFlags()) -> None:
    """Remove now what a service removes gradually: old bytes, attempts and ids of messages that are delivered or dead.

    It works in small steps, whether the service runs or not. Duplicates are recognized for as long as ids are kept.
    Each flag is also a variable, such as FOTAHOOK_KEEP_DAYS.
    """

    async def pruned(store: Store) -> tuple[int, int]:
        bodies = size = 0
        with counting(None, "pruned") as count:
            while (step := await store.prune(retention.retention)).more:
                bodies, size = bodies + step.bodies, size + step.bytes
                count(bodies)
                await asyncio.sleep(PAUSE_SECONDS)
        return bodies, size

    bodies, size = flags.run(pruned)
    if flags.as_json:
        print_json({"bodies": bodies, "bytes": size})
    else:
        print(f"{without_password(flags.store)}: removed the bytes of {bodies} messages, {size} in all")


def operator() -> credentials.By:
    return credentials.By(f"admin {getpass.getuser()}", socket.gethostname())

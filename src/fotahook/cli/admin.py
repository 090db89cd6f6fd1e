"""`fotahook admin`: who may use a service, and maintenance of its store, which these commands open themselves."""

import asyncio
import getpass
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
from cyclopts import App, Parameter
from cyclopts.config import Env
from cyclopts.validators import Number

from fotahook.contract.addresses import without_password
from fotahook.contract.operator import AuditEntry
from fotahook.delivery.policy import DAY
from fotahook.service import credentials
from fotahook.store import Store, migrate_store, records
from fotahook.store.key_file import mark_key
from fotahook.store.records import Credential, Retention
from fotahook.store.views import audit_entry, to_datetime, to_datetime_or_none

from .shared.arguments import Limit, OptionalAccount, split_at_commas
from .shared.errors import UsageError
from .shared.output import Columns, counting, fields, limited, note, page_size, print_facts, print_json, print_list
from .shared.stores import DEFAULT_RETENTION, DEFAULT_STORE, RetentionFlags, StoreFlags, opened, secret_key, store_file

PAUSE_SECONDS: Final = 0.01
"""Pause between two steps of pruning, in which a service on the same file gets its turn."""

T = TypeVar("T")
Kind = Literal["client", "user"]

_SCOPE: Final = Parameter(converter=split_at_commas, help=f"Allowed: {', '.join(credentials.SCOPES)}; repeatable.")
_OVERLAP: Final = Parameter(validator=Number(gte=0, lte=8760), help="Hours for which the former secret stays valid.")


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Grants:
    """What a client or a user may do."""

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
        """Those that are given, as arguments of `create_credential` and `grant`."""
        if self.account and self.all_accounts:
            raise UsageError("--account and --all-accounts: give one of them")
        lists = {"accounts": self.account, "scopes": self.scope, "networks": self.network}
        given: dict[str, Any] = {name: values for name, values in lists.items() if values}
        if self.all_accounts:
            given["accounts"] = None
        if self.expires_days is not None:
            given["expires_at"] = time.time() + self.expires_days * DAY if self.expires_days else None
        return given


NOTHING: Final = Grants()


def create(kind: Kind, name: str, /, *, grants: Grants = NOTHING, flags: StoreFlags = DEFAULT_STORE) -> None:
    """Make a {kind} and print its {secret}, which is shown only once.

    It may do nothing that is not given: --scope says what, --account or --all-accounts for which accounts.

    Example: fotahook admin {kind} create campaigns --account 0000123456-00001 --scope publish
    """
    given = grants.given()
    made = flags.run(lambda it: credentials.create_credential(it, kind, name, **given, by=operator()), new=True)
    names = ("clientId", "clientSecret") if kind == "client" else ("username", "password")
    print_facts(dict(zip(names, (name, made), strict=True)), as_json=flags.as_json)
    if not {"accounts", "scopes"} <= set(given):
        note(f"{name} may do nothing yet: grant --scope, and --account or --all-accounts")


def list_(kind: Kind, /, *, flags: StoreFlags = DEFAULT_STORE) -> None:
    """List the {kind}s, oldest first: what they may do, and how old they are.

    Example: fotahook admin {kind} list
    """
    _print(flags.run(lambda it: credentials.list_credentials(it, kind)), flags)


def grant(kind: Kind, name: str, /, *, grants: Grants = NOTHING, flags: StoreFlags = DEFAULT_STORE) -> None:
    """Change what a {kind} may do; what is not given stays. It takes effect within a second.

    Example: fotahook admin {kind} grant campaigns --all-accounts --scope callbacks
    """
    if not (given := grants.given()):
        raise UsageError("give --account, --all-accounts or --scope, --network or --expires-days")
    granted = flags.run(lambda it: credentials.grant(it, kind, name, **given, by=operator()))
    _print([_known(granted, kind, name)], flags)


def revoke(kind: Kind, name: str, /, *, flags: StoreFlags = DEFAULT_STORE) -> None:
    """Revoke a {kind}: its {secret} becomes invalid, and what it has open ends within a second.

    Example: fotahook admin {kind} revoke campaigns
    """
    revoked = flags.run(lambda it: credentials.revoke(it, kind, name, by=operator()))
    _known(revoked or None, kind, name)
    print_facts({"name": name, "revoked": True}, as_json=flags.as_json)


def rotate(
    kind: Kind, name: str, /, *, overlap_hours: Annotated[float, _OVERLAP] = 24.0, flags: StoreFlags = DEFAULT_STORE
) -> None:
    """Make a new secret for a client and print it; it is shown only once. The former one stays valid for a time.

    Example: fotahook admin client rotate campaigns --overlap-hours 2
    """
    made = flags.run(lambda it: credentials.rotate_secret(it, name, overlap=overlap_hours * 3600, by=operator()))
    print_facts({"clientId": name, "clientSecret": _known(made, kind, name)}, as_json=flags.as_json)


app = App(name="admin", help="Manage clients, users and the store of a service.")


def _add_group(kind: Kind, secret: str, description: str, *commands: Callable[..., None]) -> None:
    """Add the commands for clients, or for users."""
    app.command(group := App(name=kind, help=description))
    for command in commands:
        bound = partial(command, kind)
        bound.__doc__ = (command.__doc__ or "").format(kind=kind, secret=secret)
        group.command(bound, name=command.__name__.rstrip("_"), help=bound.__doc__)


_CLIENTS: Final = "Clients: they publish, operate, and ask for ThingSpace's OAuth token."
_add_group("client", "secret", _CLIENTS, create, list_, grant, revoke, rotate)
_add_group("user", "password", "Users: they log in for ThingSpace's session token.", create, list_, grant, revoke)


def _known(found: T | None, kind: Kind, name: str) -> T:
    """What was found of a client or a user. UsageError if there is none."""
    if found is None:
        raise UsageError(f"there is no {kind} {name!r}; see fotahook admin {kind} list")
    return found


class Entry(msgspec.Struct, frozen=True, rename="camel"):
    """A client or a user; `accounts` None means all of them."""

    name: str
    accounts: tuple[str, ...] | None
    scopes: tuple[str, ...]
    networks: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None
    age_seconds: int


COLUMNS: Final[Columns[Entry]] = {
    "name": lambda it: it.name,
    "accounts": lambda it: "(all)" if it.accounts is None else " ".join(it.accounts),
    "scopes": lambda it: " ".join(it.scopes),
    "created": lambda it: it.created_at,
    "age": lambda it: format_age(it.age_seconds),
}
RESTRICTIONS: Final[Columns[Entry]] = {
    "networks": lambda it: " ".join(it.networks) or "(any)",
    "expires": lambda it: it.expires_at,
}


def _print(found: Sequence[Credential], flags: StoreFlags) -> None:
    entries = []
    for one in found:
        created, expires = to_datetime(one.created_at), to_datetime_or_none(one.expires_at)
        age = int(time.time() - one.created_at)
        entries.append(Entry(one.id, one.accounts, one.scopes, one.networks, created, expires, age))
    restricted = any(one.networks or one.expires_at for one in found)
    print_list({**COLUMNS, **(RESTRICTIONS if restricted else {})}, entries, as_json=flags.as_json)


@app.command
def audit(*, account: OptionalAccount = None, limit: Limit = 50, flags: StoreFlags = DEFAULT_STORE) -> None:
    """Print the audit log, newest first: who changed credentials, keys, callbacks and limits, paused or redelivered.

    Example: fotahook admin audit --limit 0 --json > audit.ndjson

    Args:
        account: Only entries about this account.
    """
    among = None if account is None else [account]
    with opened("--store", flags.store) as (store, runner):

        def listed() -> Iterator[AuditEntry]:
            before = None
            while page := runner.run(store.audit(among=among, before=before, limit=page_size(limit))):
                before = page[-1].number
                yield from map(audit_entry, page)

        columns = fields("at actor from=address action account subject detail")
        print_list(columns, limited(listed(), limit), as_json=flags.as_json)


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
def reset_key(*, flags: StoreFlags = DEFAULT_STORE) -> None:
    """Let the store work with another secret key, because the one it was used with is lost.

    With SQLite and without FOTAHOOK_SECRET_KEY it makes a new key file if there is none. All signing keys and tokens
    change: receivers need the new ones.

    Example: fotahook admin reset-key
    """
    key = secret_key(store_file("--store", flags.store))
    entry = records.AuditEntry(**operator()._asdict(), action="secret_key.change")
    flags.run(lambda store: mark_key(store.audited(entry), key))
    print_facts({"store": without_password(flags.store), "reset": True}, as_json=flags.as_json)


@app.command(config=Env("FOTAHOOK_", command=False, show=False))
def prune(*, retention: RetentionFlags = DEFAULT_RETENTION, flags: StoreFlags = DEFAULT_STORE) -> None:
    """Remove now what a service removes gradually: old bytes, attempts and ids of messages that are delivered or dead.

    It works in small steps, whether the service runs or not. Duplicates are recognized for as long as ids are kept.
    Each flag is also a variable, such as FOTAHOOK_KEEP_DAYS.

    Example: fotahook admin prune --keep-days 7
    """
    bodies, size = flags.run(lambda store: _prune(store, retention.retention))
    if flags.as_json:
        print_json({"bodies": bodies, "bytes": size})
    else:
        print(f"{without_password(flags.store)}: removed the bytes of {bodies} messages, {size} in all")


async def _prune(store: Store, retention: Retention) -> tuple[int, int]:
    """Number and size of the removed bodies."""
    bodies = size = 0
    with counting(None, "pruned") as count:
        while (step := await store.prune(retention)).more:
            bodies, size = bodies + step.bodies, size + step.bytes
            count(bodies)
            await asyncio.sleep(PAUSE_SECONDS)
    return bodies, size


def operator() -> credentials.By:
    """Who runs this command, for the audit log."""
    return credentials.By(f"admin {getpass.getuser()}", socket.gethostname())


def format_age(seconds: int) -> str:
    """A time in its largest unit."""
    unit, length = next((it for it in (("d", 86_400), ("h", 3600), ("m", 60)) if seconds >= it[1]), ("s", 1))
    return f"{max(seconds, 0) // length}{unit}"

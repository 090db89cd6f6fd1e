"""`fotahook admin`: who may use a service, and maintenance of its store, which these commands open themselves."""

import asyncio
import getpass
import socket
import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final, Literal

import msgspec
from cyclopts import App, Parameter
from cyclopts.validators import Number

from fotahook import service
from fotahook.contract.operator import AuditEntry
from fotahook.contract.urls import without_password
from fotahook.delivery.policy import DAY
from fotahook.service import SCOPES
from fotahook.store import Store, migrate_store, records
from fotahook.store.key_file import mark_key
from fotahook.store.records import Credential, Retention
from fotahook.store.views import audit_entry, to_datetime, to_datetime_or_none

from .shared.arguments import Limit, OptionalAccount, split_at_commas
from .shared.configuration import PREFIX
from .shared.errors import UsageError
from .shared.output import PAGE, Columns, counting, note, print_facts, print_json, print_list
from .shared.stores import (
    DEFAULT_STORE,
    KeepAttempts,
    KeepBytes,
    KeepDays,
    KeepIds,
    StoreFlags,
    in_store,
    secret_key,
    store_file,
)

PAUSE_SECONDS: Final = 0.01
"""Pause between two steps of pruning, in which a service on the same file gets its turn."""

Kind = Literal["client", "user"]

_ACCOUNT: Final = Parameter(name="--account", help="Account that is allowed; repeatable.")
_SCOPE: Final = Parameter(name="--scope", converter=split_at_commas, help=f"Allowed: {', '.join(SCOPES)}; repeatable.")
_NETWORK: Final = Parameter(
    name="--network", converter=split_at_commas, help="Network (CIDR) it may be used from; repeatable."
)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Grants:
    """What a client or a user may do."""

    accounts: Annotated[tuple[str, ...], _ACCOUNT] = ()
    all_accounts: bool = False
    "Allow all accounts."
    scopes: Annotated[tuple[str, ...], _SCOPE] = ()
    networks: Annotated[tuple[str, ...], _NETWORK] = ()
    expires_days: Annotated[float | None, Parameter(validator=Number(gte=0, lte=36500))] = None
    "Days until it ends; 0 for never."

    def given(self) -> dict[str, Any]:
        """Those that are given, as arguments of `create_credential` and `grant`."""
        if self.accounts and self.all_accounts:
            raise UsageError("--account and --all-accounts: give one of them")
        given = {name: value for name in ("accounts", "scopes", "networks") if (value := getattr(self, name))}
        if self.all_accounts:
            given["accounts"] = None
        if self.expires_days is not None:
            given["expires_at"] = time.time() + self.expires_days * DAY if self.expires_days else None
        return given


NOTHING: Final = Grants()


class Entry(msgspec.Struct, frozen=True, rename="camel"):
    """A client or a user as it is listed; `accounts` None means all of them."""

    name: str
    accounts: tuple[str, ...] | None
    scopes: tuple[str, ...]
    networks: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None
    age_seconds: int

    @classmethod
    def of(cls, credential: Credential) -> "Entry":
        """The entry of a stored credential."""
        age = time.time() - credential.created_at
        created_at, ends = to_datetime(credential.created_at), to_datetime_or_none(credential.expires_at)
        grants = credential.accounts, credential.scopes, credential.networks
        return cls(credential.id, *grants, created_at, ends, int(age))


COLUMNS: Columns[Entry] = {
    "name": lambda it: it.name,
    "accounts": lambda it: "(all)" if it.accounts is None else " ".join(it.accounts),
    "scopes": lambda it: " ".join(it.scopes),
    "created": lambda it: it.created_at,
    "age": lambda it: format_age(it.age_seconds),
}


RESTRICTED: Columns[Entry] = {
    **COLUMNS,
    "networks": lambda it: " ".join(it.networks) or "(any)",
    "expires": lambda it: it.expires_at,
}


def _print(found: Sequence[Credential], *, as_json: bool) -> None:
    entries = [Entry.of(each) for each in found]
    restricted = any(each.networks or each.expires_at for each in entries)
    print_list(RESTRICTED if restricted else COLUMNS, [entries], as_json=as_json)


def _group(kind: Kind, description: str, secret: str, fields: tuple[str, str]) -> App:
    """The commands for clients, or for users."""
    group = App(name=kind, help=description)

    @group.command(
        help=f"""Make a {kind} and print its {secret}, which is shown only once.

        It may do nothing that is not given: --scope says what, --account or --all-accounts for which accounts.

        Example: fotahook admin {kind} create campaigns --account 0000123456-00001 --scope publish
        """
    )
    def create(name: str, /, *, grants: Grants = NOTHING, flags: StoreFlags = DEFAULT_STORE) -> None:
        given = grants.given()

        def make(store: Store) -> Awaitable[str]:
            return service.create_credential(store, kind, name, **given, by=operator())

        made = in_store("--store", flags.store, make, new=True)
        print_facts(dict(zip(fields, (name, made), strict=True)), as_json=flags.as_json)
        if not {"accounts", "scopes"} <= set(given):
            note(f"{name} may do nothing yet: grant --scope, and --account or --all-accounts")

    @group.command(
        name="list",
        help=f"""List the {kind}s, oldest first: what they may do, and how old they are.

        Example: fotahook admin {kind} list
        """,
    )
    def list_(*, flags: StoreFlags = DEFAULT_STORE) -> None:
        found = in_store("--store", flags.store, lambda store: service.list_credentials(store, kind))
        _print(found, as_json=flags.as_json)

    _add_changes(group, kind, secret)
    return group


def _add_changes(group: App, kind: Kind, secret: str) -> None:
    """The commands that change what a client or a user may do."""

    @group.command(
        help=f"""Change what a {kind} may do; what is not given stays. It takes effect within a second.

        Example: fotahook admin {kind} grant campaigns --all-accounts --scope callbacks
        """
    )
    def grant(name: str, /, *, grants: Grants = NOTHING, flags: StoreFlags = DEFAULT_STORE) -> None:
        if not (given := grants.given()):
            raise UsageError("give --account, --all-accounts or --scope, --network or --expires-days")
        granted = in_store("--store", flags.store, lambda it: service.grant(it, kind, name, **given, by=operator()))
        if granted is None:
            raise _unknown(kind, name)
        _print([granted], as_json=flags.as_json)

    @group.command(
        help=f"""Revoke a {kind}: its {secret} becomes invalid, and what it has open ends within a second.

        Example: fotahook admin {kind} revoke campaigns
        """
    )
    def revoke(name: str, /, *, flags: StoreFlags = DEFAULT_STORE) -> None:
        if not in_store("--store", flags.store, lambda store: service.revoke(store, kind, name, by=operator())):
            raise _unknown(kind, name)
        print_facts({"name": name, "revoked": True}, as_json=flags.as_json)


_OVERLAP: Final = Parameter(validator=Number(gte=0, lte=8760), help="Hours for which the former secret stays valid.")
_CLIENTS: Final = "Clients: they publish, operate, and ask for ThingSpace's OAuth token."
clients = _group("client", _CLIENTS, "secret", ("clientId", "clientSecret"))


@clients.command
def rotate(
    name: str,
    /,
    *,
    overlap_hours: Annotated[float, _OVERLAP] = 24.0,
    flags: StoreFlags = DEFAULT_STORE,
) -> None:
    """Make a new secret for a client and print it; it is shown only once. The former one stays valid for a time.

    Example: fotahook admin client rotate campaigns --overlap-hours 2
    """
    overlap = overlap_hours * 3600
    made = in_store("--store", flags.store, lambda it: service.rotate_secret(it, name, overlap=overlap, by=operator()))
    if made is None:
        raise _unknown("client", name)
    print_facts({"clientId": name, "clientSecret": made}, as_json=flags.as_json)


app = App(name="admin", help="Manage clients, users and the store of a service.")
app.command(clients)
app.command(_group("user", "Users: they log in for ThingSpace's session token.", "password", ("username", "password")))


AUDIT_COLUMNS: Columns[AuditEntry] = {
    "at": lambda it: it.at,
    "actor": lambda it: it.actor,
    "from": lambda it: it.address,
    "action": lambda it: it.action,
    "account": lambda it: it.account,
    "subject": lambda it: it.subject,
    "detail": lambda it: it.detail,
}


@app.command
def audit(*, account: OptionalAccount = None, limit: Limit = 50, flags: StoreFlags = DEFAULT_STORE) -> None:
    """Print the audit log, newest first: who changed credentials, keys, callbacks and limits, paused or redelivered.

    Example: fotahook admin audit --limit 0 --json > audit.ndjson

    Parameters
    ----------
    account
        Only entries about this account.
    """
    entries = in_store("--store", flags.store, lambda store: _audit(store, account, limit))
    print_list(AUDIT_COLUMNS, [[audit_entry(each) for each in entries]], as_json=flags.as_json)


async def _audit(store: Store, account: str | None, limit: int) -> list[records.AuditEntry]:
    found: list[records.AuditEntry] = []
    among, before = None if account is None else [account], None
    while page := await store.audit(among=among, before=before, limit=min(limit - len(found), PAGE) if limit else PAGE):
        found, before = [*found, *page], page[-1].number
    return found


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
    in_store("--store", flags.store, lambda store: mark_key(store.audited(entry), key))
    print_facts({"store": without_password(flags.store), "reset": True}, as_json=flags.as_json)


@app.command
def prune(
    *,
    keep_days: Annotated[KeepDays, Parameter(env_var=f"{PREFIX}KEEP_DAYS")] = 30.0,
    keep_attempts: Annotated[KeepAttempts, Parameter(env_var=f"{PREFIX}KEEP_ATTEMPTS")] = 30.0,
    keep_ids: Annotated[KeepIds, Parameter(env_var=f"{PREFIX}KEEP_IDS")] = 400.0,
    keep_bytes: Annotated[KeepBytes, Parameter(env_var=f"{PREFIX}KEEP_BYTES")] = None,
    flags: StoreFlags = DEFAULT_STORE,
) -> None:
    """Remove now what a service removes gradually: old bytes, attempts and ids of messages that are delivered or dead.

    It works in small steps, whether the service runs or not. Duplicates are recognized for as long as ids are kept.

    Example: fotahook admin prune --keep-days 7
    """
    ages = {"seconds": keep_days * DAY, "attempts": keep_attempts * DAY, "ids": keep_ids * DAY}
    retention = Retention(bytes=keep_bytes, **ages)
    bodies, size = in_store("--store", flags.store, lambda store: _prune(store, retention))
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


def operator() -> service.By:
    """Who runs this command, for the audit log."""
    return service.By(f"admin {getpass.getuser()}", socket.gethostname())


def _unknown(kind: str, name: str) -> UsageError:
    return UsageError(f"there is no {kind} {name!r}; see fotahook admin {kind} list")


def format_age(seconds: int) -> str:
    """A time in its largest unit."""
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds // length}{unit}"
    return f"{max(seconds, 0)}s"

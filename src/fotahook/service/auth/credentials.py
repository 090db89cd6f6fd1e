"""Clients and users: who may ask for a token and who may log in. Their secrets are generated, and shown once."""

import re
import secrets
import time
from collections.abc import Sequence
from typing import Final, Literal

import msgspec
from msgspec import UNSET, UnsetType

from ...contract.keys import fingerprint
from ...contract.urls import account_refusal
from ...store.base import Clock, Store
from ...store.records import Credential
from ..access import SCOPES
from .passwords import COST, PasswordCost, Passwords, new_password

Accounts = Sequence[str] | None

DEV_CLIENT: Final = ("dev", "dev-secret")
DEV_USER: Final = ("dev", "dev-password")

# A colon ends the id in Authorization: Basic.
_NAME = re.compile(r"[\x21-\x39\x3b-\x7e]{1,64}")


async def create_client(
    store: Store,
    client_id: str,
    *,
    accounts: Sequence[str] | None = None,
    scopes: Sequence[str] = SCOPES,
    clock: Clock = time.time,
) -> str:
    """Make a client and return its secret, which nobody can show again.

    `accounts` None grants all of them. ValueError if there is one of this id, or if a name, account or scope is none.
    """
    secret = secrets.token_urlsafe(32)
    credential = _credential("client", client_id, fingerprint(secret), accounts, scopes, clock)
    await _create(store, credential)
    return secret


async def create_user(
    store: Store,
    username: str,
    *,
    accounts: Sequence[str] | None = None,
    scopes: Sequence[str] = SCOPES,
    clock: Clock = time.time,
    cost: PasswordCost = COST,
) -> str:
    """Make a user for the session login and return the password; otherwise as `create_client`."""
    password = new_password()
    known = await Passwords(cost).hash(password)
    await _create(store, _credential("user", username, known, accounts, scopes, clock))
    return password


async def grant_client(
    store: Store, client_id: str, *, accounts: Accounts | UnsetType = UNSET, scopes: Sequence[str] | UnsetType = UNSET
) -> Credential | None:
    """Grant a client these accounts (None: all) and scopes in place of what it has, its live tokens included.

    What is not given stays. The client as it is now; None if there is none. ValueError as from `create_client`.
    """
    return await _grant(store, "client", client_id, "token", accounts, scopes)


async def grant_user(
    store: Store, username: str, *, accounts: Accounts | UnsetType = UNSET, scopes: Sequence[str] | UnsetType = UNSET
) -> Credential | None:
    """Grant a user something else, the live sessions included; otherwise as `grant_client`."""
    return await _grant(store, "user", username, "session", accounts, scopes)


async def drop_client(store: Store, client_id: str) -> bool:
    """Forget a client and end its tokens, within a second everywhere; False if there is none."""
    return await _drop(store, "client", client_id, "token")


async def drop_user(store: Store, username: str) -> bool:
    """Forget a user and end the sessions; otherwise as `drop_client`."""
    return await _drop(store, "user", username, "session")


async def provision_dev(store: Store, *, clock: Clock = time.time, cost: PasswordCost = COST) -> None:
    """The well-known client and user of a development service, with every account and scope."""
    (client, secret), (user, password) = DEV_CLIENT, DEV_USER
    await store.save_credential(_credential("client", client, fingerprint(secret), None, SCOPES, clock))
    known = await Passwords(cost).hash(password)
    await store.save_credential(_credential("user", user, known, None, SCOPES, clock))


async def withdraw_dev(store: Store) -> None:
    """Take back what `provision_dev` gave, with every token and session of theirs: a store may outlive its `--dev`."""
    (client, secret), (user, password) = DEV_CLIENT, DEV_USER
    found = await store.credential("client", client)
    if found is not None and found.secret_hash == fingerprint(secret):
        await drop_client(store, client)
    found = await store.credential("user", user)
    if found is not None and await Passwords().prove(found.secret_hash, password):
        await drop_user(store, user)


async def _create(store: Store, credential: Credential) -> None:
    if await store.credential(credential.kind, credential.id) is not None:
        raise ValueError(f"there is a {credential.kind} {credential.id!r} already")
    await store.save_credential(credential)


async def _grant(
    store: Store,
    kind: str,
    name: str,
    granted: str,
    accounts: Accounts | UnsetType,
    scopes: Sequence[str] | UnsetType,
) -> Credential | None:
    while (found := await store.credential(kind, name)) is not None:
        now = msgspec.structs.replace(
            found,
            accounts=found.accounts if accounts is UNSET else _checked_accounts(accounts),
            scopes=found.scopes if scopes is UNSET else _checked_scopes(scopes),
        )
        if await store.replace_credential(found, now):
            for each in await store.credentials(granted, name):
                await _follow(store, each, now)
            return now
    return None


async def _follow(store: Store, granted: Credential, owner: Credential) -> None:
    """Let a live token or session grant what its owner has now."""
    current: Credential | None = granted
    while current is not None:
        now = msgspec.structs.replace(current, accounts=owner.accounts, scopes=owner.scopes)
        if await store.replace_credential(current, now):
            return
        current = await store.credential(granted.kind, granted.id)


async def _drop(store: Store, kind: str, name: str, granted: str) -> bool:
    if await store.credential(kind, name) is None:
        return False
    # First what grants: nothing new is granted while the old is looked for.
    await store.drop_credentials(kind, [name])
    await store.drop_credentials(granted, [each.id for each in await store.credentials(granted, name)])
    return True


def _credential(
    kind: Literal["client", "user"],
    name: str,
    secret_hash: bytes,
    accounts: Sequence[str] | None,
    scopes: Sequence[str],
    clock: Clock,
) -> Credential:
    if not _NAME.fullmatch(name):
        raise ValueError(f"a {kind}'s name has 1 to 64 visible ASCII characters and no colon: {name!r}")
    return Credential(
        kind=kind,
        id=name,
        secret_hash=secret_hash,
        accounts=_checked_accounts(accounts),
        scopes=_checked_scopes(scopes),
        created_at=float(clock()),
    )


def _checked_accounts(accounts: Accounts) -> tuple[str, ...] | None:
    for account in accounts or ():
        if (reason := account_refusal(account)) is not None:
            raise ValueError(f"{account!r}: {reason}")
    return None if accounts is None else tuple(accounts)


def _checked_scopes(scopes: Sequence[str]) -> tuple[str, ...]:
    if unknown := set(scopes).difference(SCOPES):
        raise ValueError(f"no such scope: {', '.join(sorted(unknown))}; there are {', '.join(SCOPES)}")
    # Always in one order, so that equal grants are equal.
    return tuple(scope for scope in SCOPES if scope in scopes)

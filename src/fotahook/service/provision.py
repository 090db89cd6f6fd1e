"""Clients and users: who may ask for a token and who may log in. Their secrets are generated, and shown once."""

import re
import secrets
import time
from collections.abc import Sequence
from typing import Final, Literal

from ..contract.keys import fingerprint
from ..contract.urls import account_refusal
from ..store.base import Clock, Credential, Store
from .access import SCOPES
from .sessions import new_password

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
    credential = _credential("client", client_id, secret, accounts, scopes, clock)
    await _create(store, credential)
    return secret


async def create_user(
    store: Store,
    username: str,
    *,
    accounts: Sequence[str] | None = None,
    scopes: Sequence[str] = SCOPES,
    clock: Clock = time.time,
) -> str:
    """Make a user for the session login and return the password; otherwise as `create_client`."""
    password = new_password()
    credential = _credential("user", username, password, accounts, scopes, clock)
    await _create(store, credential)
    return password


async def drop_client(store: Store, client_id: str) -> bool:
    """Forget a client and end its tokens, within a second everywhere; False if there is none."""
    return await _drop(store, "client", client_id, "token")


async def drop_user(store: Store, username: str) -> bool:
    """Forget a user and end the sessions; otherwise as `drop_client`."""
    return await _drop(store, "user", username, "session")


async def provision_dev(store: Store, *, clock: Clock = time.time) -> None:
    """The well-known client and user of a development service, with every account and scope."""
    await store.save_credential(_credential("client", *DEV_CLIENT, None, SCOPES, clock))
    await store.save_credential(_credential("user", *DEV_USER, None, SCOPES, clock))


async def withdraw_dev(store: Store) -> None:
    """Take back what `provision_dev` gave, with every token and session of theirs: a store may outlive its `--dev`."""
    for kind, (name, secret), granted in (("client", DEV_CLIENT, "token"), ("user", DEV_USER, "session")):
        found = await store.credential(kind, name)
        if found is not None and found.secret_hash == fingerprint(secret):
            await _drop(store, kind, name, granted)


async def _create(store: Store, credential: Credential) -> None:
    if await store.credential(credential.kind, credential.id) is not None:
        raise ValueError(f"there is a {credential.kind} {credential.id!r} already")
    await store.save_credential(credential)


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
    secret: str,
    accounts: Sequence[str] | None,
    scopes: Sequence[str],
    clock: Clock,
) -> Credential:
    if not _NAME.fullmatch(name):
        raise ValueError(f"a {kind}'s name has 1 to 64 visible ASCII characters and no colon: {name!r}")
    for account in accounts or ():
        if (reason := account_refusal(account)) is not None:
            raise ValueError(f"{account!r}: {reason}")
    if unknown := set(scopes).difference(SCOPES):
        raise ValueError(f"no such scope: {', '.join(sorted(unknown))}; there are {', '.join(SCOPES)}")
    return Credential(
        kind=kind,
        id=name,
        secret_hash=fingerprint(secret),
        accounts=None if accounts is None else tuple(accounts),
        # Always in one order, so that equal grants are equal.
        scopes=tuple(scope for scope in SCOPES if scope in scopes),
        created_at=float(clock()),
    )

"""Clients, which get access tokens, and users, who log in. Their secrets are generated and shown once.

Passwords are stored as argon2id hashes, computed one at a time, in a thread: logins use the memory of one hash, and do
not block other calls.
"""

import asyncio
import re
import secrets
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Literal

import msgspec
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from msgspec import UNSET, UnsetType

from ..contract.keys import fingerprint
from ..contract.urls import account_refusal
from ..store.base import Clock, Store
from ..store.records import Credential

Kind = Literal["client", "user"]
Scope = Literal["callbacks", "publish", "operate"]
SCOPES: Final[tuple[Scope, ...]] = ("callbacks", "publish", "operate")

DEV_CLIENT: Final = ("dev", "dev-secret")
DEV_USER: Final = ("dev", "dev-password")

_ISSUED: Final[dict[Kind, str]] = {"client": "token", "user": "session"}
"""The kind of the credentials that are issued to each kind."""
# A colon would end the id in Authorization: Basic.
_NAME = re.compile(r"[\x21-\x39\x3b-\x7e]{1,64}")


@dataclass(frozen=True, kw_only=True)
class PasswordCost:
    """The cost of one hash; the defaults are OWASP's minimum for argon2id (Password Storage Cheat Sheet)."""

    memory_kib: int = 19 * 1024
    passes: int = 2
    lanes: int = 1


COST: Final = PasswordCost()


class Passwords:
    """Hashes and verifies passwords."""

    def __init__(self, cost: PasswordCost = COST) -> None:
        self._hasher = PasswordHasher(time_cost=cost.passes, memory_cost=cost.memory_kib, parallelism=cost.lanes)
        # Not a lock: it would be released when its holder is cancelled, while the thread still works.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="fotahook-passwords")

    async def hash(self, password: str) -> bytes:
        """The hash to store."""
        hashed = await asyncio.get_running_loop().run_in_executor(self._thread, self._hasher.hash, _bytes(password))
        return hashed.encode()

    async def verify(self, stored: bytes | None, password: str) -> bool:
        """Whether the password matches. `stored` is None for an unknown user, which takes the same time."""
        if stored is None:
            await self.hash(password)
            return False
        verify = self._hasher.verify
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, verify, stored, _bytes(password))
        except (VerificationError, InvalidHashError):
            return False

    def is_outdated(self, stored: bytes) -> bool:
        """Whether the hash was made at another cost."""
        return self._hasher.check_needs_rehash(stored.decode())


def new_password() -> str:
    """A random password."""
    return secrets.token_urlsafe(18)


async def create_credential(
    store: Store,
    kind: Kind,
    name: str,
    *,
    accounts: Sequence[str] | None = None,
    scopes: Sequence[str] = SCOPES,
    clock: Clock = time.time,
    cost: PasswordCost = COST,
) -> str:
    """Create a client or user and return its secret or password, of which only a hash is stored.

    `accounts` None grants all accounts. Raises ValueError if the name is taken, or if it, an account or a scope is
    invalid.
    """
    secret = secrets.token_urlsafe(32) if kind == "client" else new_password()
    stored = fingerprint(secret) if kind == "client" else await Passwords(cost).hash(secret)
    credential = _credential(kind, name, stored, accounts, scopes, clock)
    if await store.credential(kind, name) is not None:
        raise ValueError(f"the {kind} {name!r} already exists")
    await store.save_credential(credential)
    return secret


async def grant(
    store: Store,
    kind: Kind,
    name: str,
    *,
    accounts: Sequence[str] | UnsetType | None = UNSET,
    scopes: Sequence[str] | UnsetType = UNSET,
) -> Credential | None:
    """Replace what a client or user may do, live tokens and sessions included; UNSET keeps the present value.

    Returns the changed credential; None if there is none of this name. Raises ValueError as `create_credential` does.
    """
    while (found := await store.credential(kind, name)) is not None:
        changed = msgspec.structs.replace(
            found,
            accounts=found.accounts if accounts is UNSET else _checked_accounts(accounts),
            scopes=found.scopes if scopes is UNSET else _checked_scopes(scopes),
        )
        if await store.replace_credential(found, changed):
            for issued in await store.credentials(_ISSUED[kind], name):
                await _copy_grants(store, changed, issued)
            return changed
    return None


async def revoke(store: Store, kind: Kind, name: str) -> bool:
    """Delete a client or user and end its tokens or sessions, everywhere within a second; False if there is none."""
    if await store.credential(kind, name) is None:
        return False
    # The owner first: nothing new is issued to it while the issued ones are looked up.
    await store.drop_credentials(kind, [name])
    issued = await store.credentials(_ISSUED[kind], name)
    await store.drop_credentials(_ISSUED[kind], [each.id for each in issued])
    return True


async def provision_dev(store: Store, *, clock: Clock = time.time, cost: PasswordCost = COST) -> None:
    """Create the well-known client and user of a development service, with every account and scope."""
    (client, secret), (user, password) = DEV_CLIENT, DEV_USER
    stored = await Passwords(cost).hash(password)
    await store.save_credential(_credential("client", client, fingerprint(secret), None, SCOPES, clock))
    await store.save_credential(_credential("user", user, stored, None, SCOPES, clock))


async def withdraw_dev(store: Store) -> None:
    """Undo `provision_dev`, tokens and sessions included: a store may be used without `--dev` later."""
    (client, secret), (user, password) = DEV_CLIENT, DEV_USER
    found = await store.credential("client", client)
    if found is not None and found.secret_hash == fingerprint(secret):
        await revoke(store, "client", client)
    found = await store.credential("user", user)
    if found is not None and await Passwords().verify(found.secret_hash, password):
        await revoke(store, "user", user)


async def _copy_grants(store: Store, owner: Credential, issued: Credential) -> None:
    current: Credential | None = issued
    while current is not None:
        changed = msgspec.structs.replace(current, accounts=owner.accounts, scopes=owner.scopes)
        if await store.replace_credential(current, changed):
            return
        current = await store.credential(issued.kind, issued.id)


def _credential(
    kind: Kind, name: str, secret_hash: bytes, accounts: Sequence[str] | None, scopes: Sequence[str], clock: Clock
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


def _checked_accounts(accounts: Sequence[str] | None) -> tuple[str, ...] | None:
    for account in accounts or ():
        if (reason := account_refusal(account)) is not None:
            raise ValueError(f"{account!r}: {reason}")
    return None if accounts is None else tuple(accounts)


def _checked_scopes(scopes: Sequence[str]) -> tuple[str, ...]:
    if unknown := set(scopes).difference(SCOPES):
        raise ValueError(f"no such scope: {', '.join(sorted(unknown))}; use {', '.join(SCOPES)}")
    # In one fixed order, so that equal grants are equal.
    return tuple(scope for scope in SCOPES if scope in scopes)


def _bytes(password: str) -> bytes:
    # Any text may be sent as a password, even half a surrogate pair: it is wrong, never an error.
    return password.encode("utf-8", "surrogatepass")

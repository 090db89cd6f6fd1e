"""Clients, which get access tokens, and users, who log in. Their secrets are generated and shown once. Passwords are
stored as argon2id hashes, computed one at a time, in a thread: logins use the memory of one hash, and do not block
other calls."""

import asyncio
import re
import secrets
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, TypedDict, Unpack

import msgspec
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from ..contract.addresses import account_refusal, parse_networks
from ..contract.keys import fingerprint
from ..store.base import Clock, Store
from ..store.records import AuditEntry, Credential

Kind = Literal["client", "user"]
Scope = Literal["callbacks", "publish", "operate", "read", "bodies"]
SCOPES: Final[tuple[Scope, ...]] = ("callbacks", "publish", "operate", "read", "bodies")

DEV_CLIENT: Final = ("dev", "dev-secret")
DEV_USER: Final = ("dev", "dev-password")
_DEV: Final = "dev"
"""The owner of what `provision_dev` made, by which `withdraw_dev` finds it."""

_ISSUED: Final[dict[Kind, Literal["token", "session"]]] = {"client": "token", "user": "session"}
# A colon would end the id in Authorization: Basic.
_NAME = re.compile(r"[\x21-\x39\x3b-\x7e]{1,64}")


class Grants(TypedDict, total=False):
    """What a client or user may do."""

    accounts: Sequence[str] | None
    """None grants all accounts."""
    scopes: Sequence[str]
    networks: Sequence[str]
    """Where it may be used (CIDR); empty for everywhere."""
    expires_at: float | None


class By(NamedTuple):
    """Who changes a credential, and from where, for the audit log."""

    actor: str = "library"
    address: str = ""


LIBRARY: Final = By()


@dataclass(frozen=True, kw_only=True)
class PasswordCost:
    """The cost of one hash; the defaults are OWASP's minimum for argon2id (Password Storage Cheat Sheet)."""

    memory_kib: int = 19 * 1024
    passes: int = 2
    lanes: int = 1


COST: Final = PasswordCost()
PASSWORD_BYTES: Final = 18


class Passwords:
    def __init__(self, cost: PasswordCost = COST) -> None:
        self._hasher = PasswordHasher(time_cost=cost.passes, memory_cost=cost.memory_kib, parallelism=cost.lanes)
        # Not a lock: it would be released when its holder is cancelled, while the thread still works.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="fotahook-passwords")

    async def hash(self, password: str) -> bytes:
        # Any text may be sent as a password, even half a surrogate pair: it is wrong, never an error.
        run = asyncio.get_running_loop().run_in_executor
        return (await run(self._thread, self._hasher.hash, password.encode("utf-8", "surrogatepass"))).encode()

    async def verify(self, stored: bytes | None, password: str) -> bool:
        """Whether the password matches. `stored` is None for an unknown user, which takes the same time."""
        if stored is None:
            await self.hash(password)
            return False
        run = asyncio.get_running_loop().run_in_executor
        try:
            return await run(self._thread, self._hasher.verify, stored, password.encode("utf-8", "surrogatepass"))
        except (VerificationError, InvalidHashError):
            return False


async def create_credential(
    store: Store,
    kind: Kind,
    name: str,
    *,
    clock: Clock = time.time,
    cost: PasswordCost = COST,
    by: By = LIBRARY,
    **grants: Unpack[Grants],
) -> str:
    """Create a client or user and return its secret or password, of which only a hash is stored. It may do nothing that
    is not given. Raises ValueError if the name is taken, or if a value is invalid."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"a {kind}'s name has 1 to 64 visible ASCII characters and no colon: {name!r}")
    checked = _checked(grants)
    secret = secrets.token_urlsafe(32 if kind == "client" else PASSWORD_BYTES)
    stored = fingerprint(secret) if kind == "client" else await Passwords(cost).hash(secret)
    if await store.credential(kind, name) is not None:
        raise ValueError(f"the {kind} {name!r} already exists")
    credential = Credential(kind=kind, id=name, secret_hash=stored, created_at=float(clock()), **checked)
    await _audited(store, by, "create", credential).save_credential(credential)
    return secret


async def grant(
    store: Store, kind: Kind, name: str, *, by: By = LIBRARY, **grants: Unpack[Grants]
) -> Credential | None:
    """Replace what a client or user may do, live tokens and sessions included; what is not given stays. Returns the
    changed credential; None if there is none of this name. Raises ValueError as `create_credential` does."""
    checked = _checked(grants)
    while (found := await store.credential(kind, name)) is not None:
        changed = msgspec.structs.replace(found, **checked)
        if await _audited(store, by, "grant", changed).replace_credential(found, changed):
            for issued in await store.credentials(_ISSUED[kind], name):
                current: Credential | None = issued
                while current and not await store.replace_credential(current, inherit(changed, current)):
                    current = await store.credential(issued.kind, issued.id)
            return changed
    return None


async def rotate_secret(
    store: Store, name: str, *, overlap: float, clock: Clock = time.time, by: By = LIBRARY
) -> str | None:
    """A new secret of a client; the present one stays valid for `overlap` seconds. None if there is no such client."""
    secret, now = secrets.token_urlsafe(32), float(clock())
    former = Credential(kind="secret", id=secrets.token_hex(8), owner=name, created_at=now, expires_at=now + overlap)
    while (found := await store.credential("client", name)) is not None:
        # The former secret first: whatever happens next, one of them is valid.
        await store.save_credential(msgspec.structs.replace(former, secret_hash=found.secret_hash))
        changed = msgspec.structs.replace(found, secret_hash=fingerprint(secret))
        if await _audited(store, by, "rotate", changed).replace_credential(found, changed):
            return secret
        await store.drop_credentials("secret", [former.id])
    return None


async def revoke(store: Store, kind: Kind, name: str, *, by: By = LIBRARY) -> bool:
    """Delete a client or user and end its tokens or sessions, everywhere within a second; False if there is none."""
    if (found := await store.credential(kind, name)) is None:
        return False
    # The owner first: nothing new is issued to it while the issued ones are looked up.
    await _audited(store, by, "revoke", found).drop_credentials(kind, [name])
    for owned in (_ISSUED[kind], "secret"):
        await store.drop_credentials(owned, [each.id for each in await store.credentials(owned, name)])
    return True


async def provision_dev(store: Store, *, clock: Clock = time.time, cost: PasswordCost = COST) -> None:
    """Create the well-known client and user of a development service, with every account and scope."""
    known: dict[Kind, tuple[str, str]] = {"client": DEV_CLIENT, "user": DEV_USER}
    for kind, (name, secret) in known.items():
        stored = fingerprint(secret) if kind == "client" else await Passwords(cost).hash(secret)
        made = Credential(kind=kind, id=name, owner=_DEV, secret_hash=stored, accounts=None, scopes=SCOPES)
        await store.save_credential(msgspec.structs.replace(made, created_at=float(clock())))


async def withdraw_dev(store: Store) -> None:
    """Undo `provision_dev`, changed passwords, tokens and sessions included: a store may be served without `--dev`."""
    for kind in _ISSUED:
        for made in await store.credentials(kind, _DEV):
            await revoke(store, kind, made.id, by=By("serve without --dev"))


async def list_credentials(store: Store, kind: Kind) -> list[Credential]:
    found = [*await store.credentials(kind, ""), *await store.credentials(kind, _DEV)]
    return sorted(found, key=lambda each: each.created_at)


def inherit(owner: Credential, issued: Credential) -> Credential:
    """A token or session that may do what its owner may, and not for longer."""
    ends = min((end for end in (issued.expires_at, owner.expires_at) if end is not None), default=None)
    granted = {name: getattr(owner, name) for name in ("accounts", "scopes", "networks")}
    return msgspec.structs.replace(issued, **granted, expires_at=ends)


def _audited(store: Store, by: By, what: str, credential: Credential) -> Store:
    detail = ""
    if what in ("create", "grant"):
        accounts = "all" if credential.accounts is None else " ".join(credential.accounts) or "none"
        networks = f" networks={' '.join(credential.networks)}" if credential.networks else ""
        detail = f"accounts={accounts} scopes={' '.join(credential.scopes) or 'none'}{networks}"
    action = f"{credential.kind}.{what}"
    return store.audited(AuditEntry(**by._asdict(), action=action, subject=credential.id, detail=detail))


def _checked(grants: Grants) -> dict[str, Any]:
    fields = dict[str, Any](grants)
    if (accounts := grants.get("accounts")) is not None:
        for account in accounts:
            if (reason := account_refusal(account)) is not None:
                raise ValueError(f"{account!r}: {reason}")
        fields["accounts"] = tuple(accounts)
    if (scopes := grants.get("scopes")) is not None:
        if unknown := set(scopes).difference(SCOPES):
            raise ValueError(f"no such scope: {', '.join(sorted(unknown))}; use {', '.join(SCOPES)}")
        # In one fixed order, so that equal grants are equal.
        fields["scopes"] = tuple(scope for scope in SCOPES if scope in scopes)
    if "networks" in grants:
        fields["networks"] = tuple(map(str, parse_networks(grants["networks"])))
    return fields

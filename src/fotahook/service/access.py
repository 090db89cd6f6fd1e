"""Who is calling and what they may do: by the OAuth token, and for ThingSpace's calls by the session token too.

Where there are two tokens, both must grant what is asked. Tokens are looked up by their hash; the secrets of clients
and users are compared as hashes, in constant time.
"""

import base64
import binascii
import hmac
import re
from dataclasses import dataclass
from typing import Final, Literal

import msgspec
from starlette.requests import Request

from ..contract.auth import SESSION_IDLE
from ..contract.keys import fingerprint
from ..store.records import Credential
from . import errors, requests
from .context import Service

Scope = Literal["callbacks", "publish", "operate"]
SCOPES: Final[tuple[Scope, ...]] = ("callbacks", "publish", "operate")

SESSION_HEADER: Final = "VZ-M2M-Token"

_GUID: Final = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")

_SLIDE_SECONDS: Final = 20.0
"""A session in use is written this often; it may end as much before its 20 idle minutes are over."""


@dataclass(frozen=True)
class Caller:
    """A client, in ThingSpace's calls together with the user who logged in."""

    grants: tuple[Credential, ...]

    @property
    def name(self) -> str:
        """Who did it, for history."""
        return "/".join(grant.owner for grant in self.grants)

    @property
    def accounts(self) -> tuple[str, ...] | None:
        """The accounts that are the caller's; None means all of them."""
        lists = [set(grant.accounts) for grant in self.grants if grant.accounts is not None]
        return tuple(sorted(set.intersection(*lists))) if lists else None

    def need(self, scope: Scope) -> None:
        """Refuse a caller without this scope."""
        if not all(scope in grant.scopes for grant in self.grants):
            raise errors.missing_scope(scope)

    def has(self, account: str) -> bool:
        """Whether the account is one of the caller's."""
        return all(grant.accounts is None or account in grant.accounts for grant in self.grants)


async def bearer(service: Service, request: Request) -> Caller:
    """The caller of one of fotahook's own calls."""
    return Caller((await _counted(service, request),))


async def bearer_again(service: Service, request: Request) -> Caller:
    """The same, looked at once more while the call goes on, which is no new request."""
    return Caller((await _token(service, request),))


async def both_tokens(service: Service, request: Request) -> Caller:
    """The caller of one of ThingSpace's calls, whose session lives on by it."""
    token = await _counted(service, request)
    return Caller((token, await session(service, request)))


async def client(service: Service, request: Request) -> Credential:
    """The client that shows its id and secret, as the token calls want it."""
    client_id, secret = _basic(request)
    found = proven(await service.store.credential("client", client_id), secret)
    if found is None:
        raise errors.wrong_client()
    service.rates.count(found.id, service.now())
    return found


async def session(service: Service, request: Request) -> Credential:
    """The session whose token the request carries."""
    text = requests.header(request, SESSION_HEADER)
    if not text:
        raise errors.no_session()
    token = canonical_guid(text)
    if token is None:
        raise errors.malformed_session()
    found = await service.memory.find("session", token_id(token))
    if found is None:
        raise errors.ended_session()
    return await _kept_alive(service, found)


def proven(credential: Credential | None, secret: str) -> Credential | None:
    """The credential, if there is one and this is its secret; both questions take the same time."""
    known = credential.secret_hash if credential is not None else bytes(32)
    return credential if hmac.compare_digest(fingerprint(secret), known) else None


async def follow(service: Service, granted: Credential, kind: str, problem: errors.Problem) -> None:
    """Have what was just written follow its client or user: it ends if those went meanwhile, and grants what they may.

    Whoever drops or changes those does it first, and then looks for what was granted: so one of the two sees the other.
    """
    owner = await service.store.credential(kind, granted.owner)
    if owner is None:
        await service.store.drop_credentials(granted.kind, [granted.id])
        service.memory.forget(granted.kind, granted.id)
        raise problem
    if (owner.accounts, owner.scopes) != (granted.accounts, granted.scopes):
        now = msgspec.structs.replace(granted, accounts=owner.accounts, scopes=owner.scopes)
        # If it is not as it was any more, then whoever changed or ended it knew better.
        await service.store.replace_credential(granted, now)
        service.memory.forget(granted.kind, granted.id)


def token_id(token: str) -> str:
    """The id under which a token is stored, which tells nothing of the token."""
    return fingerprint(token).hex()


def canonical_guid(text: str) -> str | None:
    """A GUID as the login call writes it; None if the text is none."""
    guid = text.lower()
    return guid if _GUID.fullmatch(guid) else None


async def _counted(service: Service, request: Request) -> Credential:
    token = await _token(service, request)
    service.rates.count(token.owner, service.now())
    return token


async def _token(service: Service, request: Request) -> Credential:
    scheme, _, token = (requests.header(request, "Authorization") or "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise errors.no_token()
    found = await service.memory.find("token", token_id(token))
    if found is None:
        raise errors.wrong_token()
    return found


async def _kept_alive(service: Service, session: Credential) -> Credential:
    """The session, its 20 minutes begun anew where that was not done just now."""
    if _is_fresh(session, service.now()):
        return session
    async with service.changing:
        try:
            return await _renewed(service, session)
        finally:
            service.memory.forget("session", session.id)


async def _renewed(service: Service, session: Credential) -> Credential:
    # Read again: another call may have done it, and a logout has the last word.
    while (current := await service.store.credential("session", session.id)) is not None:
        if _is_fresh(current, service.now()):
            return current
        renewed = msgspec.structs.replace(current, expires_at=service.now() + SESSION_IDLE)
        if await service.store.replace_credential(current, renewed):
            await follow(service, renewed, "user", errors.ended_session())
            return renewed
    raise errors.ended_session()


def _is_fresh(session: Credential, now: float) -> bool:
    return session.expires_at is not None and session.expires_at > now + SESSION_IDLE - _SLIDE_SECONDS


def _basic(request: Request) -> tuple[str, str]:
    """The id and secret of an Authorization: Basic header."""
    scheme, _, encoded = (requests.header(request, "Authorization") or "").partition(" ")
    if scheme.lower() != "basic":
        raise errors.no_client()
    try:
        pair = base64.b64decode(encoded, validate=True).decode()
    except (binascii.Error, ValueError):
        raise errors.wrong_client() from None
    client_id, _, secret = pair.partition(":")
    return client_id, secret

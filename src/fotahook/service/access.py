"""Authentication and authorization, by an OAuth token, and for ThingSpace's calls by a session token as well. Where a
call needs both, both must grant it. Tokens are looked up by their hash; secrets are compared in constant time."""

import base64
import hmac
import math
import re
from dataclasses import dataclass
from typing import Final, Literal

import msgspec
from starlette.requests import Request

from ..contract.addresses import address_key, is_within, parse_address, parse_networks
from ..contract.auth import OAUTH_LIFETIME, SESSION_IDLE
from ..contract.keys import fingerprint
from ..store.base import Store
from ..store.records import Credential
from . import errors, requests
from .context import Service
from .credentials import Scope, inherit

Authentication = Literal["anyone", "client", "token", "both tokens"]

SESSION_HEADER: Final = "VZ-M2M-Token"
CONSOLE_COOKIE: Final = "__Host-fotahook"
CONSOLE_HEADER: Final = "Fotahook-Console"

_GUID: Final = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")

_ISSUED: Final[dict[str, tuple[Literal["token", "session"], float, errors.ErrorType]]] = {
    "client": ("token", OAUTH_LIFETIME, errors.WRONG_CLIENT),
    "user": ("session", SESSION_IDLE, errors.LOGIN_REFUSED),
}
"""By the kind of the owner: what is issued, for how long, and what refuses it to a revoked owner."""
_RENEWAL_SECONDS: Final = 20.0
"""A session in use is renewed this often, so it may end up to so much before its 20 idle minutes are over."""


@dataclass(frozen=True)
class Caller:
    """Who calls, by the credentials that authenticated the call: a client or its token, and a session where needed."""

    credentials: tuple[Credential, ...]

    @property
    def name(self) -> str:
        """The client, and after a slash the user; callback history names it."""
        return "/".join(one.id if one.kind == "client" else one.owner for one in self.credentials)

    @property
    def accounts(self) -> tuple[str, ...] | None:
        """The accounts granted to the caller; None means all."""
        lists = [set(credential.accounts) for credential in self.credentials if credential.accounts is not None]
        return tuple(sorted(set.intersection(*lists))) if lists else None

    def require(self, scope: Scope | None) -> None:
        """Raise an ApiError if the scope is not granted. Who operates accounts may read their state."""
        enough = {scope, "operate"} if scope == "read" else {scope}
        if scope is not None and not all(enough.intersection(credential.scopes) for credential in self.credentials):
            raise errors.MISSING_SCOPE(scope)

    def has(self, account: str) -> bool:
        return all(credential.accounts is None or account in credential.accounts for credential in self.credentials)


async def authenticate(service: Service, request: Request, kind: Authentication, *, counted: bool = True) -> Caller:
    """The caller of a request. Raises an ApiError if it is unknown, or, if counted, over the client's rate limit."""
    if kind == "anyone":
        return Caller(())
    if kind == "client":
        first = await _client(service, request)
    elif not (token := _authorization(request, "bearer") or console_token(request)):
        raise errors.NO_TOKEN()
    else:
        if not service.token_cache.knows("token", known_as := token_id(token)):
            check_stranger(service, request)
        if (found := await service.token_cache.find("token", known_as)) is None:
            service.stranger_limiter.count(address_key(address_of(request)), service.now())
            raise errors.WRONG_TOKEN()
        first = check_network(found, request)
    if counted:
        service.rate_limiter.count(first.id if kind == "client" else first.owner, service.now())
    return Caller((first, await _session(service, request)) if kind == "both tokens" else (first,))


async def issue(service: Service, token: str, owner: Credential, now: float, store: Store) -> Credential:
    """Store a client's new token or a user's new session. Raises an ApiError if the owner is revoked meanwhile."""
    kind, seconds, refusal = _ISSUED[owner.kind]
    issued = Credential(kind=kind, id=token_id(token), owner=owner.id, created_at=now, expires_at=now + seconds)
    issued = inherit(owner, issued)
    await store.save_credential(issued)
    await _follow_owner(service, issued, owner.kind, refusal)
    return issued


async def end(service: Service, issued: Credential, store: Store | None = None) -> None:
    await (store or service.store).drop_credentials(issued.kind, [issued.id])
    service.token_cache.invalidate(issued.kind, issued.id)


def token_id(token: str) -> str:
    return fingerprint(token).hex()


async def _client(service: Service, request: Request) -> Credential:
    if (encoded := _authorization(request, "basic")) is None:
        raise errors.NO_CLIENT()
    try:
        client_id, _, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
    except ValueError:
        service.refused_logins.count("wrong", address_of(request))
        raise errors.WRONG_CLIENT() from None
    return await verify_client(service, request, client_id, secret)


async def verify_client(service: Service, request: Request, client_id: str, secret: str) -> Credential:
    """The client with this id and secret; an ApiError if there is none, or not from here."""
    check_stranger(service, request)
    found = await service.store.credential("client", client_id)
    # An unknown client takes the same time as a wrong secret. A former secret is valid for a time after a rotation.
    former = await service.store.credentials("secret", client_id)
    stored = [bytes(32) if found is None else found.secret_hash, *(each.secret_hash for each in former)]
    matches = [hmac.compare_digest(fingerprint(secret), each) for each in stored]
    if found is None or not any(matches):
        service.stranger_limiter.count(address_key(address_of(request)), service.now())
        service.refused_logins.count("wrong", address_of(request), subject="" if found is None else found.id)
        raise errors.WRONG_CLIENT()
    try:
        return check_network(found, request)
    except errors.ApiError:
        service.refused_logins.count("network", address_of(request), subject=found.id)
        raise


def address_of(request: Request) -> str:
    """The client's address; "" if the server does not know it."""
    return request.client.host if request.client else ""


def check_stranger(service: Service, request: Request) -> None:
    """Raise an ApiError if too many authentications from this address failed: looking credentials up takes time."""
    if seconds := service.stranger_limiter.wait(address_key(address_of(request)), service.now()):
        raise errors.TOO_MANY_REQUESTS(seconds=math.ceil(seconds))


def check_network(credential: Credential, request: Request) -> Credential:
    if credential.networks:
        peer = parse_address(address_of(request))
        if peer is None or not is_within(peer, parse_networks(credential.networks)):
            raise errors.WRONG_NETWORK(peer or "an unknown address")
    return credential


def console_token(request: Request) -> str | None:
    """The token of the console's cookie, which counts only with the page's header: no other site can use it."""
    return request.cookies.get(CONSOLE_COOKIE) if CONSOLE_HEADER in request.headers else None


def require_console(request: Request) -> None:
    if CONSOLE_HEADER not in request.headers:
        raise errors.INVALID(f"Send the header {CONSOLE_HEADER}: 1, as the console's page does.")


def _authorization(request: Request, wanted: str) -> str | None:
    scheme, _, value = (requests.header(request, "Authorization") or "").partition(" ")
    return value if scheme.lower() == wanted else None


async def _session(service: Service, request: Request) -> Credential:
    token = (requests.header(request, SESSION_HEADER) or "").lower()
    if not token:
        raise errors.NO_SESSION()
    if not _GUID.fullmatch(token):
        raise errors.MALFORMED_SESSION()

    def is_stale(session: Credential) -> bool:
        return (session.expires_at or 0.0) <= service.now() + SESSION_IDLE - _RENEWAL_SECONDS

    found = await service.token_cache.find("session", known_as := token_id(token))
    if found is not None and is_stale(found):
        async with service.credential_lock:
            try:
                while found is not None and is_stale(found):
                    renewed = msgspec.structs.replace(found, expires_at=service.now() + SESSION_IDLE)
                    if await service.store.replace_credential(found, renewed):
                        await _follow_owner(service, renewed, "user", errors.ENDED_SESSION)
                        return check_network(renewed, request)
                    # Another call renewed or ended it.
                    found = await service.store.credential("session", known_as)
            finally:
                service.token_cache.invalidate("session", known_as)
    if found is None:
        raise errors.ENDED_SESSION()
    return check_network(found, request)


async def _follow_owner(service: Service, issued: Credential, kind: str, refusal: errors.ErrorType) -> None:
    """Apply to a credential just written what happened to its owner meanwhile: revocation, or other grants. Revocations
    and grants write the owner first and then look for issued credentials, so one of the two sees the other."""
    owner = await service.store.credential(kind, issued.owner)
    if owner is None:
        await end(service, issued)
        raise refusal()
    if (changed := inherit(owner, issued)) != issued:
        # Not written if it changed again: then the other writer knew the newer grants.
        await service.store.replace_credential(issued, changed)
        service.token_cache.invalidate(issued.kind, issued.id)

"""Calls that need no token: health checks, metrics, public signing keys, the OpenAPI description, and the console's
session. Its cookie, which no script can read, counts only with the page's own header, which no other site can send."""

import secrets
from dataclasses import asdict, replace
from importlib.resources import files
from typing import Final

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import Response

from ..contract.addresses import parse_address
from ..contract.auth import OAUTH_LIFETIME
from ..contract.keys import account_signing_seed, signing_seed
from ..contract.operator import Limits
from ..contract.signing import format_public_key
from ..store.records import Credential, StoreFull
from . import access, errors
from .credentials import DEV_CLIENT
from .routing import JSON, NO_STORE, Call, Endpoint

_OPENAPI: Final = files(__package__).joinpath("openapi.json").read_bytes()
METRICS_PATH: Final = "/metrics"
HEALTH_PATHS: Final = ("/healthz", "/readyz", METRICS_PATH)
"""For monitors: answered by every process, even to a client that exceeds its limits."""


class Status(msgspec.Struct, frozen=True):
    """The state of the service."""

    status: str


class PublicKey(msgspec.Struct, frozen=True):
    """The key that verifies deliveries."""

    public: str


@Endpoint("GET", "/healthz", by="anyone")
async def alive(call: Call) -> Status:
    """Answers as long as the process runs; nothing else is checked."""
    return Status("alive")


@Endpoint("GET", "/readyz", by="anyone")
async def ready(call: Call) -> Status:
    """Checks the store, its schema and the dispatcher; 503 names the part that is not ready."""
    error = await call.service.store_health.error()
    if isinstance(error, StoreFull):
        raise errors.NOT_READY(part="store", reason="it is full")
    if error is not None:
        # The same exception is raised for many requests: drop the traceback that each would add to.
        raise error.with_traceback(None)
    if part := next((part for part, works in call.service.checks.items() if not works()), None):
        raise errors.NOT_READY(part=part, reason="not working")
    return Status("ready")


@Endpoint("GET", METRICS_PATH, by="anyone")
async def metrics(call: Call) -> Response:
    """Metrics of this process and its store, to clients on this machine, and others with a token for all accounts."""
    service, request = call.service, call.request
    is_proxied = not {"x-forwarded-for", "forwarded", "via"}.isdisjoint(request.headers)
    peer = parse_address(access.address_of(request))
    if not (service.settings.open_metrics or (peer is not None and peer.is_loopback and not is_proxied)):
        caller = await access.authenticate(service, request, "token")
        caller.require("read")
        if caller.accounts is not None:
            raise errors.MISSING_SCOPE("read for all accounts")
    is_up = await service.store_health.error() is None
    content = await service.metrics.text(service.store, service.streams.total(), is_up=is_up)
    return Response(content, headers={"Content-Type": CONTENT_TYPE_LATEST})


@Endpoint("GET", "/v1/signing-key", by="anyone")
async def signing_key(call: Call) -> PublicKey:
    """The service's public key, which verifies every delivery but proves no account: prefer the account's."""
    return PublicKey(format_public_key(signing_seed(call.service.settings.secret_key)))


@Endpoint("GET", "/v1/accounts/{account}/signing-key", by="anyone")
async def account_signing_key(call: Call) -> PublicKey:
    """The public key that verifies this account's deliveries alone; every name has one, whether it is used or not."""
    return PublicKey(format_public_key(account_signing_seed(call.service.settings.secret_key, call.account)))


@Endpoint("GET", "/openapi.json", by="anyone")
async def openapi(call: Call) -> Response:
    """This description, in OpenAPI 3.1."""
    return Response(_OPENAPI, media_type=JSON)


class ConsoleLogin(msgspec.Struct, frozen=True, rename="camel"):
    """A client's id and secret."""

    client_id: str
    client_secret: str


class ConsoleSession(msgspec.Struct, frozen=True, rename="camel"):
    """Who is signed in, and with which scopes; `kind` is what the page shows, `dev` whether anybody may sign in.
    `limits`: those of an account that has none of its own; 0 for none."""

    signed_in: bool
    client: str = ""
    scopes: tuple[str, ...] = ()
    kind: str = "service"
    dev: bool = False
    limits: Limits = Limits()


@Endpoint("GET", "/console/session", by="anyone", no_store=True)
async def console_session(call: Call) -> ConsoleSession:
    """The console's session, for the page after a reload."""
    try:
        return await _session(call, await access.authenticate(call.service, call.request, "token"))
    except errors.ApiError as error:
        if error.status != errors.WRONG_TOKEN.status:
            raise
        return await _session(call, access.Caller(()))


@Endpoint("POST", "/console/login", by="anyone", body=ConsoleLogin)
async def console_login(call: Call) -> Response:
    """Signs the browser in with a client's id and secret, by a cookie."""
    access.require_console(call.request)
    given, service = await call.json(ConsoleLogin), call.service
    try:
        client = await access.verify_client(service, call.request, given.client_id, given.client_secret)
    except errors.ApiError as error:
        # Without WWW-Authenticate, at which a browser would open a dialog of its own.
        raise errors.ApiError(error.status, error.code, error.message) from None
    service.login_limiter.count(client.id, service.now())
    token = secrets.token_urlsafe(32)
    store = replace(call, caller=access.Caller((client,))).audited("console.login", client.id)
    issued = await access.issue(service, token, client, service.now(), store)
    return _answer(await _session(call, access.Caller((issued,))), f"{token}; Max-Age={int(OAUTH_LIFETIME)}")


@Endpoint("POST", "/console/logout", by="anyone")
async def console_logout(call: Call) -> Response:
    """Ends the browser's session, if there is one."""
    access.require_console(call.request)
    if token := access.console_token(call.request):
        await access.end(call.service, Credential(kind="token", id=access.token_id(token)))
    return _answer(ConsoleSession(signed_in=False), "; Max-Age=0")


async def _session(call: Call, caller: access.Caller) -> ConsoleSession:
    settings = call.service.settings
    dev = settings.console == "service" and await call.store.credential("client", DEV_CLIENT[0]) is not None
    scopes = caller.credentials[0].scopes if caller.credentials else ()
    limits = Limits(in_flight=settings.in_flight, **asdict(settings.quotas))
    return ConsoleSession(bool(caller.credentials), caller.name, scopes, settings.console, dev, limits)


def _answer(content: ConsoleSession, value: str) -> Response:
    cookie = f"{access.CONSOLE_COOKIE}={value}; Path=/; Secure; HttpOnly; SameSite=Strict"
    return errors.answer(content, headers={**NO_STORE, "Set-Cookie": cookie})

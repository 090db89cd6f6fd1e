"""Calls that need no token: health checks, metrics, the public signing keys, and the OpenAPI description."""

from importlib.resources import files
from typing import Final

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import Response

from ..contract.addresses import parse_address
from ..contract.keys import account_signing_seed, signing_seed
from ..contract.signing import format_public_key
from ..store.records import StoreFull
from . import errors
from .access import authenticate
from .routing import JSON, Call, Endpoint

_OPENAPI: Final = files(__package__).joinpath("openapi.json").read_bytes()
METRICS_PATH: Final = "/metrics"
HEALTH_PATHS: Final = ("/healthz", "/readyz", METRICS_PATH)
"""Paths for monitors, which are answered even to a client that exceeds its limits, and by every process."""


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
    for part, works in call.service.checks.items():
        if not works():
            raise errors.NOT_READY(part=part, reason="not working")
    return Status("ready")


@Endpoint("GET", METRICS_PATH, by="anyone")
async def metrics(call: Call) -> Response:
    """Metrics of this process and its store, to clients on this machine, and others with a token for all accounts."""
    service, request = call.service, call.request
    is_proxied = any(name in request.headers for name in ("x-forwarded-for", "forwarded", "via"))
    peer = parse_address(call.address)
    if not (service.settings.open_metrics or (peer is not None and peer.is_loopback and not is_proxied)):
        caller = await authenticate(service, request, "token")
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

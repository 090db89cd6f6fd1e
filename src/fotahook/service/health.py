"""Calls that need no token: health checks, metrics, the public signing keys, and the OpenAPI description."""

from importlib.resources import files
from typing import Final

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import Response

from ..contract.keys import account_signing_seed, signing_seed
from ..contract.signing import format_public_key
from . import errors
from .routing import JSON, Call, Endpoint

_OPENAPI: Final = files(__package__).joinpath("openapi.json").read_bytes()
HEALTH_PATHS: Final = ("/healthz", "/readyz", "/metrics")
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
    if (error := await call.service.store_health.error()) is not None:
        # The same exception is raised for many requests: drop the traceback that each would add to.
        raise error.with_traceback(None)
    for part, works in call.service.checks.items():
        if not works():
            raise errors.NOT_READY(part=part, reason="not working")
    return Status("ready")


@Endpoint("GET", "/metrics", by="anyone")
async def metrics(call: Call) -> Response:
    """Metrics of this process and of its store, for Prometheus."""
    content = await call.service.metrics.text(call.service.store, call.service.streams.total())
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

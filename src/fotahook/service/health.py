"""What monitors and receivers ask without a token: is it alive, is it ready, which key does it sign with."""

from typing import Final

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response

from ..contract.keys import signing_seed
from ..contract.signing import format_public_key
from . import errors
from .context import Service

HEALTH_PATHS: Final = ("/healthz", "/readyz", "/metrics")
"""What monitors ask: answered also to a client that has its share of everything else."""


class Status(msgspec.Struct, frozen=True):
    """How the service is."""

    status: str


class PublicKey(msgspec.Struct, frozen=True):
    """The key by which deliveries are verified."""

    public: str


async def alive(service: Service, request: Request) -> Response:
    """The process answers; nothing else is looked at."""
    return errors.answer(Status("alive"))


async def ready(service: Service, request: Request) -> Response:
    """The store answers, its migrations are current, and what runs beside the calls works; else 503 names the part."""
    if (trouble := await service.pulse.error()) is not None:
        # One trouble is raised for many requests, and would gather the traceback of each.
        raise trouble.with_traceback(None)
    for part, works in service.parts.items():
        if not works():
            raise errors.not_ready(part, "it does not work at the moment")
    return errors.answer(Status("ready"))


async def metrics(service: Service, request: Request) -> Response:
    """What this process knows of itself and of its store in numbers, for Prometheus."""
    content = await service.metrics.text(service.store, service.streams.total())
    return Response(content, headers={"Content-Type": CONTENT_TYPE_LATEST})


async def signing_key(service: Service, request: Request) -> Response:
    """The public key by which receivers verify every delivery."""
    return errors.answer(PublicKey(format_public_key(signing_seed(service.settings.secret_key))))

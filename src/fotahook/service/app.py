"""The service as one ASGI app: a value made of a store, settings, and what the composer adds."""

import asyncio
from collections.abc import Mapping, Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Lifespan

from ..store.base import Store
from ..store.health import StoreHealth
from ..store.records import StoreError
from . import health, openapi
from .auth.passwords import Passwords
from .auth.rate_limit import Rates
from .context import Check, Memory, Room, Service
from .errors import Problem
from .event_feed import Feed
from .metrics import Metrics
from .operator import accounts, batch, events, messages, redelivery, signing_keys, stats
from .routing import SEGMENT, Paths, Resource, answer_error
from .settings import Settings
from .thingspace import callbacks, sessions, tokens


def build_app(
    store: Store,
    settings: Settings,
    *,
    lifespan: Lifespan[Starlette] | None = None,
    routes: Sequence[BaseRoute] = (),
    calls: bool = True,
    parts: Mapping[str, Check] | None = None,
    closing: asyncio.Event | None = None,
    metrics: Metrics | None = None,
) -> Starlette:
    """The service over a store. `routes` come after its own; `lifespan` is for what runs beside it.

    Without `calls` it only tells how it is: for a process that dispatches and serves nobody. `parts` are what else must
    work for /readyz to say that it is ready. Set `closing` to end what would not end by itself. Who gives
    `metrics` has put them around the store, where others of the process use it too. The store stays the caller's: to
    open before the first request, and to close after the last.
    """
    if metrics is None:
        metrics = Metrics(clock=settings.clock)
        store = metrics.around(store)
    service = Service(
        store,
        settings,
        Memory(store, settings),
        StoreHealth(store),
        Room(settings.batch_room),
        Passwords(settings.password_cost),
        Rates(settings.requests_per_minute),
        parts or {},
        Feed(store),
        metrics,
        closing or asyncio.Event(),
    )
    called = [*_thingspace(service), *_own(service), *routes] if calls else []
    return Paths(
        [*_health(service), *called],
        exception_handlers=dict.fromkeys((Problem, StoreError, HTTPException, Exception), _answer_error),
        lifespan=lifespan,
    )


def _thingspace(service: Service) -> list[Route]:
    """ThingSpace's calls, by the paths that its SDKs know."""
    callback = Resource(
        service,
        GET=callbacks.list_callback,
        POST=callbacks.register_callback,
        PUT=callbacks.update_callback,
        DELETE=callbacks.deregister_callback,
    )
    session = "/api/m2m/v1/session"
    return [
        Route(f"/api/fota/v2/callbacks/{{account:{SEGMENT}}}", callback),
        Route("/api/ts/v1/oauth2/token", Resource(service, POST=tokens.token)),
        Route("/api/ts/v1/oauth2/revoke", Resource(service, POST=tokens.revoke)),
        Route(f"{session}/login", Resource(service, POST=sessions.login)),
        Route(f"{session}/logout", Resource(service, POST=sessions.logout)),
        Route(f"{session}/password/actions/reset", Resource(service, PUT=sessions.reset_password)),
    ]


def _own(service: Service) -> list[Route]:
    """fotahook's own calls."""
    account = f"/v1/accounts/{{account:{SEGMENT}}}"
    message = f"/v1/messages/{{id:{SEGMENT}}}"
    settings = service.settings
    publish = Resource(service, settings.message_limit, GET=messages.list_messages, POST=messages.publish)
    keys = Resource(service, GET=signing_keys.list_keys, POST=signing_keys.rotate_keys)
    return [
        Route("/v1/accounts", Resource(service, GET=accounts.list_accounts)),
        Route(account, Resource(service, GET=accounts.show, PATCH=accounts.change)),
        Route(f"{account}/messages", publish),
        Route(f"{account}/callbacks", Resource(service, GET=accounts.callback_history)),
        Route(f"{account}/pause", Resource(service, POST=accounts.pause)),
        Route(f"{account}/resume", Resource(service, POST=accounts.resume)),
        Route(f"{account}/redeliver", Resource(service, POST=redelivery.redeliver_many)),
        Route(f"{account}/signing-keys", keys),
        Route(f"{account}/signing-keys/{{id:{SEGMENT}}}", Resource(service, DELETE=signing_keys.delete_key)),
        Route("/v1/messages", Resource(service, settings.batch_limit, POST=batch.publish)),
        Route(message, Resource(service, GET=messages.show)),
        Route(f"{message}/body", Resource(service, GET=messages.body)),
        Route(f"{message}/attempts", Resource(service, GET=messages.attempts)),
        Route(f"{message}/why", Resource(service, GET=messages.why)),
        Route(f"{message}/redeliver", Resource(service, POST=redelivery.redeliver_one)),
        Route("/v1/events", Resource(service, GET=events.follow)),
        Route("/v1/stats", Resource(service, GET=stats.show)),
        Route("/v1/signing-key", Resource(service, GET=health.signing_key)),
        Route("/openapi.json", Resource(service, GET=openapi.show)),
    ]


def _health(service: Service) -> list[Route]:
    """What monitors ask."""
    return [
        Route("/healthz", Resource(service, GET=health.alive)),
        Route("/readyz", Resource(service, GET=health.ready)),
        Route("/metrics", Resource(service, GET=health.metrics)),
    ]


async def _answer_error(request: Request, error: Exception) -> Response:
    return answer_error(request, error)

"""The HTTP service: ThingSpace's calls and our own API, as one ASGI app: a value made of a store and settings."""

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Final

from starlette.routing import BaseRoute

from ..store.base import Store
from . import health
from .context import Check, Service, Settings
from .credentials import create_credential, grant, revoke, rotate_secret
from .metrics import Metrics
from .operator import accounts, campaigns, events, messages
from .routing import App, Endpoint, Resource
from .thingspace import auth, callbacks

__all__ = ["Settings", "build_app", "create_credential", "grant", "revoke", "rotate_secret", "split_metrics"]

MODULES: Final = (health, callbacks, auth, accounts, campaigns, messages, events)


def build_app(
    store: Store,
    settings: Settings,
    *,
    routes: Sequence[BaseRoute] = (),
    endpoints: Sequence[Endpoint] = (),
    calls: bool = True,
    checks: Mapping[str, Check] | None = None,
    closing: asyncio.Event | None = None,
    metrics: Metrics | None = None,
) -> App:
    """The service over an open store, which the caller closes after the last request.

    `routes`, `endpoints`: added to the app, the routes after its own. `calls` False serves health and metrics alone.
    `checks`: what else must work for /readyz. `closing` ends open event streams when it is set. With `metrics`, the
    store must already be wrapped by `metrics.around`.
    """
    if metrics is None:
        metrics = Metrics(clock=settings.clock)
        store = metrics.around(store)
    service = Service(store, settings, metrics, checks or {}, closing or asyncio.Event())
    by_path = defaultdict[str, list[Endpoint]](list)
    own = [one for module in MODULES for one in vars(module).values() if isinstance(one, Endpoint)]
    for endpoint in (*own, *endpoints):
        if calls or endpoint.path in health.HEALTH_PATHS:
            by_path[endpoint.path].append(endpoint)
    return App({path: Resource(service, endpoints) for path, endpoints in by_path.items()}, routes)


def split_metrics(app: App) -> tuple[App, App]:
    """The app without /metrics, and one with health and metrics alone, for an address of its own."""
    own = {path: app.resources[path] for path in health.HEALTH_PATHS}
    rest = {path: resource for path, resource in app.resources.items() if path != health.METRICS_PATH}
    return App(rest, app.routes), App(own, ())

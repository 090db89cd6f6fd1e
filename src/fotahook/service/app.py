"""The service as one ASGI app: a value made of a store, settings, and what the composer adds."""

import logging
from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ExceptionHandler, Lifespan

from ..store.base import Store, StoreFull, StoreUnavailable
from . import (
    accounts,
    batch,
    callbacks,
    health,
    messages,
    openapi,
    problems,
    redelivery,
    sessions,
    signing_keys,
    tokens,
)
from .context import Memory, Room, Service
from .passwords import Passwords
from .problems import Problem
from .routing import SEGMENT, RawPath, Resource
from .settings import Settings

logger = logging.getLogger(__name__)


def build_app(
    store: Store,
    settings: Settings,
    *,
    lifespan: Lifespan[Starlette] | None = None,
    routes: Sequence[BaseRoute] = (),
) -> Starlette:
    """The service over a store. `routes` come after its own; `lifespan` is for what runs beside it.

    The store stays the caller's: to open before the first request, and to close after the last.
    """
    service = Service(
        store, settings, Memory(store, settings), Room(settings.batch_room), Passwords(settings.password_cost)
    )
    app = Starlette(
        routes=[*_thingspace(service), *_own(service), *routes],
        middleware=[Middleware(RawPath)],
        exception_handlers=_HANDLERS,
        lifespan=lifespan,
    )
    # A callback of the account "" is an error to tell of, not a path to be sent to.
    app.router.redirect_slashes = False
    return app


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
        Route("/v1/signing-key", Resource(service, GET=health.signing_key)),
        Route("/healthz", Resource(service, GET=health.alive)),
        Route("/readyz", Resource(service, GET=health.ready)),
        Route("/openapi.json", Resource(service, GET=openapi.show)),
    ]


async def _problem(request: Request, error: Exception) -> Response:
    """The answer to whatever was raised: the one place where errors become answers."""
    match error:
        case Problem():
            problem = error
        case StoreFull():
            logger.error("the store is full: %s", error)
            problem = problems.store_full()
        case StoreUnavailable():
            logger.error("the store is unavailable: %s", error)
            problem = problems.store_unavailable()
        case HTTPException(status_code=404):
            problem = problems.no_such_path()
        case HTTPException():
            # Raised by a route that the composer added.
            problem = Problem(error.status_code, "REQUEST_FAILED", f"{error.detail}.", headers=error.headers)
        case _:
            problem = problems.internal_error()
    response = problem.response(request.scope["path"])
    if request.method == "HEAD":
        response.body = b""
    return response


_HANDLERS: dict[type[Exception], ExceptionHandler] = dict.fromkeys(
    (Problem, StoreFull, StoreUnavailable, HTTPException, Exception), _problem
)

"""Endpoints, and the app that finds the endpoint of a request and lets it in.

Declare a call with `@Endpoint("GET", "/v1/…", …)` on its handler. The declaration says who may call it, and is enforced
here before the handler runs; the OpenAPI description is made from the same declaration.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Final, Literal, TypeVar
from urllib.parse import quote

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, ExceptionHandler, Lifespan, Receive, Send
from starlette.types import Scope as AsgiScope

from ..store.records import StoreError, StoreFull, StoreUnavailable, WrongSchema
from . import errors, requests
from .access import Authentication, Caller, authenticate
from .auth.credentials import Scope
from .context import Service
from .errors import ApiError

logger = logging.getLogger(__name__)

JSON: Final = "application/json"
# RFC 6749, section 5.1: what holds a secret must not be cached.
NO_STORE: Final = {"Cache-Control": "no-store"}

T = TypeVar("T")
Model = type[msgspec.Struct]
Handler = Callable[["Call"], Awaitable[msgspec.Struct | Response]]


class AnyObject(msgspec.Struct, frozen=True):
    """A JSON object with any members."""


@dataclass(frozen=True)
class Call:
    """A request that was let in. `account` is the one that its path names, granted to the caller; "" if none."""

    service: Service
    request: Request
    caller: Caller
    account: str

    async def json(self, kind: type[T], *, optional: bool = False) -> T:
        """The JSON object in the body; if optional, a missing body counts as an empty object."""
        content = await requests.body(self.request, self.service.settings.body_limit, optional=optional)
        return requests.json_object(content if content.strip() else b"{}", kind)

    def query(self, kind: type[T]) -> T:
        """The query's parameters."""
        return requests.query(self.request, kind)


@dataclass(eq=False)
class Endpoint:
    """One method of one path, as a decorator of its handler.

    The first line of the handler's docstring is the call's summary, the return type its answer unless that is a
    Response; a returned struct is answered as JSON.
    """

    method: str
    path: str
    _: KW_ONLY
    by: Authentication = "token"
    scope: Scope | None = "operate"
    query: Model | None = None
    headers: tuple[str, ...] = ()
    """Idempotency and ordering keys and the like, for the description."""
    body: Model | None = None
    body_optional: bool = False
    body_type: str = JSON
    body_limit: Literal["body_limit", "message_limit", "batch_limit"] = "body_limit"
    """The name of the setting."""
    status: int = 200
    answer: Model | None = None
    answer_type: str = JSON
    events: tuple[Model, ...] = ()
    """The data of an event stream's events."""
    no_store: bool = False
    also: tuple[int, ...] = ()
    """Statuses that only this call answers, for the description."""
    handler: Handler = field(init=False)

    def __call__(self, handler: Handler) -> "Endpoint":
        returned = handler.__annotations__["return"]
        if self.answer is None and isinstance(returned, type) and issubclass(returned, msgspec.Struct):
            self.answer = returned
        self.handler = handler
        return self


class Resource:
    """The endpoints of one path. A body over the limit is refused before any of it is read, whatever the method."""

    def __init__(self, service: Service, endpoints: Sequence[Endpoint]) -> None:
        self._service = service
        self.endpoints = {endpoint.method: endpoint for endpoint in endpoints}
        if "GET" in self.endpoints:
            self.endpoints["HEAD"] = self.endpoints["GET"]
        self._allow = ", ".join([*self.endpoints, "OPTIONS"])
        self._limit = max(getattr(service.settings, endpoint.body_limit) for endpoint in endpoints)

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            response = await self._respond(request)
        except Exception as error:
            response = await answer_error(request, error)
            await response(scope, receive, send)
            if not isinstance(error, ApiError | StoreError):
                # A defect: the server logs the traceback.
                raise
            return
        if scope["method"] == "HEAD":
            # The headers stay, Content-Length among them.
            response.body = b""
        await response(scope, receive, send)

    async def _respond(self, request: Request) -> Response:
        endpoint = self.endpoints.get(request.method)
        if endpoint is None:
            if request.method == "OPTIONS":
                return Response(status_code=204, headers={"Allow": self._allow})
            raise errors.WRONG_METHOD(method=request.method[:20], allow=self._allow)
        requests.check_length(request, self._limit)
        result = await endpoint.handler(await self._authorize(endpoint, request))
        if isinstance(result, Response):
            return result
        return errors.answer(result, endpoint.status, headers=NO_STORE if endpoint.no_store else None)

    async def _authorize(self, endpoint: Endpoint, request: Request) -> Call:
        caller = await authenticate(self._service, request, endpoint.by)
        if endpoint.by != "anyone":
            caller.require(endpoint.scope)
        account = ""
        if "account" in request.path_params:
            account = requests.check_account(requests.segment(request, "account"))
            if not caller.has(account):
                is_gateway = endpoint.path.startswith(errors.GATEWAY_PATHS)
                raise errors.NO_CALLBACK_ACCOUNT() if is_gateway else errors.NO_ACCOUNT()
        return Call(self._service, request, caller, account)


class App(Starlette):
    """Starlette with a router of its own for our resources; other routes, exceptions and lifespan are Starlette's.

    The router matches raw segments: once decoded, ``a%2Fb`` would be two. It takes one step per segment, where
    Starlette tries one route after the other, and skips Starlette's layers: middleware goes around the app.
    """

    def __init__(
        self,
        resources: Mapping[str, Resource],
        routes: Sequence[BaseRoute],
        lifespan: Lifespan[Starlette] | None,
    ) -> None:
        handlers: dict[type[Exception] | int, ExceptionHandler]
        handlers = dict.fromkeys((ApiError, StoreError, HTTPException, Exception), answer_error)
        super().__init__(routes=routes, exception_handlers=handlers, lifespan=lifespan)
        self.router.redirect_slashes = False
        self.resources = resources
        self._root = _Node()
        for path, resource in resources.items():
            self._root.add(path.split("/"), resource)

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        raw = scope.get("raw_path")
        path = quote(scope["path"], errors="replace") if raw is None else raw.decode("latin-1")
        scope = {**scope, "app": self, "path": path}
        resource, scope["path_params"] = self._root.find(path.removeprefix(scope.get("root_path", "")).split("/"))
        app: ASGIApp = resource or super().__call__
        await app(scope, receive, send)


class _Node:
    """A node in the tree of path segments."""

    def __init__(self) -> None:
        self._resource: Resource | None = None
        self._children: dict[str, _Node] = {}
        self._parameter = ""
        self._any: _Node | None = None

    def add(self, segments: Sequence[str], resource: Resource) -> None:
        """Serve the resource at a path, in which ``{account}`` stands for any segment, an empty one too."""
        node = self
        for segment in segments:
            if segment.startswith("{"):
                node._parameter, node._any = segment.strip("{}"), node._any or _Node()
                node = node._any
            else:
                node = node._children.setdefault(segment, _Node())
        node._resource = resource

    def find(self, segments: Sequence[str]) -> tuple[Resource | None, dict[str, str]]:
        """The resource at a path, if there is one, and the path's parameters."""
        node, params = self, dict[str, str]()
        for segment in segments:
            child = node._children.get(segment)
            if child is None:
                if node._any is None:
                    return None, params
                child = node._any
                params[node._parameter] = segment
            node = child
        return node._resource, params


async def answer_error(request: Request, error: Exception) -> Response:
    """The answer to an exception: the one place where exceptions become answers."""
    match error:
        case ApiError():
            api_error = error
        case StoreFull():
            logger.error("the store is full: %s", error)
            api_error = errors.STORE_FULL()
        case WrongSchema():
            logger.error("%s", error)
            api_error = errors.NOT_READY(
                part="migrations", reason="the store's schema is of another version of fotahook"
            )
        case StoreUnavailable():
            logger.error("the store is unavailable: %s", error)
            api_error = errors.STORE_UNAVAILABLE()
        case HTTPException(status_code=404):
            api_error = errors.NO_SUCH_PATH()
        case HTTPException():
            # Raised by a route that is not ours.
            api_error = ApiError(error.status_code, "REQUEST_FAILED", f"{error.detail}.", error.headers)
        case _:
            api_error = errors.INTERNAL_ERROR()
    response = api_error.response(request.scope["path"])
    if request.method == "HEAD":
        response.body = b""
    return response

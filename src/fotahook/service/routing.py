"""Endpoints, and the app that finds the endpoint of a request and lets it in. Declare a call with `@Endpoint("GET",
"/v1/…", …)` on its handler. The declaration says who may call it, and is enforced here before the handler runs; `make
openapi` makes the OpenAPI description from the same declarations."""

import logging
import re
from collections import defaultdict
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
from starlette.types import ASGIApp, ExceptionHandler, Receive, Send
from starlette.types import Scope as AsgiScope

from ..contract.addresses import address_key
from ..store.base import Store
from ..store.records import AuditEntry, StoreError, StoreFull, StoreUnavailable, WrongSchema
from . import errors, requests
from .access import Authentication, Caller, address_of, authenticate
from .context import Service
from .credentials import Scope
from .errors import ApiError

logger = logging.getLogger(__name__)

JSON: Final = "application/json"
# RFC 6749, section 5.1: what holds a secret must not be cached.
NO_STORE: Final = {"Cache-Control": "no-store"}

_PARAMETER: Final = re.compile(r"\\{(\w+)\\}")

T = TypeVar("T")
Model = type[msgspec.Struct]
Handler = Callable[["Call"], Awaitable[msgspec.Struct | Response]]


@dataclass(frozen=True)
class Call:
    """A request that was let in. `account` is the one that its path names, granted to the caller; "" if none."""

    service: Service
    request: Request
    caller: Caller
    account: str

    @property
    def store(self) -> Store:
        return self.service.store

    async def json(self, kind: type[T], *, optional: bool = False) -> T:
        """The JSON object in the body; if optional, a missing body counts as an empty object."""
        content = await requests.body(self.request, self.service.settings.body_limit, optional=optional)
        return requests.json_object(content if content.strip() else b"{}", kind)

    def query(self, kind: type[T]) -> T:
        """The query's parameters; those without a value count as absent."""
        given = requests.fields(self.request.scope["query_string"], "query", keep_blank_values=False)
        try:
            return msgspec.convert(given, kind, strict=False)
        except msgspec.ValidationError as error:
            raise errors.INVALID(f"The query has the wrong shape: {error}.") from None

    def among(self, account: str | None) -> tuple[str, ...] | None:
        """The accounts that a query is about: the one it names, if it is granted, or all that are; None means all."""
        if account is None:
            return self.caller.accounts
        if not self.caller.has(requests.check_account(account)):
            raise errors.NO_ACCOUNT()
        return (account,)

    def audited(self, action: str, subject: str = "", detail: str = "", account: str = "") -> Store:
        """The store, whose next write is recorded in the audit log as this caller's. A change of an account counts
        towards its quota, except a redelivery, which adds nothing to the store."""
        if self.account:
            self.service.quotas.change(self.account)
        actor, address, whose = self.caller.name, address_of(self.request), account or self.account or None
        entry = AuditEntry(actor=actor, address=address, action=action, account=whose, subject=subject, detail=detail)
        return self.service.store.audited(entry)


@dataclass(eq=False)
class Endpoint:
    """One method of one path, as a decorator of its handler; a returned struct is answered as JSON. `query` and `body`
    are the models of what the handler reads, for the OpenAPI description."""

    method: str
    path: str
    _: KW_ONLY
    by: Authentication = "token"
    scope: Scope | None = "operate"
    query: Model | None = None
    body: Model | None = None
    body_limit: Literal["body_limit", "message_limit", "batch_limit"] = "body_limit"
    status: int = 200
    no_store: bool = False
    handler: Handler = field(init=False)

    def __call__(self, handler: Handler) -> "Endpoint":
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
        except (ApiError, StoreError) as error:
            response = await answer_error(request, error)
        except Exception as error:
            await (await answer_error(request, error))(scope, receive, send)
            # A defect: the server logs the traceback.
            raise
        if scope["method"] == "HEAD":
            # The headers stay, Content-Length among them.
            response.body = b""
        await response(scope, receive, send)

    async def _respond(self, request: Request) -> Response:
        service, endpoint = self._service, self.endpoints.get(request.method)
        if endpoint is None:
            if request.method == "OPTIONS":
                return Response(status_code=204, headers={"Allow": self._allow})
            raise errors.WRONG_METHOD(method=request.method[:20], allow=self._allow)
        declared = "0" if (sent := requests.header(request, "Content-Length")) is None else sent
        if not (declared.isascii() and declared.isdigit()):
            raise errors.INVALID("The header Content-Length is not a number.")
        # Count the digits first: int() of a very long number raises.
        if len(declared.lstrip("0")) > 18 or int(declared) > self._limit:
            raise errors.TOO_LARGE(what="body", limit=self._limit)
        caller, account = await authenticate(service, request, endpoint.by), ""
        if endpoint.by != "anyone":
            caller.require(endpoint.scope)
        if endpoint.method != "GET":
            await service.quotas.read()
        if "account" in request.path_params:
            account = requests.check_account(requests.segment(request, "account"))
            if not caller.has(account):
                is_gateway = endpoint.path.startswith(errors.GATEWAY_PATHS)
                raise errors.NO_CALLBACK_ACCOUNT() if is_gateway else errors.NO_ACCOUNT()
        with service.bodies.share(caller.name or address_key(address_of(request))) as take:
            request.scope["take"] = take
            result = await endpoint.handler(Call(service, request, caller, account))
        if isinstance(result, Response):
            return result
        return errors.answer(result, endpoint.status, headers=NO_STORE if endpoint.no_store else None)


class App(Starlette):
    """Starlette in which our resources go before its routes, and skip its layers: middleware goes around the app. Paths
    are matched before they are decoded: once decoded, ``a%2Fb`` would be two segments."""

    def __init__(self, resources: Mapping[str, Resource], routes: Sequence[BaseRoute]) -> None:
        handlers: dict[type[Exception] | int, ExceptionHandler]
        handlers = dict.fromkeys((ApiError, StoreError, HTTPException, Exception), answer_error)
        super().__init__(routes=routes, exception_handlers=handlers)
        self.router.redirect_slashes = False
        self.resources = resources
        self._patterns: defaultdict[int, list[tuple[re.Pattern[str], Resource]]] = defaultdict(list)
        for path, resource in resources.items():
            # A parameter may be empty: an empty account is a wrong account, not another path.
            pattern = re.compile(_PARAMETER.sub("(?P<\\1>[^/]*)", re.escape(path)))
            self._patterns[path.count("/")].append((pattern, resource))

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        app: ASGIApp = super().__call__
        if scope["type"] == "http":
            raw = scope.get("raw_path")
            path = quote(scope["path"], errors="replace") if raw is None else raw.decode("latin-1")
            scope = {**scope, "app": self, "path": path}
            below_mount = path.removeprefix(scope.get("root_path", ""))
            for pattern, resource in self._patterns.get(below_mount.count("/"), ()):
                if (match := pattern.fullmatch(below_mount)) is not None:
                    app, scope["path_params"] = resource, match.groupdict()
                    break
        await app(scope, receive, send)


async def answer_error(request: Request, error: Exception) -> Response:
    match error:
        case ApiError():
            answer = error
        case StoreFull():
            logger.error("the store is full: %s", error)
            answer = errors.STORE_FULL()
        case WrongSchema():
            logger.error("%s", error)
            reason = "the store's schema is of another version of fotahook"
            answer = errors.NOT_READY(part="migrations", reason=reason)
        case StoreUnavailable():
            logger.error("the store is unavailable: %s", error)
            answer = errors.STORE_UNAVAILABLE()
        case HTTPException(status_code=404):
            answer = errors.NO_SUCH_PATH()
        case HTTPException():
            # Raised by a route that is not ours.
            answer = ApiError(error.status_code, "REQUEST_FAILED", f"{error.detail}.", error.headers)
        case _:
            answer = errors.INTERNAL_ERROR()
    response = answer.response(request.scope["path"])
    if request.method == "HEAD":
        response.body = b""
    return response

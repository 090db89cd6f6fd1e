"""From a path and a method to the function that answers: percent-encoding kept, HEAD and OPTIONS as HTTP has them."""

import logging
from collections.abc import Mapping, Sequence
from typing import Final, Protocol
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ExceptionHandler, Lifespan, Receive, Scope, Send

from ..store.records import StoreError, StoreFull, StoreUnavailable, WrongSchema
from . import errors, requests
from .context import Service
from .errors import Problem

logger = logging.getLogger(__name__)


class Handler(Protocol):
    """Answers one call. The first line of its docstring says what it does."""

    __name__: str

    async def __call__(self, service: Service, request: Request, /) -> Response: ...


SEGMENT: Final = "fotahook_segment"


class SegmentConvertor(Convertor[str]):
    """One segment of a path, as it was sent. It may be empty: an account that is missing has an answer of its own."""

    regex = "[^/]*"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return quote(value, safe="")


register_url_convertor(SEGMENT, SegmentConvertor())


class Paths(Starlette):
    """Starlette that finds our own resources by the segments of their paths, as they were sent.

    Once decoded, ``a%2Fb`` would be two segments. It takes a look for each segment, however many routes there are,
    where Starlette tries one after the other; and since resources answer their own errors, none of its layers is
    between. So what is to be around every call goes around the app. What is not ours is left to Starlette.
    """

    def __init__(
        self,
        routes: Sequence[BaseRoute],
        *,
        exception_handlers: Mapping[type[Exception], ExceptionHandler],
        lifespan: Lifespan[Starlette] | None,
    ) -> None:
        super().__init__(routes=routes, exception_handlers=exception_handlers, lifespan=lifespan)
        # A callback of the account "" is an error to tell of, not a path to be sent to.
        self.router.redirect_slashes = False
        self._start = _Place()
        for route in routes:
            if isinstance(route, Route) and isinstance(route.endpoint, Resource):
                self._start.put(route.path_format.split("/"), route.endpoint)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        raw = scope.get("raw_path")
        path = quote(scope["path"], errors="replace") if raw is None else raw.decode("latin-1")
        scope = {**scope, "app": self, "path": path}
        resource, scope["path_params"] = self._start.find(path.removeprefix(scope.get("root_path", "")).split("/"))
        await (resource or super().__call__)(scope, receive, send)


class _Place:
    """The end of the beginning of a path: what is served there, and what may follow."""

    def __init__(self) -> None:
        self._resource: Resource | None = None
        self._next: dict[str, _Place] = {}
        self._parameter = ""
        self._any: _Place | None = None

    def put(self, segments: Sequence[str], resource: "Resource") -> None:
        """Serve the resource at a path, in which ``{account}`` stands for any segment."""
        place = self
        for segment in segments:
            if segment.startswith("{"):
                place._parameter, place._any = segment.strip("{}"), place._any or _Place()
                place = place._any
            else:
                place = place._next.setdefault(segment, _Place())
        # Of two at one path the first is served, as in Starlette.
        place._resource = place._resource or resource

    def find(self, segments: Sequence[str]) -> "tuple[Resource | None, dict[str, str]]":
        """What is served at a path, if anything, and its parameters."""
        place, params = self, dict[str, str]()
        for segment in segments:
            there = place._next.get(segment)
            if there is None:
                if place._any is None:
                    return None, params
                there = place._any
                params[place._parameter] = segment
            place = there
        return place._resource, params


class Resource:
    """The methods of one path. A body over the limit is refused before any of it is read, whatever the method."""

    def __init__(self, service: Service, limit: int | None = None, **handlers: Handler) -> None:
        self._service = service
        self._limit = service.settings.body_limit if limit is None else limit
        self._handlers = dict(handlers)
        if "GET" in handlers:
            self._handlers["HEAD"] = handlers["GET"]
        self._allow = ", ".join([*self._handlers, "OPTIONS"])

    @property
    def handlers(self) -> Mapping[str, Handler]:
        """The function behind each method; HEAD is GET's."""
        return self._handlers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            response = await self._respond(request)
        except Exception as error:
            await answer_error(request, error)(scope, receive, send)
            if not isinstance(error, Problem | StoreError):
                # A defect: the server logs what happened.
                raise
            return
        if scope["method"] == "HEAD":
            # The headers stay, Content-Length among them.
            response.body = b""
        await response(scope, receive, send)

    async def _respond(self, request: Request) -> Response:
        handler = self._handlers.get(request.method)
        if handler is None:
            if request.method == "OPTIONS":
                return Response(status_code=204, headers={"Allow": self._allow})
            raise errors.wrong_method(request.method, self._allow)
        requests.check_length(request, self._limit)
        return await handler(self._service, request)


def answer_error(request: Request, error: Exception) -> Response:
    """The answer to whatever was raised: the one place where errors become answers."""
    match error:
        case Problem():
            problem = error
        case StoreFull():
            logger.error("the store is full: %s", error)
            problem = errors.store_full()
        case WrongSchema():
            logger.error("%s", error)
            problem = errors.not_ready("migrations", "the store has another schema than this fotahook works with")
        case StoreUnavailable():
            logger.error("the store is unavailable: %s", error)
            problem = errors.store_unavailable()
        case HTTPException(status_code=404):
            problem = errors.no_such_path()
        case HTTPException():
            # Raised by a route that the composer added.
            problem = Problem(error.status_code, "REQUEST_FAILED", f"{error.detail}.", headers=error.headers)
        case _:
            problem = errors.internal_error()
    response = problem.response(request.scope["path"])
    if request.method == "HEAD":
        response.body = b""
    return response

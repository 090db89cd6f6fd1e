"""From a path and a method to the function that answers: percent-encoding kept, HEAD and OPTIONS as HTTP has them."""

from collections.abc import Mapping
from typing import Final, Protocol
from urllib.parse import quote

from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from . import problems, reading
from .context import Service


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


class RawPath:
    """Middleware that routes by the path as it was sent: once decoded, ``a%2Fb`` is two segments."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            raw = scope.get("raw_path")
            path = quote(scope["path"], errors="replace") if raw is None else raw.decode("latin-1")
            scope = {**scope, "path": path}
        await self._app(scope, receive, send)


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
        response = await self._respond(request)
        if request.method == "HEAD":
            # The headers stay, Content-Length among them.
            response.body = b""
        await response(scope, receive, send)

    async def _respond(self, request: Request) -> Response:
        if request.method == "OPTIONS":
            return Response(status_code=204, headers={"Allow": self._allow})
        handler = self._handlers.get(request.method)
        if handler is None:
            raise problems.wrong_method(request.method, self._allow)
        reading.check_length(request, self._limit)
        return await handler(self._service, request)

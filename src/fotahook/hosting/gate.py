"""Responses to what never reaches the app, such as what a foreign web page could send through somebody's browser."""

import logging
import re
from dataclasses import KW_ONLY, dataclass, field
from typing import Final

import msgspec
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from ..contract.addresses import Network, parse_address, sender_address

logger = logging.getLogger(__name__)

_HOST: Final = re.compile(r"(\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9._-]+))(:(?P<port>[0-9]{1,5}))?")
_DEFAULT_PORTS: Final = {"http": "80", "https": "443"}
_LOGGED_LIMIT: Final = 100


class ErrorResponse(Response):
    """A response after which the connection closes; `label` names it in the log's summary."""

    def __init__(self, label: str, status: int, code: str, message: str) -> None:
        headers = {"Connection": "close"} | ({"Retry-After": "1"} if status in (429, 503) else {})
        body = msgspec.json.encode({"errorCode": code, "errorMessage": message})
        super().__init__(body, status, headers, "application/json")
        self.label = label

    def encode(self) -> bytes:
        head = b"".join(b"%b: %b\r\n" % header for header in self.raw_headers)
        return STATUS_LINE[self.status_code] + head + b"\r\n" + bytes(self.body)


NOT_HTTP: Final = ErrorResponse("not HTTP", 400, "INVALID_PARAMETER", "These bytes are not an HTTP request.")
HEAD_TOO_LARGE: Final = ErrorResponse("heads too large", 431, "HEADERS_TOO_LARGE", "The request head is too large.")
HEAD_TIMEOUT: Final = ErrorResponse("heads too slow", 408, "REQUEST_TIMEOUT", "The request head arrived too slowly.")
BODY_TIMEOUT: Final = ErrorResponse("bodies too slow", 408, "REQUEST_TIMEOUT", "The request body arrived too slowly.")
_WAIT: Final = "Wait for responses before sending more requests."
TOO_MANY_PIPELINED: Final = ErrorResponse("too many pipelined requests", 429, "TOO_MANY_REQUESTS", _WAIT)
_CLOSE_SOME: Final = "This address has too many open connections; close some and retry."
ADDRESS_FULL: Final = ErrorResponse("too many connections from one address", 429, "TOO_MANY_CONNECTIONS", _CLOSE_SOME)
_RETRY: Final = "The server has too many open connections; retry."
SERVER_FULL: Final = ErrorResponse("too many connections in all", 503, "BUSY", _RETRY)
ONE_HOST: Final = ErrorResponse("no Host", 400, "INVALID_PARAMETER", "The request needs exactly one valid Host header.")
_ADD_HOST: Final = (
    "This server does not answer for the host in the request's Host header; its operator can add it with --allow-host."
)
OTHER_HOST: Final = ErrorResponse("other hosts", 421, "MISDIRECTED_REQUEST", _ADD_HOST)
_ADD_ORIGIN: Final = (
    "A web page of another origin may not make this call; behind a proxy, add its host with --allow-host."
)
OTHER_ORIGIN: Final = ErrorResponse("other origins", 403, "CROSS_ORIGIN", _ADD_ORIGIN)


@dataclass(frozen=True)
class Gate:
    """ASGI middleware. `hosts`: names that the server answers for, besides loopback names and IP addresses. A page of
    another site has its own name in Host when that was made to resolve to this server (DNS rebinding), and in Origin
    else. IP addresses in Host are harmless: they resolve to nothing else."""

    app: ASGIApp
    _: KW_ONLY
    hosts: frozenset[str] = frozenset()
    any_host: bool = False
    proxies: tuple[Network, ...] = ()
    _logged: set[str] = field(default_factory=set, init=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self.app
        if scope["type"] == "http":
            if self.proxies and scope.get("client"):
                peer, port = scope["client"]
                forwarded = ",".join(_values(scope, b"x-forwarded-for"))
                scope["client"] = (str(sender_address(peer, forwarded, self.proxies) or peer), port)
            app = self._refusal(scope) or app
        await app(scope, receive, send)

    def _refusal(self, scope: Scope) -> ErrorResponse | None:
        given = _values(scope, b"host")
        if not given and scope["http_version"] == "1.0":
            # No browser, but some load balancers.
            return None
        host = _HOST.fullmatch(given[0]) if len(given) == 1 else None
        if host is None:
            return ONE_HOST
        name = _name(host)
        is_local = name == "localhost" or name.endswith(".localhost") or parse_address(name) is not None
        if not (self.any_host or name in self.hosts or is_local):
            self._log("a request for the host %s was refused; if it is this server's, add --allow-host", given[0])
            return OTHER_HOST
        if scope["method"] not in ("GET", "HEAD", "OPTIONS"):
            for origin in _values(scope, b"origin"):
                scheme, _, authority = origin.partition("://")
                page, default = _HOST.fullmatch(authority), _DEFAULT_PORTS.get(scheme)
                own = name, host["port"] or default
                # A proxy may have another scheme and another Host; --allow-host names it then.
                if not (
                    page and default and (_name(page) in self.hosts or own == (_name(page), page["port"] or default))
                ):
                    self._log("a call from a page of %s was refused; if it is this server's, add --allow-host", origin)
                    return OTHER_ORIGIN
        return None

    def _log(self, text: str, value: str) -> None:
        # Each value once, and few: no client can fill the log.
        if value not in self._logged and len(self._logged) < _LOGGED_LIMIT:
            self._logged.add(value)
            logger.warning(text, value[:_LOGGED_LIMIT])


def _values(scope: Scope, wanted: bytes) -> list[str]:
    return [value.decode("latin-1") for name, value in scope["headers"] if name == wanted]


def _name(host: re.Match[str]) -> str:
    return (host["v6"] or host["name"]).lower().removesuffix(".")

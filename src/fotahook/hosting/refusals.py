"""Responses to what never reaches the app."""

from dataclasses import dataclass
from typing import Final

import msgspec
from starlette.types import Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE


@dataclass(frozen=True)
class ErrorResponse:
    """A response after which the connection closes; `label` names it in the log's summary."""

    label: str
    status: int
    code: str
    message: str
    retry: bool = False

    @property
    def body(self) -> bytes:
        return msgspec.json.encode({"errorCode": self.code, "errorMessage": self.message})

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        length = b"%d" % len(self.body)
        headers = [(b"content-type", b"application/json"), (b"content-length", length), (b"connection", b"close")]
        return [*headers, (b"retry-after", b"1")] if self.retry else headers

    def encode(self) -> bytes:
        """The bytes of the response, for a connection."""
        head = b"".join(b"%b: %b\r\n" % header for header in self.headers)
        return STATUS_LINE[self.status] + head + b"\r\n" + self.body

    async def send(self, send: Send) -> None:
        """Send it as an ASGI app does."""
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
        await send({"type": "http.response.body", "body": self.body})


NOT_HTTP: Final = ErrorResponse("not HTTP", 400, "INVALID_PARAMETER", "These bytes are not an HTTP request.")
HEAD_TOO_LARGE: Final = ErrorResponse("heads too large", 431, "HEADERS_TOO_LARGE", "The request head is too large.")
HEAD_TIMEOUT: Final = ErrorResponse("heads too slow", 408, "REQUEST_TIMEOUT", "The request head arrived too slowly.")
BODY_TIMEOUT: Final = ErrorResponse("bodies too slow", 408, "REQUEST_TIMEOUT", "The request body arrived too slowly.")
TOO_MANY_PIPELINED: Final = ErrorResponse(
    "too many pipelined requests", 429, "TOO_MANY_REQUESTS", "Wait for responses before sending more requests."
)
ADDRESS_FULL: Final = ErrorResponse(
    "too many connections from one address",
    429,
    "TOO_MANY_CONNECTIONS",
    "This address has too many open connections; close some and retry.",
    retry=True,
)
SERVER_FULL: Final = ErrorResponse(
    "too many connections in all", 503, "BUSY", "The server has too many open connections; retry.", retry=True
)

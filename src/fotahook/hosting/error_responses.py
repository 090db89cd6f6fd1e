"""Error responses to what never becomes a request for the app."""

from dataclasses import dataclass
from typing import Final

import msgspec
from uvicorn.protocols.http.httptools_impl import STATUS_LINE


@dataclass(frozen=True)
class ErrorResponse:
    """A response after which the connection closes; `label` names it in the log's summary."""

    label: str
    status: int
    code: str
    message: str
    headers: bytes = b""

    def encode(self) -> bytes:
        body = msgspec.json.encode({"errorCode": self.code, "errorMessage": self.message})
        head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n%b\r\n"
        return STATUS_LINE[self.status] + head % (len(body), self.headers) + body


NOT_HTTP: Final = ErrorResponse("not HTTP", 400, "INVALID_PARAMETER", "These bytes are not an HTTP request.")
HEAD_TOO_LARGE: Final = ErrorResponse("heads too large", 431, "HEADERS_TOO_LARGE", "The request head is too large.")
HEAD_TIMEOUT: Final = ErrorResponse("heads too slow", 408, "REQUEST_TIMEOUT", "The request head arrived too slowly.")
BODY_TIMEOUT: Final = ErrorResponse("bodies too slow", 408, "REQUEST_TIMEOUT", "The request body arrived too slowly.")
TOO_MANY_PIPELINED: Final = ErrorResponse(
    "too many pipelined requests", 429, "TOO_MANY_REQUESTS", "Wait for responses before sending more requests."
)
TOO_MANY_CONNECTIONS: Final = ErrorResponse(
    "too many connections from one address",
    429,
    "TOO_MANY_CONNECTIONS",
    "This address has too many open connections; close some and retry.",
    b"retry-after: 1\r\n",
)

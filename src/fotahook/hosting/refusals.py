"""What the server itself answers, before there is a request for any app."""

from dataclasses import dataclass
from typing import Final

import msgspec
from uvicorn.protocols.http.httptools_impl import STATUS_LINE


@dataclass(frozen=True)
class Refusal:
    """An answer to what never becomes a request; `title` names it in the log."""

    title: str
    status: int
    code: str
    message: str
    headers: bytes = b""

    def response(self) -> bytes:
        body = msgspec.json.encode({"errorCode": self.code, "errorMessage": self.message})
        head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n%b\r\n"
        return STATUS_LINE[self.status] + head % (len(body), self.headers) + body


NOT_HTTP: Final = Refusal("not HTTP", 400, "INVALID_PARAMETER", "These bytes are not an HTTP request.")
HEAD_TOO_LARGE: Final = Refusal("heads too large", 431, "HEADERS_TOO_LARGE", "The request's head is too large.")
HEAD_TOO_SLOW: Final = Refusal("heads too slow", 408, "REQUEST_TIMEOUT", "The request's head took too long to arrive.")
BODY_TOO_SLOW: Final = Refusal("bodies too slow", 408, "REQUEST_TIMEOUT", "The request's body took too long to arrive.")
TOO_MANY_TOGETHER: Final = Refusal(
    "requests sent too many together", 429, "TOO_MANY_REQUESTS", "Wait for answers before sending more."
)
CROWDED: Final = Refusal(
    "connections beyond an address's share",
    429,
    "TOO_MANY_CONNECTIONS",
    "This address has too many connections under way; close some, and come again.",
    b"retry-after: 1\r\n",
)

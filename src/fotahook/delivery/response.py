"""Reads a receiver's response: leniently where a 2xx is complete, and bounded in count, bytes and time."""

import re
from typing import Final, NamedTuple

import httptools

HEAD_LIMIT: Final = 64 * 1024
FIELD_LIMIT: Final = 256
INTERIM_LIMIT: Final = 10
RESPONSE_LIMIT: Final = 16 * 1024
"""Bytes of a response's body that are read; the connection of a longer one is closed."""
RECEIVED_LIMIT: Final = 512 * 1024
"""Bytes of a response in all, what frames its body included."""
_HEAD_TOO_LONG: Final = f"the head of the response has more than {HEAD_LIMIT} bytes"
_HEAD: Final = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})[ \r\n].*?\r?\n\r?\n", re.DOTALL)


class Response(NamedTuple):
    """A response, with as much of its body as is read."""

    status: int
    body: bytes
    retry_after: str | None = None
    location: str | None = None


class ExchangeFailed(Exception):
    """No usable response came. `code` is the outcome's error code."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class ResponseReader:
    """Reads one response. httptools calls its methods ``on_…``."""

    def __init__(self) -> None:
        self.status = self.interim = 0
        """The status, once the head is complete, and how many interim responses came before it."""
        self.head = b""
        self.framed = self.ended = self.keep = False
        """Whether the head says where the body ends, nothing more is to be read, and the connection may be kept."""
        self._received = self._fields = self._field_bytes = self._body_bytes = 0
        self._complete = False
        self._body = b""
        self._retry_after: str | None = None
        self._location: str | None = None
        self._parser = httptools.HttpResponseParser(self)
        # Line ends and headers as other clients read them. What is odd costs the connection, not the outcome.
        self._parser.set_dangerous_leniencies(
            lenient_headers=True,
            lenient_data_after_close=True,
            lenient_optional_lf_after_cr=True,
            lenient_optional_cr_before_lf=True,
            lenient_spaces_after_chunk_size=True,
        )

    @property
    def accepted(self) -> bool:
        """Whether the status is a success, which decides the outcome whatever follows."""
        return 200 <= self.status < 300

    @property
    def response(self) -> Response:
        return Response(self.status, self._body, self._retry_after, self._location)

    def feed(self, data: bytes) -> None:
        """Read what came; ExchangeFailed if it is no response."""
        self._received += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError as error:
            raise ExchangeFailed("response_invalid", str(error.__context__)) from error
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self.status and not self.interim and (head := _HEAD.match(self.head + data)) is not None:
                self.status = int(head[1])
            if not (self._complete or self.accepted):
                raise ExchangeFailed("response_invalid", f"the response is not HTTP: {error}") from error
            self.ended, self.keep = True, False
            return
        if not self.status:
            self.head += data
            if len(self.head) > HEAD_LIMIT:
                raise ExchangeFailed("response_invalid", _HEAD_TOO_LONG)
        too_long = self._body_bytes > RESPONSE_LIMIT or self._received > RECEIVED_LIMIT
        self.ended = self._complete or too_long

    def on_message_begin(self) -> None:
        # A second message in answer to one request makes the connection unusable.
        self.keep = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields += 1
        self._field_bytes += len(name) + len(value)
        if self._fields > FIELD_LIMIT:
            raise ValueError(f"the response has more than {FIELD_LIMIT} header fields")
        if self._field_bytes > HEAD_LIMIT:
            raise ValueError(_HEAD_TOO_LONG)
        match name.lower():
            case b"content-length" | b"transfer-encoding":
                self.framed = True
            case b"retry-after":
                self._retry_after = value.decode("latin-1")
            case b"location":
                self._location = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if 100 <= status < 200:
            self.interim += 1
            if status == 101 or self.interim > INTERIM_LIMIT:
                what = "switches protocols" if status == 101 else f"has more than {INTERIM_LIMIT} interim parts"
                raise ValueError(f"the response {what}")
        elif not self._complete:
            self.status = status

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if len(self._body) < RESPONSE_LIMIT:
            self._body += body[: RESPONSE_LIMIT - len(self._body)]

    def on_message_complete(self) -> None:
        if self.status and not self._complete:
            self._complete = True
            self.keep = self._parser.should_keep_alive()

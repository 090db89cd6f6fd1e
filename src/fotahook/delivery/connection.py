"""One connection to a receiver: it sends a request and reads the response.

It reads leniently where a 2xx is complete, and everything a receiver sends is bounded in count, bytes and time.
"""

import asyncio
import re
import ssl
from collections.abc import Callable
from typing import Final, NamedTuple, cast

import httptools

from .timing import Timing
from .tls import code_of_tls_error

HEAD_LIMIT: Final = 64 * 1024
"""Bytes of a response's head, interim responses included."""
FIELD_LIMIT: Final = 256
INTERIM_LIMIT: Final = 10
"""1xx responses before the final one."""
RESPONSE_LIMIT: Final = 16 * 1024
"""Bytes of a response's body that are read; the connection of a longer one is closed."""
RECEIVED_LIMIT: Final = 512 * 1024
"""Bytes of a response in all, what frames its body included."""
COPY_LIMIT: Final = 16 * 1024
"""A longer body of a request is not copied behind its head: that would cost more than a second write."""
BODY_GRACE_SECONDS: Final = 1.0
"""How long the body of a 2xx is waited for: its head has already decided the outcome."""
_HEAD_TOO_LONG: Final = f"the head of the response has more than {HEAD_LIMIT} bytes"
_HEAD: Final = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})[ \r\n].*?\r?\n\r?\n", re.DOTALL)
"""A whole head, whatever its fields."""


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


class ConnectionDropped(ExchangeFailed):
    """The connection ended before the first byte of a response."""


class Connection(asyncio.Protocol):
    """A connection to an origin. It carries one exchange at a time."""

    def __init__(self) -> None:
        self.reused = False
        self.idle_since = 0.0
        self.on_idle_end: Callable[[Connection], None] | None = None
        self._transport: asyncio.Transport | None = None
        self._parser = _parser(self)
        self._waiter: asyncio.Future[Response] | None = None
        self._error: Exception | None = None

    @property
    def usable(self) -> bool:
        """Whether another request may be sent."""
        return self._transport is not None and not self._transport.is_closing()

    async def exchange(self, head: bytes, body: bytes, timing: Timing, *, tunnel: bool = False) -> Response:
        """Send a request and read its response; ExchangeFailed if none comes. Cancelled, it drops the connection.

        `tunnel`: the request is a CONNECT, and a 2xx has no body.
        """
        if self._transport is None or self._transport.is_closing():
            raise ConnectionDropped("connection_lost", "the receiver closed the connection")
        self._timing = timing
        self._tunnel = tunnel
        self._received = self._fields = self._field_bytes = self._interim = self._body_bytes = self._status = 0
        self._head = self._body = b""
        self._retry_after: str | None = None
        self._location: str | None = None
        self._framed = self._complete = self._keep = False
        waiter: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self._waiter = waiter
        if len(body) < COPY_LIMIT:
            self._transport.write(head + body)
        else:
            self._transport.write(head)
            self._transport.write(body)
        timing.mark_sent()
        try:
            return await waiter
        except BaseException:
            self.abort()
            raise
        finally:
            self._waiter = None

    def abort(self) -> None:
        """Close at once: a receiver that reads nothing would never let a connection close in good order."""
        if self._transport is not None:
            self._transport.abort()

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As of asyncio.Protocol."""
        # Not always a subclass: uvloop's transports are their own.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """As of asyncio.Protocol."""
        waiter = self._waiter
        if waiter is None or waiter.done():
            # Nothing was asked: whatever this is, the connection is not worth keeping.
            self.abort()
            return
        self._received += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._parse_failed(error, data)
            return
        finally:
            if self._status or not self._interim:
                self._timing.mark_first_byte()
        if self._complete:
            self._finish(keep=self._keep)
            return
        if not self._status:
            self._head += data
        if len(self._head) > HEAD_LIMIT:
            self._fail("response_invalid", _HEAD_TOO_LONG)
        elif self._body_bytes > RESPONSE_LIMIT or self._received > RECEIVED_LIMIT:
            self._finish(keep=False)
        elif self._accepted():
            asyncio.get_running_loop().call_later(BODY_GRACE_SECONDS, self._end_grace, waiter)

    def connection_lost(self, error: Exception | None) -> None:
        """As of asyncio.Protocol."""
        if self.on_idle_end is not None:
            self.on_idle_end(self)
        if self._waiter is None or self._waiter.done():
            return
        if self._status and (not self._framed or self._accepted()):
            self._finish(keep=False)
        elif self._status or self._head:
            self._fail("response_cut_off", "the response broke off")
        elif isinstance(error, ssl.SSLError) and code_of_tls_error(error) == "tls_client_certificate":
            # With TLS 1.3 a receiver refuses a client without a certificate only after the handshake.
            self._waiter.set_exception(ExchangeFailed("tls_client_certificate", str(error)))
        else:
            text = "the receiver closed the connection before it answered"
            self._waiter.set_exception(ConnectionDropped("connection_lost", str(error or text)))

    # What the parser calls

    def on_message_begin(self) -> None:
        """As of httptools. A second message in answer to one request makes the connection unusable."""
        self._keep = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """As of httptools."""
        self._fields += 1
        self._field_bytes += len(name) + len(value)
        if self._fields > FIELD_LIMIT:
            raise ValueError(f"the response has more than {FIELD_LIMIT} header fields")
        if self._field_bytes > HEAD_LIMIT:
            raise ValueError(_HEAD_TOO_LONG)
        match name.lower():
            case b"content-length" | b"transfer-encoding":
                self._framed = True
            case b"retry-after":
                self._retry_after = value.decode("latin-1")
            case b"location":
                self._location = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """As of httptools."""
        status = self._parser.get_status_code()
        if 100 <= status < 200:
            self._interim += 1
            if status == 101 or self._interim > INTERIM_LIMIT:
                what = "switches protocols" if status == 101 else f"has more than {INTERIM_LIMIT} interim parts"
                raise ValueError(f"the response {what}")
        elif not self._complete:
            self._status = status
            self._complete = self._keep = self._tunnel and self._accepted()

    def on_body(self, body: bytes) -> None:
        """As of httptools."""
        self._body_bytes += len(body)
        if len(self._body) < RESPONSE_LIMIT:
            self._body += body[: RESPONSE_LIMIT - len(self._body)]

    def on_message_complete(self) -> None:
        """As of httptools."""
        if self._status and not self._complete:
            self._complete = True
            self._keep = self._parser.should_keep_alive()

    # Ends

    def _accepted(self) -> bool:
        return 200 <= self._status < 300

    def _parse_failed(self, error: Exception, data: bytes) -> None:
        if isinstance(error, httptools.HttpParserCallbackError):
            self._fail("response_invalid", str(error.__context__))
            return
        if not self._status and not self._interim and (head := _HEAD.match(self._head + data)) is not None:
            self._status = int(head[1])
        if self._complete or self._accepted():
            self._finish(keep=False)
        else:
            self._fail("response_invalid", f"the response is not HTTP: {error}")

    def _end_grace(self, waiter: asyncio.Future[Response]) -> None:
        if self._waiter is waiter and not waiter.done():
            self._finish(keep=False)

    def _finish(self, *, keep: bool) -> None:
        if not keep:
            self.abort()
        if self._waiter is not None:
            self._waiter.set_result(Response(self._status, self._body, self._retry_after, self._location))

    def _fail(self, code: str, text: str) -> None:
        self.abort()
        if self._waiter is not None:
            self._waiter.set_exception(ExchangeFailed(code, text))


def _parser(protocol: Connection) -> httptools.HttpResponseParser:
    parser = httptools.HttpResponseParser(protocol)
    # Line ends and headers as other clients read them. What is odd costs the connection, not the outcome.
    parser.set_dangerous_leniencies(
        lenient_headers=True,
        lenient_data_after_close=True,
        lenient_optional_lf_after_cr=True,
        lenient_optional_cr_before_lf=True,
        lenient_spaces_after_chunk_size=True,
    )
    return parser

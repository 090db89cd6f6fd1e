"""One connection to a receiver: it sends a request, reads the response and measures both."""

import asyncio
import ssl
from collections.abc import Callable
from typing import Final, cast

from .response import ExchangeFailed, Response, ResponseReader
from .tls import code_of_tls_error

COPY_LIMIT: Final = 16 * 1024
"""A longer body of a request is not copied behind its head: that would cost more than a second write."""
BODY_GRACE_SECONDS: Final = 1.0
"""How long the body of a 2xx is waited for: its head has already decided the outcome."""
KNOWN_BYTES: Final = 1024
KNOWN_RESPONSES: Final = 256
"""Bounds of the responses that are known."""


class ConnectionDropped(ExchangeFailed):
    """The connection ended before the first byte of a response."""


class Exchange:
    """A request under way, with its times by a monotonic clock in seconds; None for what did not take place."""

    dns_start: float | None = None
    dns_end: float | None = None
    """The addresses are known; connecting starts."""
    connected: float | None = None
    """The TCP connection stands; the TLS handshake starts, if there is one."""
    tls_end: float | None = None
    sent: float | None = None
    """The request is handed to the operating system."""
    first_byte: float | None = None
    reused = False
    """Whether the request was sent on a kept connection."""
    afresh = False
    """Whether it is sent once more, on a connection of its own."""
    clock: Callable[[], float]
    start: float

    def answered(self, response: Response) -> None:
        """The response came: this is called once, or ``failed`` is."""
        raise NotImplementedError

    def failed(self, error: Exception) -> None:
        """None came."""
        raise NotImplementedError

    @property
    def resent(self) -> bool:
        """Whether the request was sent a second time."""
        return self.afresh and self.sent is not None

    @property
    def phase(self) -> str:
        """What was under way when the exchange ended: ``dns``, ``connect``, ``response`` or ``body``."""
        if self.first_byte is not None:
            return "body"
        if self.sent is not None:
            return "response"
        return "dns" if self.dns_start is not None and self.dns_end is None else "connect"

    def phases(self) -> dict[str, float]:
        """Milliseconds of each phase that took place: dns, connect, tls, firstByte, total."""
        phases = {}
        if self.dns_end is not None:
            connecting = (self.dns_start, self.dns_end), (self.dns_end, self.connected), (self.connected, self.tls_end)
            for phase, (begin, end) in zip(("dns", "connect", "tls"), connecting, strict=True):
                if begin is not None and end is not None:
                    phases[phase] = round((end - begin) * 1000, 3)
        if self.first_byte is not None and self.sent is not None:
            phases["firstByte"] = round((self.first_byte - self.sent) * 1000, 3)
        phases["total"] = round((self.clock() - self.start) * 1000, 3)
        return phases


class KnownResponses(dict[bytes, Response]):
    """Responses by their bytes. Receivers answer the same again and again, and the same bytes mean the same.

    Only those that came whole, and after which the connection was kept.
    """

    def learn(self, data: bytes, response: Response) -> None:
        """Keep a response, unless it is long."""
        if len(data) <= KNOWN_BYTES:
            if len(self) >= KNOWN_RESPONSES:
                self.clear()
            self[data] = response


class Connection(asyncio.Protocol):
    """A connection to an origin. It carries one exchange at a time."""

    def __init__(self, known: KnownResponses) -> None:
        self.on_idle_end: Callable[[], object] | None = None
        self._known = known
        self._transport: asyncio.Transport | None = None
        self._exchange: Exchange | None = None
        self._reader: ResponseReader | None = None

    @property
    def usable(self) -> bool:
        """Whether another request may be sent."""
        return self._transport is not None and not self._transport.is_closing()

    def send(self, exchange: Exchange, head: bytes, body: bytes) -> None:
        """Send a request for an exchange."""
        transport = self._transport
        if transport is None or transport.is_closing():
            exchange.failed(ConnectionDropped("connection_lost", "the receiver closed the connection"))
            return
        self._exchange = exchange
        if len(body) < COPY_LIMIT:
            transport.write(head + body)
        else:
            transport.write(head)
            transport.write(body)
        exchange.sent = exchange.clock()

    def abort(self) -> None:
        """Close at once, whatever is under way, and tell nobody.

        A receiver that reads nothing would never let a connection close in good order.
        """
        self._exchange = None
        if self._transport is not None:
            self._transport.abort()

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As of asyncio.Protocol."""
        # Not always a subclass: uvloop's transports are their own.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """As of asyncio.Protocol."""
        exchange, reader = self._exchange, self._reader
        if exchange is None:
            # Nothing was asked: whatever this is, the connection is not worth keeping.
            self.abort()
            return
        if reader is not None:
            self._read(exchange, reader, data)
        elif (known := self._known.get(data)) is not None:
            exchange.first_byte = exchange.clock()
            self._exchange = None
            exchange.answered(known)
        else:
            reader = self._reader = ResponseReader()
            self._read(exchange, reader, data)
            if reader.keep:
                self._known.learn(data, reader.response)

    def _read(self, exchange: Exchange, reader: ResponseReader, data: bytes) -> None:
        was_accepted = reader.accepted
        try:
            reader.feed(data)
        except ExchangeFailed as error:
            self._fail(error)
            return
        finally:
            if exchange.first_byte is None and (reader.status or not reader.interim):
                exchange.first_byte = exchange.clock()
        if reader.ended:
            self._finish(keep=reader.keep)
        elif reader.accepted and not was_accepted:
            asyncio.get_running_loop().call_later(BODY_GRACE_SECONDS, self._end_grace, exchange)

    def connection_lost(self, error: Exception | None) -> None:
        """As of asyncio.Protocol."""
        if self.on_idle_end is not None:
            self.on_idle_end()
        if self._exchange is None:
            return
        reader = self._reader
        if reader is not None and reader.status and (reader.accepted or not reader.framed):
            self._finish(keep=False)
        elif reader is not None:
            self._fail(ExchangeFailed("response_cut_off", "the response broke off"))
        elif isinstance(error, ssl.SSLError) and code_of_tls_error(error) == "tls_client_certificate":
            # With TLS 1.3 a receiver refuses a client without a certificate only after the handshake.
            self._fail(ExchangeFailed("tls_client_certificate", str(error)))
        else:
            text = "the receiver closed the connection before it answered"
            self._fail(ConnectionDropped("connection_lost", str(error or text)))

    # Ends

    def _end_grace(self, exchange: Exchange) -> None:
        if self._exchange is exchange:
            self._finish(keep=False)

    def _finish(self, *, keep: bool) -> None:
        exchange, reader = self._exchange, self._reader
        self._exchange = self._reader = None
        if not keep:
            self.abort()
        if exchange is not None and reader is not None:
            exchange.answered(reader.response)

    def _fail(self, error: Exception) -> None:
        exchange = self._exchange
        self.abort()
        if exchange is not None:
            exchange.failed(error)

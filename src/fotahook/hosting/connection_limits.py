"""uvicorn's HTTP protocol with a timeout for each phase of a connection and a limit on connections per address.

uvicorn alone waits for ever for a request's head and body, and for a client that does not read the response.
"""

import asyncio
import logging
import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import Enum, auto
from ipaddress import IPv6Address, IPv6Network
from itertools import chain
from typing import Any, Final, cast

import msgspec
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

logger = logging.getLogger(__name__)

_PIPELINED_LIMIT: Final = 100
"""Requests that wait for an earlier response. One read has room for thousands, which take megabytes."""
_SUMMARY_SECONDS: Final = 60.0
_WARNED_ADDRESSES_LIMIT: Final = 100
_IPV6_PREFIX: Final = 64
"""One client's share of IPv6 addresses; it may use any of them."""


@dataclass(frozen=True)
class ErrorResponse:
    """The response to what never becomes a request for the app; `label` names it in the log's summary."""

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


@dataclass(frozen=True, kw_only=True)
class ConnectionLimits:
    """Limits for one connection and for one address. Seconds and bytes."""

    header_bytes: int = 32 * 1024
    header_seconds: float = 10.0
    body_seconds: float = 60.0
    """For a request body to arrive, and for a response to be read."""
    idle_seconds: float = 75.0
    per_address: int = 512


class Phase(Enum):
    """What a connection waits for."""

    HEAD = auto()
    BODY = auto()
    RESPONSE = auto()
    """For the app to respond."""
    READER = auto()
    """For the client to read what was written."""
    IDLE = auto()
    CLOSING = auto()
    """For the client to hang up: closed at once, what it still sends would make its system discard our last bytes."""


class ConnectionLimiter:
    """Enforces the limits on one server's connections; `open_paths` stay available to an address at its limit."""

    def __init__(
        self, limits: ConnectionLimits, open_paths: Collection[str], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.limits = limits
        self.open_paths = frozenset(path.encode() for path in open_paths)
        self.monotonic = monotonic
        self.timeouts = {
            Phase.HEAD: limits.header_seconds,
            Phase.BODY: limits.body_seconds,
            Phase.RESPONSE: math.inf,
            Phase.READER: limits.body_seconds,
            Phase.IDLE: limits.idle_seconds,
            Phase.CLOSING: limits.header_seconds,
        }
        self._by_address: dict[str, set[LimitedProtocol]] = defaultdict(set)
        self._warned: set[str] = set()
        self.refused: Counter[str] = Counter()
        """Refused requests and closed connections since the last summary."""
        self._summarized_at = monotonic()

    def add(self, connection: "LimitedProtocol") -> bool:
        """Count a connection; False if its address is at its limit and all its connections wait for the app.

        Otherwise connections that wait for their client make room: those waiting longest first, uploads last. So slow
        clients push out one another, and others at their address get through.
        """
        connections = self._by_address[connection.address]
        connections.add(connection)
        if len(connections) <= self.limits.per_address:
            return True
        open_ones = [one for one in connections if not one.transport.is_closing()]
        excess = len(open_ones) - self.limits.per_address
        if excess <= 0:
            return True
        self._warn_once(connection.address)
        evictable = [one for one in open_ones if one.phase is not Phase.RESPONSE and one is not connection]
        for one in sorted(evictable, key=LimitedProtocol.eviction_order)[:excess]:
            self.refused[TOO_MANY_CONNECTIONS.label] += 1
            one.transport.abort()
        return len(evictable) >= excess

    def remove(self, connection: "LimitedProtocol") -> None:
        """Forget a connection that is closed."""
        connections = self._by_address[connection.address]
        connections.discard(connection)
        if not connections:
            del self._by_address[connection.address]

    def sweep(self) -> None:
        """Close connections over their timeout; once a minute, log how many were refused or closed."""
        now = self.monotonic()
        for connection in list(chain.from_iterable(self._by_address.values())):
            connection.enforce_timeout(now)
        if now - self._summarized_at >= _SUMMARY_SECONDS:
            self._summarized_at = now
            if self.refused:
                counts = ", ".join(f"{count} {label}" for label, count in self.refused.items())
                self.refused.clear()
                logger.warning("refused or closed in the last minute: %s", counts)

    def _warn_once(self, address: str) -> None:
        # Once for each address: this must not become another way to fill the disk.
        if address not in self._warned and len(self._warned) < _WARNED_ADDRESSES_LIMIT:
            self._warned.add(address)
            logger.warning(
                "%s has %d connections, the limit for one address: waiting ones are closed for new ones. "
                "If it is a proxy, raise --connections-per-address",
                address,
                self.limits.per_address,
            )


class LimitedProtocol(HttpToolsProtocol):
    """One connection under a limiter."""

    def __init__(self, limiter: ConnectionLimiter, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._limiter = limiter
        self._header_bytes = limiter.limits.header_bytes
        self.address = ""
        self._admitted = True
        self.phase = Phase.HEAD
        self._phase_began = limiter.monotonic()
        self._incomplete_bytes = 0
        """Received since the last complete piece of a request: part of a head, or of what follows a body."""
        self._parser_error = NOT_HTTP

    def eviction_order(self) -> tuple[bool, bool, float]:
        """Sort key of connections that wait for their client: the lowest is closed first."""
        return self.phase is Phase.BODY, self.phase is not Phase.CLOSING, self._phase_began

    def enforce_timeout(self, now: float) -> None:
        """Close the connection if its client took too long."""
        if self.phase is Phase.BODY and self.flow.read_paused:
            # The app is slow, not the client.
            self._phase_began = now
        if now - self._phase_began <= self._limiter.timeouts[self.phase]:
            return
        if self.phase is Phase.CLOSING or self.transport.is_closing():
            # The client does not read the last response.
            self.transport.abort()
        elif self.phase is Phase.HEAD and self._incomplete_bytes:
            self._respond_and_close(HEAD_TIMEOUT)
        elif self.phase is Phase.BODY:
            self._respond_and_close(BODY_TIMEOUT)
        elif self.phase is Phase.READER:
            self._limiter.refused["responses not read"] += 1
            self.transport.abort()
        else:
            # Without a request there is nothing to respond to.
            self.transport.close()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(cast(asyncio.Transport, _BufferedTransport(transport, self.loop)))
        self.address = _client_key(self.client[0] if self.client else "")
        self._admitted = self._limiter.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._limiter.remove(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.phase is Phase.CLOSING:
            return
        if self.phase is Phase.IDLE:
            self._enter(Phase.HEAD)
        self._incomplete_bytes += len(data)
        super().data_received(data)
        if self._incomplete_bytes > self._header_bytes:
            self._respond_and_close(HEAD_TOO_LARGE)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self.phase is not Phase.HEAD:
            self._enter(Phase.HEAD)

    def on_headers_complete(self) -> None:
        self._incomplete_bytes = 0
        # Each header with ": " and its line end, as it was sent.
        size = len(self.url) + 4 * len(self.headers) + sum(map(len, chain.from_iterable(self.headers)))
        if size > self._header_bytes:
            self._stop_parser(HEAD_TOO_LARGE)
        if len(self.pipeline) >= _PIPELINED_LIMIT:
            self._stop_parser(TOO_MANY_PIPELINED)
        if not self._admitted and self.url.partition(b"?")[0] not in self._limiter.open_paths:
            self._stop_parser(TOO_MANY_CONNECTIONS)
        self._enter(Phase.BODY)
        super().on_headers_complete()
        if not self._admitted:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        self._incomplete_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._incomplete_bytes = 0
        self._enter_response_or_idle()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        # Not while the rest of a body, or the next request, still arrives or is being handled.
        if self.phase is Phase.RESPONSE and self.cycle.response_complete:
            self._enter(Phase.IDLE)

    def shutdown(self) -> None:
        if self.phase is Phase.CLOSING or (self.transport.is_closing() and not self.transport.get_write_buffer_size()):
            # Everything is sent; over TLS the client's close_notify could take another half a minute.
            self.transport.abort()
        else:
            super().shutdown()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self.phase is Phase.RESPONSE:
            self._enter(Phase.READER)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.phase is Phase.READER:
            self._enter_response_or_idle()

    def send_400_response(self, msg: str) -> None:
        # uvicorn calls this when the parser, or one of its callbacks, raises.
        self._respond_and_close(self._parser_error)

    def _enter(self, phase: Phase) -> None:
        self.phase, self._phase_began = phase, self._limiter.monotonic()

    def _enter_response_or_idle(self) -> None:
        self._enter(Phase.IDLE if self.cycle.response_complete else Phase.RESPONSE)

    def _stop_parser(self, error: ErrorResponse) -> None:
        """Called in one of the parser's callbacks."""
        self._parser_error = error
        raise ValueError(error.label)

    def _respond_and_close(self, error: ErrorResponse) -> None:
        """Send an error response, unless another response has begun, and read nothing more."""
        if self.phase is Phase.CLOSING or self.transport.is_closing():
            return
        self._limiter.refused[error.label] += 1
        # None before the first request, whatever uvicorn's types say.
        cycle: RequestResponseCycle | None = self.cycle
        in_request = cycle is not None and not cycle.response_complete
        if in_request and (self.phase is not Phase.BODY or self.pipeline):
            # An earlier request has no response yet, and this one would pass for it.
            self.transport.abort()
            return
        if not in_request or not self.cycle.response_started:
            self.transport.write(error.encode())
        if in_request:
            # Wakes an app that waits for the body or writes the response.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self._enter(Phase.CLOSING)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()


def _client_key(address: str) -> str:
    """The address that a client's connections are counted by; for IPv6 its network."""
    if ":" not in address:
        return address
    ip = IPv6Address(address)
    return str(ip.ipv4_mapped or IPv6Network((ip, _IPV6_PREFIX), strict=False))


class _BufferedTransport:
    """A transport that sends a response's head and body, which uvicorn writes separately, in one packet."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._buffer = bytearray()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if not self._buffer:
            self._loop.call_soon(self._flush)
        self._buffer += data
        if len(self._buffer) > HIGH_WATER_LIMIT:
            # The transport tells uvicorn when to pause.
            self._flush()

    def write_eof(self) -> None:
        self._flush()
        self._transport.write_eof()

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def get_write_buffer_size(self) -> int:
        return len(self._buffer) + self._transport.get_write_buffer_size()

    def _flush(self) -> None:
        data, self._buffer = self._buffer, bytearray()
        if data and not self._transport.is_closing():
            self._transport.write(data)

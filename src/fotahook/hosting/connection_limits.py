"""uvicorn's HTTP protocol with limits on the number of connections, which count once they are accepted, before TLS, and
with a timeout for each phase: uvicorn waits for ever for heads, bodies, and clients that do not read."""

import asyncio
import contextlib
import heapq
import logging
import math
import socket
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from itertools import chain
from typing import Any, Final, cast

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from ..contract.addresses import Network, address_key, is_within, parse_address
from . import gate

logger = logging.getLogger(__name__)

_PIPELINED_LIMIT: Final = 100
"""Requests that wait for an earlier response. One read has room for thousands, which take megabytes."""
_RESERVED: Final = 64
"""Connections over the limit in all that are accepted to be answered: health checks, and refusals."""


@dataclass(frozen=True, kw_only=True)
class ConnectionLimits:
    """Limits for one connection and for one address. Seconds and bytes."""

    handshake_seconds: float = 10.0
    header_bytes: int = 32 * 1024
    header_seconds: float = 10.0
    body_seconds: float = 60.0
    """For a request body to arrive, and for a response to be read."""
    idle_seconds: float = 75.0
    per_address: int = 512
    total: int = 4096


class Phase(Enum):
    """What a connection waits for."""

    HANDSHAKE = auto()
    HEAD = auto()
    BODY = auto()
    RESPONSE = auto()
    READER = auto()
    IDLE = auto()
    CLOSING = auto()
    """For the client to hang up: closed at once, what it still sends would make its system discard our last bytes."""


class ConnectionLimiter:
    """Enforces the limits on one server's connections; `open_paths` stay available to an address at its limit.
    Addresses in `proxies` stand for many clients: only the limit in all is theirs."""

    def __init__(
        self,
        limits: ConnectionLimits,
        open_paths: Collection[str],
        monotonic: Callable[[], float] = time.monotonic,
        *,
        proxies: Sequence[Network] = (),
    ) -> None:
        self.limits = limits
        self.open_paths = frozenset(path.encode() for path in open_paths)
        self.monotonic = monotonic
        self.count = 0
        self.refused: Counter[str] = Counter()
        head, body = limits.header_seconds, limits.body_seconds
        seconds = (limits.handshake_seconds, head, body, math.inf, body, limits.idle_seconds, head)
        self.timeouts = dict(zip(Phase, seconds, strict=True))
        self._proxies = proxies
        self._by_address: dict[str, set[LimitedProtocol]] = defaultdict(set)
        self._refused: dict[LimitedProtocol, gate.ErrorResponse] = {}
        self._warned: set[str] = set()
        self._summarized_at = monotonic()

    def add(self, connection: "LimitedProtocol", address: str) -> None:
        """Count a connection that was just accepted, and say in its `refusal` if its requests are to be refused. At a
        limit, connections that wait for their client make room: those waiting longest first, uploads last; at the limit
        in all, those of the address with most. Only where all of them wait for the app is the new one refused."""
        connection.address = address_key(address)
        connections = self._by_address[connection.address]
        connections.add(connection)
        self.count += 1
        excess = sum(not one.is_closing for one in connections) - self.limits.per_address
        peer = parse_address(address)
        if excess > 0 and not (peer and is_within(peer, self._proxies)):
            self.warn_each_minute(
                "%s has %d connections, the limit for one address: waiting ones are closed for new ones. If it is a "
                "proxy, raise --connections-per-address",
                connection.address,
                self.limits.per_address,
            )
            self._make_room(connections, excess, connection, gate.ADDRESS_FULL)
        if (excess := self.count - self.limits.total) > 0 and connection not in self._refused:
            self.warn_each_minute(
                "%d connections are open, all that the limit on open files leaves room for: waiting ones are closed "
                "for new ones. Raise that limit (LimitNOFILE= of systemd, ulimit -n)",
                self.limits.total,
            )
            most = max(self._by_address.values(), key=len)
            self._make_room(most, excess, connection, gate.SERVER_FULL)

    def _make_room(
        self, among: "set[LimitedProtocol]", excess: int, new: "LimitedProtocol", refusal: gate.ErrorResponse
    ) -> None:
        def order(one: LimitedProtocol) -> tuple[bool, bool, float]:
            return one.phase is Phase.BODY, one.phase is not Phase.CLOSING, one.phase_began

        waiting = [one for one in among if one.phase is not Phase.RESPONSE and not one.is_closing and one is not new]
        for one in heapq.nsmallest(excess, waiting, key=order):
            self.evict(one, refusal.label)
        if len(waiting) < excess:
            new.refusal = self._refused[new] = refusal
            if len(self._refused) > _RESERVED:
                oldest, reason = next(iter(self._refused.items()))
                self.evict(oldest, reason.label)

    def evict(self, connection: "LimitedProtocol", label: str) -> None:
        self.refused[label] += 1
        # At once: the next connection may be accepted before this one is closed.
        self.remove(connection)
        connection.abort()

    def remove(self, connection: "LimitedProtocol") -> bool:
        connections = self._by_address.get(connection.address, set())
        if connection not in connections:
            return False
        connections.remove(connection)
        self._refused.pop(connection, None)
        self.count -= 1
        if not connections:
            del self._by_address[connection.address]
        return True

    def sweep(self) -> None:
        """Close connections over their timeout; once a minute, log how many were refused or closed."""
        now = self.monotonic()
        for connection in list(chain.from_iterable(self._by_address.values())):
            connection.enforce_timeout(now)
        if now - self._summarized_at >= 60:
            self._summarized_at = now
            self._warned.clear()
            if counts := ", ".join(f"{count} {label}" for label, count in self.refused.items() if count):
                logger.warning("refused or closed in the last minute: %s", counts)
            self.refused.clear()

    def warn_each_minute(self, text: str, *values: object) -> None:
        """Log a warning, unless one of this text was in this minute: nobody can fill the disk."""
        if text not in self._warned:
            self._warned.add(text)
            logger.warning(text, *values)


class LimitedProtocol(HttpToolsProtocol):
    """One connection under a limiter. Without a transport until TLS is established."""

    def __init__(self, limiter: ConnectionLimiter, accepted: socket.socket, **options: Any) -> None:
        super().__init__(**options)
        self._accepted, self._limiter, self._header_bytes = accepted, limiter, limiter.limits.header_bytes
        self.address = ""
        self.refusal: gate.ErrorResponse | None = None
        self._enter(Phase.HANDSHAKE)
        self._incomplete_bytes = 0
        """Received since the last complete piece of a request: part of a head, or of what follows a body."""
        self._parser_error = gate.NOT_HTTP

    @property
    def is_closing(self) -> bool:
        return self.phase is not Phase.HANDSHAKE and self.transport.is_closing()

    def abort(self) -> None:
        if self.phase is not Phase.HANDSHAKE:
            self.transport.abort()
        else:
            # Ends the handshake with an error, which closes the socket.
            with contextlib.suppress(OSError):
                self._accepted.shutdown(socket.SHUT_RDWR)

    def enforce_timeout(self, now: float) -> None:
        if self.phase is Phase.BODY and self.flow.read_paused:
            # The app is slow, not the client.
            self.phase_began = now
        if now - self.phase_began <= self._limiter.timeouts[self.phase]:
            return
        if self.phase is Phase.HANDSHAKE:
            self._limiter.evict(self, "TLS handshakes too slow")
        elif self.phase is Phase.CLOSING or self.transport.is_closing():
            # The client does not read the last response.
            self.transport.abort()
        elif self.phase is Phase.HEAD and self._incomplete_bytes:
            self._respond_and_close(gate.HEAD_TIMEOUT)
        elif self.phase is Phase.BODY:
            self._respond_and_close(gate.BODY_TIMEOUT)
        elif self.phase is Phase.READER:
            self._limiter.refused["responses not read"] += 1
            self.transport.abort()
        else:
            # Without a request there is nothing to respond to.
            self.transport.close()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(cast(asyncio.Transport, _BufferedTransport(transport, self.loop)))
        self._enter(Phase.HEAD)

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
            self._respond_and_close(gate.HEAD_TOO_LARGE)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self.phase is not Phase.HEAD:
            self._enter(Phase.HEAD)

    def on_headers_complete(self) -> None:
        self._incomplete_bytes = 0
        # Each header with ": " and its line end, as it was sent.
        size = len(self.url) + 4 * len(self.headers) + sum(map(len, chain.from_iterable(self.headers)))
        if size > self._header_bytes:
            self._stop_parser(gate.HEAD_TOO_LARGE)
        if len(self.pipeline) >= _PIPELINED_LIMIT:
            self._stop_parser(gate.TOO_MANY_PIPELINED)
        if self.refusal is not None and self.url.partition(b"?")[0] not in self._limiter.open_paths:
            self._stop_parser(self.refusal)
        self._enter(Phase.BODY)
        super().on_headers_complete()
        if self.refusal is not None:
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
        self.phase, self.phase_began = phase, self._limiter.monotonic()

    def _enter_response_or_idle(self) -> None:
        self._enter(Phase.IDLE if self.cycle.response_complete else Phase.RESPONSE)

    def _stop_parser(self, error: gate.ErrorResponse) -> None:
        self._parser_error = error
        raise ValueError(error.label)

    def _respond_and_close(self, error: gate.ErrorResponse) -> None:
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


class _BufferedTransport:
    """A transport that sends a response's head and body, which uvicorn writes separately, in one packet."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop, self._buffer = transport, loop, bytearray()

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

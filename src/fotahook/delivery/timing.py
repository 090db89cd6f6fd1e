"""Measures the phases of one exchange in the HTTP client's own connector, sockets and TLS context.

The client's trace events would give the same times at several times the cost.
"""

import socket
import ssl
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import aiohttp


class Timing:
    """The times of one exchange's events, in seconds of a monotonic clock."""

    __slots__ = ("_clock", "_events", "resending", "reused")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._events = {"start": clock()}
        self.reused = False
        self.resending = False

    def mark(self, event: str) -> None:
        """Record the time of an event; only the first time counts."""
        if event not in self._events:
            self._events[event] = self._clock()

    def resend(self) -> None:
        """Start again on a new connection."""
        self.resending, self.reused = True, False
        self._events.pop("sent", None)

    @property
    def resent(self) -> bool:
        """Whether the request was sent a second time: there was a new connection."""
        return self.resending and self.happened("sent")

    def happened(self, event: str) -> bool:
        """Whether an event is recorded."""
        return event in self._events

    def phases(self) -> dict[str, float]:
        """Milliseconds of each completed phase: dns, connect, tls, firstByte, total."""
        self.mark("end")
        events = self._events
        spans = _SPANS_WITH_TLS if "tls_start" in events else _SPANS
        return {
            phase: round((events[end] - events[start]) * 1000, 3)
            for phase, start, end in spans
            if start in events and end in events
        }


_DNS = ("dns", "dns_start", "dns_end")
_ANSWER = (("firstByte", "sent", "first_byte"), ("total", "start", "end"))
_SPANS = (_DNS, ("connect", "connect_start", "connected"), *_ANSWER)
_SPANS_WITH_TLS = (_DNS, ("connect", "connect_start", "tls_start"), ("tls", "tls_start", "connected"), *_ANSWER)

current: ContextVar[Timing] = ContextVar("fotahook_delivery_timing")


class TimedConnector(aiohttp.TCPConnector):
    """A connector that records whether it made a connection, and how long that took."""

    def __init__(self, **options: Any) -> None:
        super().__init__(socket_factory=_new_socket, **options)

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Any], timeout: aiohttp.ClientTimeout
    ) -> aiohttp.connector.Connection:
        """As in ``aiohttp.TCPConnector``."""
        connection = await super().connect(req, traces, timeout)
        exchange = current.get()
        exchange.reused = not exchange.happened("connect_start")
        if not exchange.reused:
            exchange.mark("connected")
        return connection

    async def _get(self, key: Any, traces: list[Any]) -> aiohttp.connector.Connection | None:
        # After one reused connection turned out to be dead, the other ones to that receiver probably are, too.
        return None if current.get().resending else await super()._get(key, traces)


def _new_socket(address: tuple[Any, ...]) -> socket.socket:
    current.get().mark("connect_start")
    return socket.socket(*address[:3])


class TimedContext(ssl.SSLContext):
    """A TLS context that records when a handshake begins."""

    def wrap_bio(self, *args: Any, **options: Any) -> ssl.SSLObject:
        """As in ``ssl.SSLContext``."""
        if (timing := current.get(None)) is not None:
            timing.mark("tls_start")
        return super().wrap_bio(*args, **options)

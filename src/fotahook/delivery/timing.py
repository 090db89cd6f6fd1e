"""How long each phase of one exchange took, told by the HTTP client's parts as they are used.

Its trace events would tell the same, but cost as much as everything else that we add to an exchange.
"""

import socket
import ssl
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult


class Timing:
    """The moments of one exchange, in seconds of a monotonic clock."""

    __slots__ = ("_clock", "_moments", "afresh", "reused")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._moments = {"start": clock()}
        self.reused = False
        self.afresh = False

    def mark(self, moment: str) -> None:
        """Remember when something happened; only the first time counts."""
        if moment not in self._moments:
            self._moments[moment] = self._clock()

    def begin_again(self) -> None:
        """It is sent once more, on a connection of its own."""
        self.afresh, self.reused = True, False
        self._moments.pop("sent", None)

    @property
    def resent(self) -> bool:
        """Whether it was sent a second time: the new connection came about."""
        return self.afresh and self.happened("sent")

    def happened(self, moment: str) -> bool:
        """Whether it did."""
        return moment in self._moments

    def phases(self) -> dict[str, float]:
        """Milliseconds of each phase that took place: dns, connect, tls, firstByte, total."""
        self.mark("end")
        moments = self._moments
        spans = _SPANS_WITH_TLS if "tls_start" in moments else _SPANS
        return {
            phase: round((moments[end] - moments[start]) * 1000, 3)
            for phase, start, end in spans
            if start in moments and end in moments
        }


_DNS = ("dns", "dns_start", "dns_end")
_ANSWER = (("firstByte", "sent", "first_byte"), ("total", "start", "end"))
_SPANS = (_DNS, ("connect", "connect_start", "connected"), *_ANSWER)
_SPANS_WITH_TLS = (_DNS, ("connect", "connect_start", "tls_start"), ("tls", "tls_start", "connected"), *_ANSWER)

current: ContextVar[Timing] = ContextVar("fotahook_delivery_timing")


class TimedResolver(AbstractResolver):
    """Another resolver, with the time it takes."""

    def __init__(self, resolver: AbstractResolver) -> None:
        self._resolver = resolver

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """What the other one says."""
        exchange = current.get()
        exchange.mark("dns_start")
        addresses = await self._resolver.resolve(host, port, family)
        exchange.mark("dns_end")
        return addresses

    async def close(self) -> None:
        """Close the other one."""
        await self._resolver.close()


class TimedConnector(aiohttp.TCPConnector):
    """A connector that tells whether a connection was made, and how long that took."""

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
        # Of several kept connections to a receiver that went away, the next one would be as dead as the first.
        return None if current.get().afresh else await super()._get(key, traces)


def _new_socket(address: tuple[Any, ...]) -> socket.socket:
    current.get().mark("connect_start")
    return socket.socket(*address[:3])


class TimedContext(ssl.SSLContext):
    """A TLS context that tells when a handshake begins."""

    def wrap_bio(self, *args: Any, **options: Any) -> ssl.SSLObject:
        """As in ``ssl.SSLContext``."""
        if (timing := current.get(None)) is not None:
            timing.mark("tls_start")
        return super().wrap_bio(*args, **options)

"""How long each phase of one exchange took, told by the HTTP client's trace events."""

import ssl
from collections.abc import Callable
from contextvars import ContextVar
from types import SimpleNamespace
from typing import Any

import aiohttp


class Timing:
    """The moments of one exchange, in seconds of a monotonic clock."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._moments = {"start": clock()}
        self.reused = False

    def mark(self, moment: str) -> None:
        """Remember when something happened; only the first time counts."""
        self._moments.setdefault(moment, self._clock())

    def happened(self, moment: str) -> bool:
        """Whether it did."""
        return moment in self._moments

    def phases(self) -> dict[str, float]:
        """Milliseconds of each phase that took place: dns, connect, tls, firstByte, total."""
        self.mark("end")
        spans = {
            "dns": ("dns_start", "dns_end"),
            "connect": ("connect_start", "tls_start" if self.happened("tls_start") else "connected"),
            "tls": ("tls_start", "connected"),
            "firstByte": ("sent", "first_byte"),
            "total": ("start", "end"),
        }
        moments = self._moments
        if "dns_end" in moments:
            moments["connect_start"] = moments["dns_end"]
        return {
            phase: round((moments[end] - moments[start]) * 1000, 3)
            for phase, (start, end) in spans.items()
            if start in moments and end in moments
        }


current: ContextVar[Timing] = ContextVar("fotahook_delivery_timing")


class TimedContext(ssl.SSLContext):
    """A TLS context that tells when a handshake begins: the HTTP client has no event for that."""

    def wrap_bio(self, *args: Any, **options: Any) -> ssl.SSLObject:
        """As in ``ssl.SSLContext``."""
        if (timing := current.get(None)) is not None:
            timing.mark("tls_start")
        return super().wrap_bio(*args, **options)


def trace() -> aiohttp.TraceConfig:
    """A trace that marks the moments of the current exchange."""
    config = aiohttp.TraceConfig()

    def marks(moment: str) -> Callable[..., Any]:
        async def on_event(session: aiohttp.ClientSession, context: SimpleNamespace, params: object) -> None:
            current.get().mark(moment)

        return on_event

    async def on_reuse(session: aiohttp.ClientSession, context: SimpleNamespace, params: object) -> None:
        current.get().reused = True

    config.on_dns_resolvehost_start.append(marks("dns_start"))
    config.on_dns_resolvehost_end.append(marks("dns_end"))
    config.on_connection_create_start.append(marks("connect_start"))
    config.on_connection_create_end.append(marks("connected"))
    config.on_connection_reuseconn.append(on_reuse)
    config.on_request_chunk_sent.append(marks("sent"))
    return config

"""How long each phase of one exchange took."""

from collections.abc import Callable


class Timing:
    """The times of one exchange, by a monotonic clock in seconds; None for what did not take place."""

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

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.start = clock()

    def start_again(self) -> None:
        """The request is sent once more, on a connection of its own."""
        self.afresh, self.reused, self.sent = True, False, None

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
        end, phases = self.clock(), {}
        if self.dns_end is not None:
            if self.dns_start is not None:
                phases["dns"] = round((self.dns_end - self.dns_start) * 1000, 3)
            if self.connected is not None:
                phases["connect"] = round((self.connected - self.dns_end) * 1000, 3)
                if self.tls_end is not None:
                    phases["tls"] = round((self.tls_end - self.connected) * 1000, 3)
        if self.first_byte is not None and self.sent is not None:
            phases["firstByte"] = round((self.first_byte - self.sent) * 1000, 3)
        phases["total"] = round((end - self.start) * 1000, 3)
        return phases

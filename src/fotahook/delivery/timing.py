"""How long each phase of one exchange took."""

from collections.abc import Callable


class Timing:
    """The times of one exchange, in seconds of a monotonic clock. Each is taken once, the first time."""

    __slots__ = (
        "_clock",
        "_connected",
        "_dns_end",
        "_dns_start",
        "_first_byte",
        "_sent",
        "_start",
        "_tls_end",
        "afresh",
        "reused",
    )

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._start = clock()
        self._dns_start: float | None = None
        self._dns_end: float | None = None
        self._connected: float | None = None
        self._tls_end: float | None = None
        self._sent: float | None = None
        self._first_byte: float | None = None
        self.reused = False
        self.afresh = False

    def mark_dns_start(self) -> None:
        """The resolver is asked."""
        self._dns_start = self._clock()

    def mark_dns_end(self) -> None:
        """The addresses are known; connecting starts."""
        self._dns_end = self._clock()

    def mark_connected(self) -> None:
        """The TCP connection stands; the TLS handshake starts, if there is one."""
        self._connected = self._clock()

    def mark_tls_end(self) -> None:
        """The TLS handshake is done."""
        self._tls_end = self._clock()

    def mark_sent(self) -> None:
        """The request is handed to the operating system."""
        self._sent = self._clock()

    def mark_first_byte(self) -> None:
        """The first byte of a response arrived."""
        if self._first_byte is None:
            self._first_byte = self._clock()

    def start_again(self) -> None:
        """The request is sent once more, on a connection of its own."""
        self.afresh, self.reused = True, False
        self._sent = None

    @property
    def resent(self) -> bool:
        """Whether the request was sent a second time."""
        return self.afresh and self._sent is not None

    @property
    def phase(self) -> str:
        """What was under way when the exchange ended: ``dns``, ``connect``, ``response`` or ``body``."""
        if self._first_byte is not None:
            return "body"
        if self._sent is not None:
            return "response"
        return "dns" if self._dns_start is not None and self._dns_end is None else "connect"

    def phases(self) -> dict[str, float]:
        """Milliseconds of each phase that took place: dns, connect, tls, firstByte, total."""
        end = self._clock()
        phases = {}
        if self._dns_start is not None and self._dns_end is not None:
            phases["dns"] = _milliseconds(self._dns_start, self._dns_end)
        if self._dns_end is not None and self._connected is not None:
            phases["connect"] = _milliseconds(self._dns_end, self._connected)
        if self._connected is not None and self._tls_end is not None:
            phases["tls"] = _milliseconds(self._connected, self._tls_end)
        if self._sent is not None and self._first_byte is not None:
            phases["firstByte"] = _milliseconds(self._sent, self._first_byte)
        phases["total"] = _milliseconds(self._start, end)
        return phases


def _milliseconds(start: float, end: float) -> float:
    return round((end - start) * 1000, 3)

"""Message ids: UUIDv7 (RFC 9562), so that they sort by the time of acceptance."""

import os
from collections.abc import Callable

_COUNTER_LIMIT = 1 << 12


class MessageIds:
    """Ids that never go back, even where the clock does. Not for use by several threads."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._last = (0, 0)

    def next(self) -> str:
        """A fresh id: 48 bits of milliseconds, a 12-bit counter within them, 62 random bits."""
        now = int(self._clock() * 1000)
        last, counter = self._last
        self._last = (now, 0) if now > last else divmod(last * _COUNTER_LIMIT + counter + 1, _COUNTER_LIMIT)
        milliseconds, counter = self._last
        random = int.from_bytes(os.urandom(8)) >> 2
        digits = f"{milliseconds << 16 | 0x7 << 12 | counter:016x}{0b10 << 62 | random:016x}"
        return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"

"""Message ids: UUIDv7 (RFC 9562), so that they sort by the time of acceptance."""

import os
from collections.abc import Callable

_COUNTER_BITS = 12


class MessageIds:
    """Ids that never go back, even where the clock does. Not for use by several threads."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._next = 0

    def take(self, count: int) -> list[str]:
        """Fresh ids: each 48 bits of milliseconds, a 12-bit counter within them, 62 random bits."""
        first = max(int(self._clock() * 1000) << _COUNTER_BITS, self._next)
        self._next = first + count
        random = os.urandom(8 * count).hex()
        return [_id(f"{first + number:015x}", random[16 * number : 16 * number + 16]) for number in range(count)]


def first_id(seconds: float) -> str:
    """The beginning of every id made at this time: others of that time, and later ones, sort behind it."""
    milliseconds = f"{min(max(0, int(seconds * 1000)), (1 << 48) - 1):012x}"
    return f"{milliseconds[:8]}-{milliseconds[8:]}"


def _id(ordered: str, random: str) -> str:
    variant = "89ab"[int(random[0], 16) & 0b11]
    return f"{ordered[:8]}-{ordered[8:12]}-7{ordered[12:]}-{variant}{random[1:4]}-{random[4:]}"

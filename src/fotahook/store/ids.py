"""Message ids: UUIDv7 (RFC 9562), so that they sort by the time of acceptance."""

import os
from collections.abc import Callable

_COUNTER_BITS = 12
_DIGITS = 16
_RANDOM_BYTES = 2048
"""Read from the system at once: a system call for each message costs more than its id."""
_VARIANTS = dict(zip("0123456789abcdef", "89ab" * 4, strict=True))


class MessageIds:
    """Ids that never go back, even where the clock does. Not for use by several threads."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._next = 0
        self._random = ""

    def take(self, count: int) -> list[str]:
        """Fresh ids: each 48 bits of milliseconds, a 12-bit counter within them, 62 random bits."""
        first = max(int(self._clock() * 1000) << _COUNTER_BITS, self._next)
        self._next = first + count
        if len(self._random) < _DIGITS * count:
            self._random = os.urandom(max(8 * count, _RANDOM_BYTES)).hex()
        digits, self._random = self._random[: _DIGITS * count], self._random[_DIGITS * count :]
        return [
            _id(f"{first + number:015x}", digits[_DIGITS * number : _DIGITS * (number + 1)]) for number in range(count)
        ]


def first_id(seconds: float) -> str:
    """The beginning of every id made at this time: others of that time, and later ones, sort behind it."""
    milliseconds = f"{min(max(0, int(seconds * 1000)), (1 << 48) - 1):012x}"
    return f"{milliseconds[:8]}-{milliseconds[8:]}"


def _id(ordered: str, random: str) -> str:
    return f"{ordered[:8]}-{ordered[8:12]}-7{ordered[12:]}-{_VARIANTS[random[0]]}{random[1:4]}-{random[4:]}"

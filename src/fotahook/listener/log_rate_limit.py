"""Log lines that anybody can cause by sending something: they must not become a way to fill the disk."""

import threading
from collections.abc import Callable
from typing import Final

import msgspec

AT_ONCE: Final = 5
"""Lines of a kind that are told as they come, until a minute has passed in which nothing was left untold."""
PAUSE_SECONDS: Final = 60.0
"""Between two lines of a kind after those."""


class _Kind(msgspec.Struct):
    left: int
    told_at: float = float("-inf")
    untold: int = 0


class Repeats:
    """Counts what happens again and again, by its kind, and says when there is to be a line about it. For any thread.

    The kinds are the caller's own and few: each is remembered for good.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._kinds: dict[int, _Kind] = {}

    def due(self, kind: int, *, at_once: int = AT_ONCE) -> int | None:
        """Count one more. How many of its kind were not told since the last line, this one aside; None: nor is this."""
        with self._lock:
            known = self._kinds.setdefault(kind, _Kind(at_once))
            now = self._clock()
            # Either way, for the clock may be set back.
            rested = abs(now - known.told_at) >= PAUSE_SECONDS
            if rested and known.untold == 0:
                known.left = at_once
            if known.left == 0 and not rested:
                known.untold += 1
                return None
            untold, known.untold = known.untold, 0
            known.left = max(0, known.left - 1)
            known.told_at = now
            return untold

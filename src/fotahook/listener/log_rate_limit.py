"""A rate limit for log lines that anybody can cause by sending requests: they must not fill the disk."""

import threading
from collections.abc import Callable
from typing import Final

import msgspec

BURST: Final = 5
"""Lines of one kind that are logged without delay. The burst is allowed again after a minute without a dropped line."""
INTERVAL_SECONDS: Final = 60.0
"""Between two lines of one kind after the burst."""


class _Counter(msgspec.Struct):
    burst_left: int
    logged_at: float = float("-inf")
    dropped: int = 0


class LogRateLimit:
    """Counts events of each kind and decides which of them are logged. Thread-safe.

    It keeps a counter for every kind for good, so the kinds must be few.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._counters: dict[int, _Counter] = {}

    def hit(self, kind: int, *, burst: int = BURST) -> int | None:
        """Count an event. Returns None if it is not to be logged, else how many were dropped since the last line."""
        with self._lock:
            counter = self._counters.setdefault(kind, _Counter(burst))
            now = self._clock()
            # In either direction: the clock may be set back.
            interval_over = abs(now - counter.logged_at) >= INTERVAL_SECONDS
            if interval_over and counter.dropped == 0:
                counter.burst_left = burst
            if counter.burst_left == 0 and not interval_over:
                counter.dropped += 1
                return None
            dropped, counter.dropped = counter.dropped, 0
            counter.burst_left = max(0, counter.burst_left - 1)
            counter.logged_at = now
            return dropped

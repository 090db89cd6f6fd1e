"""A clock that tests can advance."""

import math
import time


class VirtualClock:
    """The time of day and a monotonic clock. Both run as usual, and `advance` moves both ahead."""

    def __init__(self) -> None:
        self._ahead = 0.0

    def wall(self) -> float:
        """Unix seconds."""
        return time.time() + self._ahead

    def monotonic(self) -> float:
        """Seconds of a clock that never goes back."""
        return time.monotonic() + self._ahead

    def advance(self, seconds: float) -> None:
        """Move ahead. Raises ValueError for a negative or infinite number of seconds."""
        if not 0 <= seconds < math.inf:
            raise ValueError(f"a clock advances by 0 or more seconds, not by {seconds!r}")
        self._ahead += seconds

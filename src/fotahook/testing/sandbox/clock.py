"""Time that runs as everywhere, and can be moved on."""

import math
import time
from collections.abc import Callable


class VirtualClock:
    """The time of day and a monotonic clock, both moved on together."""

    def __init__(self, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._ahead = 0.0

    def wall(self) -> float:
        """Unix seconds."""
        return self._wall() + self._ahead

    def monotonic(self) -> float:
        """Seconds of a clock that never goes back."""
        return self._monotonic() + self._ahead

    def advance(self, seconds: float) -> None:
        """Be so much later at once; ValueError for what is no span of time."""
        if not 0 <= seconds < math.inf:
            raise ValueError(f"a clock moves on by 0 or more seconds, not by {seconds!r}")
        self._ahead += seconds

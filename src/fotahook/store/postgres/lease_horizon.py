"""Where the search for due lanes begins, so that it does not walk over what other snapshots keep of earlier leases."""

from collections.abc import Callable
from typing import Final

MARGIN_SECONDS: Final = 2.0
"""Longer than transactions usually take."""
LONG_MARGIN_SECONDS: Final = 120.0
"""Longer than the server's timeouts let one take; every LONG_LOOK_SECONDS the search begins so far back."""
LONG_LOOK_SECONDS: Final = 10.0


class LeaseHorizon:
    """Remembers up to when a process has leased everything that was due.

    Every write to a lane sets the time at which it is due no earlier than the start of its transaction. So only
    transactions that were under way then can bring an earlier one.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._now = self._done_until = float("-inf")
        self._long_look_at = monotonic()

    def since(self) -> float:
        """The time at which the next search begins."""
        is_long = self._monotonic() - self._long_look_at >= LONG_LOOK_SECONDS
        return self._done_until - (LONG_MARGIN_SECONDS if is_long else MARGIN_SECONDS)

    def looked(self, now: float, done_until: float) -> None:
        """A search at `now`, by the server's clock, has leased all that was due before `done_until`."""
        if self._monotonic() - self._long_look_at >= LONG_LOOK_SECONDS:
            self._long_look_at = self._monotonic()
        # A clock that went back writes earlier times than before.
        self._done_until = done_until if now >= self._now else float("-inf")
        self._now = now

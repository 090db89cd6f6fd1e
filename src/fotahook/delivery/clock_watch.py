"""Notices when a store's clock jumps, so that nothing irreversible is decided on one reading of it."""

from collections.abc import Callable
from typing import Final

JUMP_SECONDS: Final = 30.0
"""Clocks may differ by so much between two readings: adjustments, and a process that was suspended for a moment."""
TRUST_SECONDS: Final = 600.0
"""How long a clock that jumped must run steadily before it is believed."""


class ClockWatch:
    """Compares a store's clock with the monotonic one. A clock is steady unless it jumped in the last ten minutes.

    One that may have been wrong from the start (not `believed`) becomes steady ten minutes later.
    """

    def __init__(self, monotonic: Callable[[], float], *, believed: bool) -> None:
        self._monotonic = monotonic
        self._offset: float | None = None
        self._jumped_at: float | None = None if believed else monotonic()
        self.went_back = False
        """Whether the clock jumped back before the last reading: what was written until then may be ahead of it."""

    def is_steady(self, reading: float) -> bool:
        """Whether to believe a reading of the store's clock that was taken just now."""
        now = self._monotonic()
        offset = reading - now
        if self._offset is not None and abs(offset - self._offset) > JUMP_SECONDS:
            self._jumped_at = now
        self.went_back = self._offset is not None and offset < self._offset - JUMP_SECONDS
        self._offset = offset
        if self._jumped_at is not None and now - self._jumped_at >= TRUST_SECONDS:
            self._jumped_at = None
        return self._jumped_at is None

"""Rate limit: a token bucket for each authenticated client, in the memory of this process."""

import math
from typing import Final

from .. import errors

SPAN: Final = 60.0
"""A bucket holds the requests of this many seconds."""
_MAX_CLIENTS: Final = 4096


class RateLimiter:
    """Limits each client to so many requests per minute, all of which may come at once; 0 for no limit."""

    def __init__(self, per_minute: int) -> None:
        self._step = SPAN / per_minute if per_minute else 0.0
        self._used_until: dict[str, float] = {}
        """By client: the time until which its requests would last if they came evenly."""

    def count(self, client: str, now: float) -> None:
        """Count one request. Raises an ApiError if the client's bucket is empty."""
        until = self._used_until.get(client, now)
        if not now <= until <= now + SPAN:
            # The bucket is full again, or the clock was set back.
            until = now
        until += self._step
        if until > now + SPAN:
            raise errors.TOO_MANY_REQUESTS(seconds=math.ceil(until - now - SPAN))
        if len(self._used_until) >= _MAX_CLIENTS:
            self._used_until.clear()
        self._used_until[client] = until

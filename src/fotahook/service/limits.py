"""Login lockout and rate limit, in the memory of this process: a restart forgets them."""

import math
from collections import OrderedDict
from typing import Final, NamedTuple

from ..contract.keys import fingerprint
from . import errors

FAILURES: Final = 5
FIRST_SECONDS: Final = 60.0
"""How long the fifth failure locks; each further failure locks twice as long as the one before."""
LONGEST_SECONDS: Final = 3600.0
FORGET_SECONDS: Final = 24 * 3600.0
"""The count starts again after so long without a failure."""
_MAX_ENTRIES: Final = 10_000

SPAN: Final = 60.0
"""A bucket holds the requests of this many seconds."""
_MAX_CLIENTS: Final = 4096


class _Failures(NamedTuple):
    times: int
    at: float
    locked_until: float


class Lockout:
    """After five failures in a row, locks a user for an address, for a time that doubles.

    Unknown users are locked like any other, so that names cannot be probed.
    """

    def __init__(self) -> None:
        self._failures: OrderedDict[bytes, _Failures] = OrderedDict()

    def check(self, username: str, address: str, now: float) -> None:
        """Raise an ApiError while this user is locked for this address."""
        known = self._failures.get(_key(username, address))
        if known is not None and known.locked_until > now:
            # Never longer than the longest lock, even if the clock was set back.
            raise errors.LOGIN_LOCKED(seconds=math.ceil(min(known.locked_until - now, LONGEST_SECONDS)))

    def failed(self, username: str, address: str, now: float) -> None:
        """Count a failure."""
        key = _key(username, address)
        before = self._failures.pop(key, None)
        count = 1 if before is None or before.at + FORGET_SECONDS <= now else before.times + 1
        # The exponent is capped because the lock is: 2**32 is beyond any bound.
        seconds = min(FIRST_SECONDS * 2.0 ** min(count - FAILURES, 32), LONGEST_SECONDS) if count >= FAILURES else 0.0
        self._failures[key] = _Failures(count, now, now + seconds)
        if len(self._failures) > _MAX_ENTRIES:
            self._failures.popitem(last=False)

    def succeeded(self, username: str, address: str) -> None:
        """Forget the failures."""
        self._failures.pop(_key(username, address), None)


class RateLimiter:
    """Limits each client to so many requests in a span, all of which may come at once; 0 for no limit."""

    def __init__(self, limit: int, *, span: float = SPAN) -> None:
        self._span = span
        self._step = span / limit if limit else 0.0
        self._used_until: dict[str, float] = {}
        """By client: the time until which its requests would last if they came evenly."""

    def count(self, client: str, now: float) -> None:
        """Count one request. Raises an ApiError if the client's bucket is empty."""
        until = self._used_until.get(client, now)
        if not now <= until <= now + self._span:
            # The bucket is full again, or the clock was set back.
            until = now
        until += self._step
        if until > now + self._span:
            raise errors.TOO_MANY_REQUESTS(seconds=math.ceil(until - now - self._span))
        if len(self._used_until) >= _MAX_CLIENTS:
            self._used_until.clear()
        self._used_until[client] = until


def _key(username: str, address: str) -> bytes:
    # A hash, so that a long name takes no more memory than a short one.
    return fingerprint(f"{address}\0{username}")

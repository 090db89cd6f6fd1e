"""Logins that were refused, counted for each user and address: five in a row lock for a time that grows.

Kept in the memory of this process: a restart forgets it, and each process counts for itself.
"""

import math
from collections import OrderedDict
from typing import Final, NamedTuple

from ...contract.keys import fingerprint
from .. import errors

FAILURES: Final = 5
FIRST_SECONDS: Final = 60.0
"""How long the fifth failure locks; each further one twice as long as the one before."""
LONGEST_SECONDS: Final = 3600.0
FORGET_SECONDS: Final = 24 * 3600.0
"""After so long without a failure the count begins anew."""
_KNOWN_LIMIT: Final = 10_000


class _Failed(NamedTuple):
    times: int
    at: float
    until: float


class Lockout:
    """Who may try to log in now. A name that no user has is locked like any other, so that nothing is told by it."""

    def __init__(self) -> None:
        self._failed: OrderedDict[bytes, _Failed] = OrderedDict()

    def check(self, username: str, address: str, now: float) -> None:
        """A Problem while this user is locked for this address."""
        failed = self._failed.get(_key(username, address))
        if failed is not None and failed.until > now:
            # A clock that was set back must not lock for longer than it ever would.
            raise errors.login_locked(math.ceil(min(failed.until - now, LONGEST_SECONDS)))

    def failed(self, username: str, address: str, now: float) -> None:
        """Count one more failure."""
        key = _key(username, address)
        before = self._failed.pop(key, None)
        times = 1 if before is None or before.at + FORGET_SECONDS <= now else before.times + 1
        # 2**32 is beyond any bound.
        seconds = min(FIRST_SECONDS * 2.0 ** min(times - FAILURES, 32), LONGEST_SECONDS) if times >= FAILURES else 0.0
        self._failed[key] = _Failed(times, now, now + seconds)
        if len(self._failed) > _KNOWN_LIMIT:
            self._failed.popitem(last=False)

    def succeeded(self, username: str, address: str) -> None:
        """Forget what was counted."""
        self._failed.pop(_key(username, address), None)


def _key(username: str, address: str) -> bytes:
    # Whatever was sent as a name takes no more room than this.
    return fingerprint(f"{address}\0{username}")

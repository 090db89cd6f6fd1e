"""Login lockout, rate limit and turns of the loop, in the memory of this process: a restart forgets them."""

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, NamedTuple

from ..contract.addresses import address_key
from ..contract.keys import fingerprint
from ..store.turns import Turns
from . import errors

FAILURES: Final = 5
FIRST_SECONDS: Final = 60.0
"""How long the fifth failure locks; each further failure locks twice as long as the one before."""
LONGEST_SECONDS: Final = 3600.0
FORGET_SECONDS: Final = 24 * 3600.0
"""The count starts again after so long without a failure."""
USER_FAILURES: Final = 100
USER_SPAN: Final = 3600.0
"""So many failures of one user in this time, from everywhere together."""
_MAX_ENTRIES: Final = 10_000

SPAN: Final = 60.0
"""A bucket holds the requests of this many seconds."""
_MAX_CLIENTS: Final = 4096

LONG_SECONDS: Final = 0.002
"""Of a turn of the loop that is followed by a pause as long."""


class _Failures(NamedTuple):
    times: int
    at: float
    locked_until: float


class Lockout:
    """After five failures in a row, locks a user for a client at an address, for a time that doubles.

    Others are not locked by that. But of all failures of one user only so many pass in an hour; then the user can log
    in only from where that succeeded before. Unknown users are locked like any other, so that names cannot be probed.
    """

    def __init__(self) -> None:
        self._failures: OrderedDict[bytes, _Failures] = OrderedDict()
        self._succeeded: OrderedDict[bytes, None] = OrderedDict()
        self._by_user = RateLimiter(USER_FAILURES, span=USER_SPAN)

    def check(self, username: str, client: str, address: str, now: float) -> None:
        """Raise an ApiError while this user is locked for this client and address."""
        key = _key(username, client, address)
        known = self._failures.get(key)
        seconds = known.locked_until - now if known is not None else 0.0
        if key not in self._succeeded:
            seconds = max(seconds, self._by_user.wait(_user_key(username), now))
        if seconds > 0:
            # Never longer than the longest lock, even if the clock was set back.
            raise errors.LOGIN_LOCKED(seconds=math.ceil(min(seconds, LONGEST_SECONDS)))

    def failed(self, username: str, client: str, address: str, now: float) -> None:
        """Count a failure."""
        key = _key(username, client, address)
        if not self._by_user.wait(_user_key(username), now):
            self._by_user.count(_user_key(username), now)
        before = self._failures.pop(key, None)
        count = 1 if before is None or before.at + FORGET_SECONDS <= now else before.times + 1
        # The exponent is capped because the lock is: 2**32 is beyond any bound.
        seconds = min(FIRST_SECONDS * 2.0 ** min(count - FAILURES, 32), LONGEST_SECONDS) if count >= FAILURES else 0.0
        self._failures[key] = _Failures(count, now, now + seconds)
        if len(self._failures) > _MAX_ENTRIES:
            self._failures.popitem(last=False)

    def succeeded(self, username: str, client: str, address: str) -> None:
        """Forget the failures, and remember the place."""
        key = _key(username, client, address)
        self._failures.pop(key, None)
        self._succeeded[key] = None
        self._succeeded.move_to_end(key)
        if len(self._succeeded) > _MAX_ENTRIES:
            self._succeeded.popitem(last=False)


class RateLimiter:
    """Limits each client to so many requests in a span, all of which may come at once; 0 for no limit."""

    def __init__(self, limit: int, *, span: float = SPAN) -> None:
        self._span, self._limit = span, limit
        self._used_until: dict[str, float] = {}
        """By client: the time until which its requests would last if they came evenly."""

    def wait(self, client: str, now: float, limit: int | None = None) -> float:
        """Seconds until the client may make another request; `limit` is its own, if it has one."""
        return max(0.0, self._next(client, now, limit) - now - self._span)

    def count(self, client: str, now: float, limit: int | None = None) -> None:
        """Count one request. Raises an ApiError if the client's bucket is empty."""
        until = self._next(client, now, limit)
        if (seconds := until - now - self._span) > 0:
            raise errors.TOO_MANY_REQUESTS(seconds=math.ceil(seconds))
        self._used_until.pop(client, None)
        if len(self._used_until) >= _MAX_CLIENTS:
            # The one that was counted longest ago: a crowd of others must not empty everybody's bucket.
            del self._used_until[next(iter(self._used_until))]
        self._used_until[client] = until

    def _next(self, client: str, now: float, limit: int | None) -> float:
        limit = self._limit if limit is None else limit
        until = self._used_until.get(client, now)
        # Else the bucket is full again, or the clock was set back.
        return (until if now <= until <= now + self._span else now) + (self._span / limit if limit else 0.0)


class LoopTurns:
    """Lets one of the requests that parse much go on in each turn of the loop, so that other requests wait little.

    Clients take turns. After a long one the loop belongs to others for as long.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._waiting: Turns[asyncio.Future[None]] = Turns(0)
        self._running = False
        self._began = 0.0

    async def wait(self, client: str) -> None:
        """Return when it is this request's turn, which lasts until it awaits something."""
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        self._waiting.put(turn, client)
        if not self._running:
            self._running = True
            self._next(loop)
        await turn

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        self._running = bool(self._waiting)
        for turn in self._waiting.take():
            # The request goes on between these two calls.
            loop.call_soon(self._begin)
            if not turn.done():
                turn.set_result(None)
            loop.call_soon(self._end, loop)

    def _begin(self) -> None:
        self._began = self._monotonic()

    def _end(self, loop: asyncio.AbstractEventLoop) -> None:
        took = self._monotonic() - self._began
        loop.call_later(took if took > LONG_SECONDS else 0.0, self._next, loop)


def _key(username: str, client: str, address: str) -> bytes:
    # A hash, so that a long name takes no more memory than a short one.
    return fingerprint(f"{client}\0{address_key(address)}\0{username}")


def _user_key(username: str) -> str:
    return fingerprint(username).hex()

"""What one client, address or account may take, so that others get their share: login lockout, rate limit, quotas, and
the count of refused logins. In the memory of this process: a restart forgets them."""

import asyncio
import logging
import math
import time
from collections import Counter, OrderedDict
from dataclasses import dataclass, field, fields, replace
from typing import Final, Literal, TypeVar

import msgspec

from ..contract.addresses import address_key
from ..contract.keys import fingerprint
from ..store.base import Clock, Store
from ..store.records import AuditEntry, Limits, StoreError
from . import errors

logger = logging.getLogger(__name__)

FAILURES: Final = 5
FIRST_SECONDS: Final = 60.0
"""How long the fifth failure locks; each further failure locks twice as long as the one before."""
LONGEST_SECONDS: Final = 3600.0
FORGET_SECONDS: Final = 24 * 3600.0
USER_FAILURES: Final = 100
"""So many failures of one user in `USER_SPAN`, from everywhere together."""
USER_SPAN: Final = 3600.0
ENTRY_SECONDS: Final = 60.0
WRITE_SECONDS: Final = 1.0
MAX_ADDRESSES: Final = 100
"""Addresses with an entry of their own; further ones share one."""
COUNT_STEP: Final = 10_000
RECOUNT_SECONDS: Final = 1.0
READ_SECONDS: Final = 1.0
COUNT_BURST: Final = 1.0
"""Seconds of counting that may come at once, such as after a start."""
_DUTY: Final = 20
_MAX_ENTRIES: Final = 10_000
MAX_ACCOUNTS: Final = 200_000
"""Accounts whose backlog is remembered, in about 300 bytes each: those that published last."""

K = TypeVar("K")
V = TypeVar("V")


def put_newest(entries: dict[K, V], key: K, value: V, limit: int | None = None) -> None:
    """Enter a value as the newest; where they are many, the oldest makes room."""
    entries.pop(key, None)
    if len(entries) >= (limit or _MAX_ENTRIES):
        del entries[next(iter(entries))]
    entries[key] = value


class Lockout:
    """After five failures in a row, locks a user for a client at an address, for a time that doubles. Others are not
    locked by that. But of all failures of one user only so many pass in an hour; then the user can log in only from
    where that succeeded before. Unknown users are locked like any other, so that names cannot be probed."""

    def __init__(self) -> None:
        self._failures: dict[str, tuple[int, float]] = {}
        self._succeeded: dict[str, None] = {}
        self._by_user = RateLimiter(USER_FAILURES, span=USER_SPAN)

    def check(self, username: str, client: str, address: str, now: float) -> None:
        key, user = _keys(username, client, address)
        times, at = self._failures.get(key, (0, now))
        # The exponent is capped because the lock is: 2**32 is beyond any bound.
        locked = min(FIRST_SECONDS * 2.0 ** min(times - FAILURES, 32), LONGEST_SECONDS) if times >= FAILURES else 0.0
        # What seems to have failed later than now failed before the clock was set back: nobody can say when.
        seconds = at + locked - now if at <= now else 0.0
        if key not in self._succeeded:
            seconds = max(seconds, self._by_user.wait(user, now))
        if seconds > 0:
            raise errors.LOGIN_LOCKED(seconds=math.ceil(seconds))

    def failed(self, username: str, client: str, address: str, now: float) -> None:
        key, user = _keys(username, client, address)
        if not self._by_user.wait(user, now):
            self._by_user.count(user, now)
        times, at = self._failures.get(key, (0, now))
        put_newest(self._failures, key, (times + 1 if at <= now < at + FORGET_SECONDS else 1, now))

    def succeeded(self, username: str, client: str, address: str) -> None:
        key, _ = _keys(username, client, address)
        self._failures.pop(key, None)
        put_newest(self._succeeded, key, None)


def _keys(username: str, client: str, address: str) -> tuple[str, str]:
    """Of the place and of the user: hashes, so that a long name takes no more memory than a short one."""
    place = fingerprint(f"{client}\0{address_key(address)}\0{username}")
    return place.hex(), fingerprint(username).hex()


class RateLimiter:
    """Limits each client to so many requests in a span, all of which may come at once; 0 for no limit."""

    def __init__(self, limit: int, *, span: float = 60.0) -> None:
        self._span, self._limit = span, limit
        self._used_until: dict[str, float] = {}

    def wait(self, client: str, now: float, limit: int | None = None) -> float:
        """Seconds until the client may make another request; `limit` is its own, if it has one."""
        return max(0.0, self._next(client, now, limit) - now - self._span)

    def count(self, client: str, now: float, limit: int | None = None) -> None:
        """Count one request. Raises an ApiError if the client's bucket is empty."""
        until = self._next(client, now, limit)
        if (seconds := until - now - self._span) > 0:
            raise errors.TOO_MANY_REQUESTS(seconds=math.ceil(seconds))
        # The one that was counted longest ago makes room: a crowd of others must not empty everybody's bucket.
        put_newest(self._used_until, client, until)

    def _next(self, client: str, now: float, limit: int | None) -> float:
        limit = self._limit if limit is None else limit
        until = self._used_until.get(client, now)
        # Else the bucket is full again, or the clock was set back.
        return (until if now <= until <= now + self._span else now) + (self._span / limit if limit else 0.0)


@dataclass(eq=False)
class _Refused:
    entry: AuditEntry
    began: float
    counts: Counter[str] = field(default_factory=Counter)
    is_written: bool = False


class RefusedLogins:
    """Counts refused logins by address, in one entry a minute, which a task of its own writes. For one event loop. What
    a stranger sent as a name is not written down: it may be a secret."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store, self._clock = store, clock
        self._refused: dict[str, _Refused] = {}
        self._writing: asyncio.Task[None] | None = None

    def count(
        self, why: Literal["wrong", "locked", "network"], address: str, actor: str = "", subject: str = ""
    ) -> None:
        """Count a refused login. `actor` and `subject`: the client and the user or client, as far as they are known."""
        now, key = self._clock(), address_key(address)
        known = self._refused.items()
        self._refused = {name: one for name, one in known if not one.is_written or 0 <= now - one.began < ENTRY_SECONDS}
        if key not in self._refused and len(self._refused) >= MAX_ADDRESSES:
            key = address = "others"
        entry = AuditEntry(actor=actor, address=address, action="login.refused", subject=subject)
        refused = self._refused.setdefault(key, _Refused(entry, now))
        refused.counts[why] += 1
        refused.is_written = False
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write(), name="refused logins")

    async def _write(self) -> None:
        while writing := [one for one in self._refused.values() if not one.is_written]:
            for one in writing:
                detail = " ".join(f"{why}={count}" for why, count in one.counts.items())
                one.entry, one.is_written = msgspec.structs.replace(one.entry, detail=detail), True
            try:
                numbers = await self._store.write_audit([one.entry for one in writing])
                for one, number in zip(writing, numbers, strict=True):
                    one.entry = msgspec.structs.replace(one.entry, number=number)
            except StoreError as error:
                logger.warning("refused logins are not in the audit log yet: %s", error)
                for one in writing:
                    one.is_written = False
            await asyncio.sleep(WRITE_SECONDS)


@dataclass(frozen=True, kw_only=True)
class AccountQuotas:
    """The quotas of an account that has none of its own; 0 for no limit."""

    pending_messages: int = 1_000_000
    pending_bytes: int = 4 * 1024**3
    publishes_per_second: int = 20_000
    """On average over a minute, by all clients together."""
    changes_per_hour: int = 1_000
    """Changes of the callback, the limits, the signing keys, and of whether the account is paused."""

    def of(self, limits: Limits) -> "AccountQuotas":
        own = {name: getattr(limits, name) for name in NAMES}
        return replace(self, **{name: value for name, value in own.items() if value is not None})

    def exceeds(self, other: "AccountQuotas") -> bool:
        return any((getattr(self, name) or math.inf) > (getattr(other, name) or math.inf) for name in NAMES)


NAMES: Final = tuple(field.name for field in fields(AccountQuotas))


@dataclass(eq=False, slots=True)
class _Usage:
    messages: int = 0
    bytes: int = 0
    count_again_at: float = -math.inf

    def reached(self, quotas: AccountQuotas, size: int) -> str | None:
        if 0 < quotas.pending_messages <= self.messages:
            return f"{quotas.pending_messages} undelivered messages"
        if 0 < quotas.pending_bytes < self.bytes + size:
            return f"{quotas.pending_bytes} bytes of undelivered messages"
        return None


class Quotas:
    """Counts what accounts take. Raises an ApiError where it is too much. What waits of an account is counted in its
    store, in short looks, and grows here with each message until it is counted again: where a quota seems to be
    reached, but all counts together take at most a twentieth of the time. Until its first count an account may publish
    as much as its quota; whether more would be too much is not known then, so it is asked to come again."""

    def __init__(self, quotas: AccountQuotas, store: Store, clock: Clock, monotonic: Clock = time.monotonic) -> None:
        self._quotas, self._store, self._clock, self._monotonic = quotas, store, clock, monotonic
        self._publishes = RateLimiter(60 * quotas.publishes_per_second)
        self._changes = RateLimiter(quotas.changes_per_hour, span=3600.0)
        # Unlike a dict, it finds its oldest entry at once, however many were removed before.
        self._usages: OrderedDict[str, _Usage] = OrderedDict()
        self._counting, self._counted, self._count_at = asyncio.Lock(), _Usage(), -math.inf
        self._own: dict[str, AccountQuotas] = {}
        self._read_again_at = -math.inf

    async def read(self, *, again: bool = False) -> None:
        """Read which accounts have quotas of their own, unless that was done in the last second."""
        if again or self._monotonic() >= self._read_again_at:
            self._read_again_at = self._monotonic() + READ_SECONDS
            self._own = {account: self._quotas.of(limits) for account, limits in (await self._store.quotas()).items()}

    def change(self, account: str) -> None:
        self._changes.count(account, self._clock(), self._own.get(account, self._quotas).changes_per_hour)

    async def publish(self, account: str, size: int) -> None:
        """Count a message of so many bytes, by the quotas that were read for the request."""
        quotas = self._own.get(account, self._quotas)
        self._publishes.count(account, self._clock(), 60 * quotas.publishes_per_second)
        usage = self._usages.get(account) or _Usage()
        put_newest(self._usages, account, usage, MAX_ACCOUNTS)
        # An account that is new here waits for its own count alone, so that it takes no more than its quota meanwhile.
        is_new = usage.count_again_at == -math.inf and (usage is self._counted or not self._counting.locked())
        if is_new or usage.reached(quotas, size):
            async with self._counting:
                wait, began = 0.0, self._monotonic()
                if began >= usage.count_again_at and (wait := self._count_at - began) <= 0:
                    self._counted, found = usage, COUNT_STEP
                    messages = waiting = after = 0
                    try:
                        while found >= COUNT_STEP:
                            found, more, after = await self._store.pending_usage(account, after=after, limit=COUNT_STEP)
                            messages, waiting = messages + found, waiting + more
                    finally:
                        ended = self._monotonic()
                        self._count_at = max(self._count_at, ended - _DUTY * COUNT_BURST) + _DUTY * (ended - began)
                    usage.messages, usage.bytes = messages, waiting
                    usage.count_again_at = ended + max(RECOUNT_SECONDS, _DUTY * (ended - began))
            if (reached := usage.reached(quotas, size)) is not None:
                raise errors.QUOTA_REACHED(reached) if wait <= 0 else errors.NOT_COUNTED(seconds=math.ceil(wait))
        usage.messages += 1
        usage.bytes += size

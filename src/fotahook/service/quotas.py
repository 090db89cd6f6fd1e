"""What one account may take of the service, so that it fills nobody else's store. In the memory of this process.

What waits of an account is counted in its store, in short looks, and grows here with each message until it is counted
again: at once where a quota seems to be reached, but never for more than a twentieth of the time.
"""

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Final

from ..store.base import Clock, Store
from ..store.records import Limits
from . import errors
from .limits import RateLimiter

COUNT_STEP: Final = 10_000
"""Deliveries that one look counts."""
RECOUNT_SECONDS: Final = 1.0
READ_SECONDS: Final = 1.0
"""Accounts' own quotas are read again so often."""
_DUTY: Final = 20
_MAX_ACCOUNTS: Final = 10_000


@dataclass(frozen=True, kw_only=True)
class AccountQuotas:
    """The quotas of an account that has none of its own; 0 for no limit."""

    pending_messages: int = 1_000_000
    """Undelivered messages."""
    pending_bytes: int = 4 * 1024**3
    """Of undelivered messages."""
    publishes_per_second: int = 20_000
    """On average over a minute, by all clients together."""
    changes_per_hour: int = 1_000
    """Changes of the callback, the limits, the signing keys, and of whether the account is paused."""

    def of(self, limits: Limits) -> "AccountQuotas":
        """The quotas of an account, for which an operator set these."""
        own = {name: getattr(limits, name) for name in NAMES}
        return replace(self, **{name: value for name, value in own.items() if value is not None})

    def exceeds(self, other: "AccountQuotas") -> bool:
        """Whether any of these allows more than another one's."""
        return any((getattr(self, name) or math.inf) > (getattr(other, name) or math.inf) for name in NAMES)


NAMES: Final = tuple(field.name for field in fields(AccountQuotas))
QUOTAS: Final = AccountQuotas()


@dataclass(eq=False)
class _Usage:
    messages: int = 0
    bytes: int = 0
    count_again_at: float = -math.inf
    counting: asyncio.Lock = field(default_factory=asyncio.Lock)


class Quotas:
    """Counts what accounts take. Raises an ApiError where it is too much."""

    def __init__(
        self, quotas: AccountQuotas, store: Store, clock: Clock, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._quotas, self._store, self._clock, self._monotonic = quotas, store, clock, monotonic
        self._publishes = RateLimiter(60 * quotas.publishes_per_second)
        self._changes = RateLimiter(quotas.changes_per_hour, span=3600.0)
        self._usages: OrderedDict[str, _Usage] = OrderedDict()
        self._own: dict[str, AccountQuotas] = {}
        self._read_again_at = -math.inf

    async def read(self) -> None:
        """Read which accounts have quotas of their own, unless that was done in the last second."""
        if self._monotonic() >= self._read_again_at:
            self._read_again_at = self._monotonic() + READ_SECONDS
            self._own = {account: self._quotas.of(limits) for account, limits in (await self._store.quotas()).items()}

    def read_again(self) -> None:
        """They were changed just now."""
        self._read_again_at = -math.inf

    def change(self, account: str) -> None:
        """Count a change of an account."""
        self._changes.count(account, self._clock(), self._own.get(account, self._quotas).changes_per_hour)

    async def publish(self, account: str, size: int) -> None:
        """Count a message of so many bytes."""
        await self.read()
        quotas = self._own.get(account, self._quotas)
        self._publishes.count(account, self._clock(), 60 * quotas.publishes_per_second)
        usage = self._usages.get(account)
        if usage is None:
            usage = self._usages[account] = _Usage()
            if len(self._usages) > _MAX_ACCOUNTS:
                self._usages.popitem(last=False)
        if usage.count_again_at == -math.inf:
            await self._count(account, usage)
        if _reached(quotas, usage, size):
            await self._count(account, usage)
            if (reached := _reached(quotas, usage, size)) is not None:
                raise errors.QUOTA_REACHED(reached)
        usage.messages += 1
        usage.bytes += size

    async def _count(self, account: str, usage: _Usage) -> None:
        async with usage.counting:
            began = self._monotonic()
            if began < usage.count_again_at:
                return
            messages = size = after = 0
            while True:
                part = await self._store.pending_usage(account, after=after, limit=COUNT_STEP)
                messages, size, after = messages + part.messages, size + part.bytes, part.last
                if part.messages < COUNT_STEP:
                    break
            usage.messages, usage.bytes = messages, size
            ended = self._monotonic()
            usage.count_again_at = ended + max(RECOUNT_SECONDS, _DUTY * (ended - began))


def _reached(quotas: AccountQuotas, usage: _Usage, size: int) -> str | None:
    if 0 < quotas.pending_messages <= usage.messages:
        return f"{quotas.pending_messages} undelivered messages"
    if 0 < quotas.pending_bytes < usage.bytes + size:
        return f"{quotas.pending_bytes} bytes of undelivered messages"
    return None

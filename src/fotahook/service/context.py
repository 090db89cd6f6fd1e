"""What every call works with: the store, the settings, a cache of tokens, memory for bodies, rate limits, locks."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from ..contract.addresses import Network
from ..contract.budget import Budget
from ..contract.messages import MESSAGE_LIMIT
from ..contract.operator import AccountState, Checks
from ..store.base import Clock, Store, StoreHealth
from ..store.batcher import LoopTurns
from ..store.records import CALLBACK_CONSUMER, Credential
from .credentials import COST, PasswordCost, Passwords
from .event_feed import Cursors, Feed
from .limits import AccountQuotas, Lockout, Quotas, RateLimiter, RefusedLogins, put_newest
from .metrics import Metrics, Overviews

REQUESTS_PER_MINUTE: Final = 300_000
LOGINS_PER_MINUTE: Final = 300
"""Of one client; a password takes the service about 30 ms."""
LOGIN_PLACES: Final = 64
"""Logins that wait for their turn; one client gets half of them at most."""
FAILURES_PER_MINUTE: Final = 6_000
_CACHE_SECONDS: Final = 1.0

Check = Callable[[], bool]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of one service. Limits are in bytes, durations in seconds."""

    secret_key: bytes = field(repr=False)
    """Derives every token and signing key; see contract.keys."""
    allow_http: bool = False
    allowed_networks: tuple[Network, ...] = ()
    """Networks in which a callback's address may lie although they are not globally reachable."""
    message_limit: int = MESSAGE_LIMIT
    body_limit: int = 16 * 1024
    """Of every other request's body; the largest sensible one holds a URL of 2,048 characters."""
    batch_limit: int = 16 * 1024 * 1024
    batch_lines: int = 10_000
    body_memory: int = 128 * 1024 * 1024
    """Of all bodies that are read at the same time; one client gets half of it at most."""
    streams: int = 256
    """Event streams that one client may have open at once."""
    requests_per_minute: int = REQUESTS_PER_MINUTE
    time_to_live: float = 7 * 24 * 3600.0
    """How long delivery is tried before a message expires; here it only shows when that is."""
    quotas: AccountQuotas = field(default_factory=AccountQuotas)
    in_flight: int | None = None
    """Deliveries to one account that the dispatcher has under way at once; here it is only shown."""
    password_cost: PasswordCost = COST
    challenge_receiver: Callable[[str, str, Sequence[str]], Awaitable[str | None]] | None = None
    """Says why a URL did not answer the challenge for an account, whose signing keys it gets; None asks no URL."""
    check_receiver: Callable[[str, str], Awaitable[Checks]] | None = None
    """Checks a URL, with test messages for an account, as fotahook doctor does; None where nothing is sent."""
    open_metrics: bool = False
    """Whether /metrics needs no token: where it has an address of its own."""
    consumer: str = CALLBACK_CONSUMER
    """Which lane an account is shown by: that to its callback, or in a listener's inbox that to the handlers."""
    console: Literal["service", "listener"] = "service"
    """What the console shows: a service, or a listener's inbox."""
    clock: Clock = time.time


class TokenCache:
    """Caches tokens and sessions for a second, so that most calls need no read of credentials. A token that ends in
    this process ends at once; one that another process ends, within a second."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store, self._clock = store, clock
        self._cached: dict[tuple[str, str], tuple[float, Credential]] = {}
        self._invalidations = 0

    async def find(self, kind: str, credential_id: str) -> Credential | None:
        """The credential of this kind and id, unless it has expired."""
        now = self._clock()
        read_at, cached = self._cached.get((kind, credential_id), (0.0, None))
        if cached is not None and read_at <= now < read_at + _CACHE_SECONDS:
            return cached if cached.expires_at is None or cached.expires_at > now else None
        before = self._invalidations
        found = await self._store.credential(kind, credential_id)
        # What was read before an invalidation may be outdated.
        if found is not None and before == self._invalidations:
            put_newest(self._cached, (kind, credential_id), (now, found))
        return found

    def knows(self, kind: str, credential_id: str) -> bool:
        return (kind, credential_id) in self._cached

    def invalidate(self, kind: str, credential_id: str) -> None:
        self._invalidations += 1
        self._cached.pop((kind, credential_id), None)


class Service:
    """The parts of one service. `closing` ends the event streams, which would not end by themselves."""

    def __init__(
        self, store: Store, settings: Settings, metrics: Metrics, checks: Mapping[str, Check], closing: asyncio.Event
    ) -> None:
        self.store, self.settings, self.metrics, self.checks, self.closing = store, settings, metrics, checks, closing
        self.token_cache = TokenCache(store, settings.clock)
        self.store_health = StoreHealth(store)
        self.bodies, self.logins = Budget(settings.body_memory), Budget(LOGIN_PLACES)
        self.loop_turns, self.lockout = LoopTurns(), Lockout()
        self.passwords = Passwords(settings.password_cost)
        self.rate_limiter = RateLimiter(settings.requests_per_minute)
        self.login_limiter = RateLimiter(LOGINS_PER_MINUTE)
        self.stranger_limiter = RateLimiter(FAILURES_PER_MINUTE)
        self.cursors = Cursors(settings.secret_key)
        self.event_feed = Feed(store, self.cursors)
        self.streams = Counter[str]()
        self.quotas = Quotas(settings.quotas, store, settings.clock)
        self.refused_logins = RefusedLogins(store, settings.clock)
        self.overviews = Overviews(store, settings.clock, settings.consumer)
        self.credential_lock = asyncio.Lock()
        """Held while credentials are read and written back, so that no call overwrites another's change."""
        self.password_lock = asyncio.Lock()
        """Held while a password is verified, so that parallel attempts cannot outrun the lockout."""
        self.checking_clients = set[str]()

    def accounts(self, **wanted: Any) -> Awaitable[list[AccountState]]:
        return self.store.accounts(consumer=self.settings.consumer, **wanted)

    def now(self) -> float:
        """Unix time. Always a float: a token is derived from how the number is written."""
        return float(self.settings.clock())

"""What every call works with: the store, the settings, the tokens that were checked a moment ago, room for batches."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from ..store.base import Store
from ..store.health import StoreHealth
from ..store.records import Credential
from . import errors
from .auth.lockout import Lockout
from .auth.passwords import Passwords
from .auth.rate_limit import Rates
from .event_feed import Feed
from .metrics import Metrics
from .settings import Settings

_MEMORY_SECONDS: Final = 1.0
_MEMORY_LIMIT: Final = 4096


Check = Callable[[], bool]


class Memory:
    """Tokens as the store knew them up to a second ago, so that most calls read only what they came for.

    A token that ends in this process is forgotten at once, one that another process ends within a second.
    """

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._clock = settings.clock
        self._known: dict[tuple[str, str], tuple[float, Credential]] = {}
        self._forgotten = 0

    async def find(self, kind: str, credential_id: str) -> Credential | None:
        """The live credential of this kind and id."""
        now = self._clock()
        read_at, known = self._known.get((kind, credential_id), (0.0, None))
        if known is not None and read_at <= now < read_at + _MEMORY_SECONDS:
            return known if known.expires_at is None or known.expires_at > now else None
        forgotten = self._forgotten
        found = await self._store.credential(kind, credential_id)
        # If something was forgotten meanwhile, this may be the very thing as it was before.
        if found is not None and forgotten == self._forgotten:
            self._keep(found, now)
        return found

    def forget(self, kind: str, credential_id: str) -> None:
        """Read this credential from the store again."""
        self._forgotten += 1
        self._known.pop((kind, credential_id), None)

    def _keep(self, credential: Credential, now: float) -> None:
        if len(self._known) >= _MEMORY_LIMIT:
            self._known.clear()
        self._known[credential.kind, credential.id] = (now, credential)


class Room:
    """The memory that batches in hand may take all together. Beyond it one is refused, so that none takes them all."""

    def __init__(self, size: int) -> None:
        self._left = size

    @contextmanager
    def hold(self) -> Iterator["Hold"]:
        """A share of the room, given back at the end of the block."""
        hold = Hold(self)
        try:
            yield hold
        finally:
            self._left += hold.size

    def take(self, size: int) -> None:
        """Make the room smaller; a Problem if it has not as much left."""
        if size > self._left:
            raise errors.no_room()
        self._left -= size


class Hold:
    """One batch's share of the room."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self.size = 0

    def take(self, size: int) -> None:
        """Hold so many bytes more."""
        self._room.take(size)
        self.size += size


@dataclass(frozen=True, eq=False)
class Service:
    """The parts of one service."""

    store: Store
    settings: Settings
    memory: Memory
    pulse: StoreHealth
    batch_room: Room
    passwords: Passwords
    rates: Rates
    parts: Mapping[str, Check]
    """What else must work for the service to be ready, by name: whether it does."""
    feed: Feed
    metrics: Metrics
    closing: asyncio.Event
    """Set when the process is about to end: what would never end by itself does then."""
    streams: Counter[str] = field(default_factory=Counter)
    """How many streams of events each client has open."""
    changing: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while credentials are read and written back, so that no call undoes another's change."""
    proving: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while a password is looked at, so that many at once are not tried before any of them counts."""
    lockout: Lockout = field(default_factory=Lockout)

    def now(self) -> float:
        """Unix seconds. Always a float: a token is derived from how the number is written."""
        return float(self.settings.clock())

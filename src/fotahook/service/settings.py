"""The settings of a service; the command line decides where their values come from."""

import time
from dataclasses import dataclass, field
from typing import Final

from ..contract.addresses import Network
from ..contract.messages import MESSAGE_LIMIT
from ..store.base import Clock
from .auth.passwords import COST, PasswordCost

REQUESTS_PER_MINUTE: Final = 300_000


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of one service. Limits are in bytes, durations in seconds."""

    secret_key: bytes = field(repr=False)
    """Derives every token and signing key; see contract.keys."""
    allow_http: bool = False
    """Whether a callback may have a plain http:// URL."""
    allowed_networks: tuple[Network, ...] = ()
    """Networks in which a callback's address may lie although they are not globally reachable."""
    message_limit: int = MESSAGE_LIMIT
    body_limit: int = 16 * 1024
    """Of every other request's body; the largest sensible one holds a URL of 2,048 characters."""
    batch_limit: int = 16 * 1024 * 1024
    batch_lines: int = 10_000
    batch_memory: int = 64 * 1024 * 1024
    """Of all batches that are read at the same time."""
    streams: int = 256
    """Event streams that one client may have open at once."""
    requests_per_minute: int = REQUESTS_PER_MINUTE
    """Rate limit of one client; 0 for no limit."""
    time_to_live: float = 7 * 24 * 3600.0
    """How long delivery is tried before a message expires; here it only shows when that is."""
    password_cost: PasswordCost = COST
    """A password that was hashed at another cost is hashed again at the next login."""
    clock: Clock = time.time
    """Unix time, by which tokens and sessions expire."""

"""What a service is told when it is built; where the values come from is the command line's business."""

import time
from dataclasses import dataclass, field
from typing import Final

from ..contract.addresses import Network
from ..contract.messages import MESSAGE_LIMIT
from ..store.base import Clock
from .auth.passwords import COST, PasswordCost

BODY_LIMIT: Final = 16 * 1024
"""Bytes in the body of any other request than a message; the largest sensible one is a URL of 2,048 characters."""

TIME_TO_LIVE: Final = 7 * 24 * 3600.0

BATCH_LIMIT: Final = 16 * 1024 * 1024
BATCH_LINES: Final = 10_000
REQUESTS_PER_MINUTE: Final = 300_000
BATCH_ROOM: Final = 64 * 1024 * 1024
"""Bytes of batches that are read at the same time, all together."""

STREAMS: Final = 256


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of one service. `clock` tells Unix seconds; tokens and sessions end by it."""

    secret_key: bytes = field(repr=False)
    """Derives every token and signing key; see contract.keys."""
    allow_http: bool = False
    """Whether a callback may be registered at a plain http:// URL."""
    allowed_networks: tuple[Network, ...] = ()
    """Networks a callback's address may lie in although they are not globally reachable."""
    message_limit: int = MESSAGE_LIMIT
    body_limit: int = BODY_LIMIT
    batch_limit: int = BATCH_LIMIT
    batch_lines: int = BATCH_LINES
    batch_room: int = BATCH_ROOM
    streams: int = STREAMS
    """Streams of events that one client may have open at once."""
    requests_per_minute: int = REQUESTS_PER_MINUTE
    """Of one client; 0 for no limit."""
    time_to_live: float = TIME_TO_LIVE
    """Seconds after which delivery gives a message up; here it only tells when that will be."""
    password_cost: PasswordCost = COST
    """What it costs to try a password; those that were hashed at another cost are hashed anew when they are used."""
    clock: Clock = time.time

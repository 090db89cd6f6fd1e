"""What a store keeps and tells, as frozen records, and the errors it raises.

Times in records are Unix seconds by the store's clock.
"""

from collections.abc import Mapping
from typing import Final, Literal

import msgspec

CALLBACK_CONSUMER: Final = ""
"""The consumer of the lane that leads to an account's registered callback; held while nothing is registered."""

DeliveryState = Literal["pending", "delivered", "dead"]
LaneState = Literal["open", "waiting", "held", "paused"]
AccountState = Literal["open", "waiting", "held", "paused", "trouble"]
"""A lane's state; or trouble: its endpoint fails or is gone, or messages wait and no callback is registered."""

LOOK: Final = 1000
"""Messages that are looked at for one page, so that nothing waits long behind it."""


class StoreError(Exception):
    """The store could not do what it was asked to."""


class StoreUnavailable(StoreError):
    """The store is away, locked or broken; nothing was written, and the same call may work later."""


class DispatchedElsewhere(StoreUnavailable):
    """Another process dispatches from the store, which only one may; everything else goes on."""


class StoreFull(StoreError):
    """There is no room left; nothing was written."""


class WrongSchema(StoreUnavailable):
    """The store was made by another version of fotahook; the text says what to do."""


class Record(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Facts at rest. They hold nothing that could hold them, so that the garbage collector need not look at them."""


class Callback(Record, frozen=True, kw_only=True):
    """The one URL registered for an account."""

    account: str
    url: str
    revision: int
    registered_at: float


class NewMessage(Record, frozen=True, kw_only=True):
    """A message to accept. `consumers` are the lanes of its account that it is put into."""

    account: str
    body: bytes
    type: str | None = None
    ordering_key: str | None = None
    idempotency_key: str | None = None
    idempotency_window: float | None = None
    """Seconds after the first message of that key in which it is known, the same for all of one key; None: for ever. A
    message that has a window and no key is known by its bytes."""
    consumers: tuple[str, ...] = (CALLBACK_CONSUMER,)

    @property
    def known_by_bytes(self) -> bool:
        """Whether it is its bytes that tell a repetition."""
        return self.idempotency_key is None and self.idempotency_window is not None


class Accepted(Record, frozen=True, kw_only=True):
    """What became of a new message. `conflict`: its idempotency key is known with other bytes; nothing was stored."""

    id: str
    duplicate: bool = False
    conflict: bool = False


class Health(Record, frozen=True, kw_only=True):
    """What the last outcomes say of a lane's endpoint; delivery's policy reads and writes it."""

    failures: int = 0
    """Endpoint troubles in a row."""
    window: int = 1
    """Deliveries that may be in flight at once."""
    refused: int = 0
    """Different messages refused in a row, with none accepted."""
    reason: str | None = None
    """Error code of the last endpoint trouble."""


class Limits(Record, frozen=True, kw_only=True):
    """What an operator allows an account; None means the service's own setting, or no limit where it has none."""

    in_flight: int | None = None
    per_second: float | None = None


class Lease(Record, frozen=True, kw_only=True):
    """A dispatcher's time-limited right to a lane. Whoever leases the lane next gets a higher token."""

    lane: int
    token: int
    account: str
    consumer: str
    open: bool
    """False while the lane is held or paused: what is in hand may end, nothing may begin."""
    url: str | None
    """Where the account's callback is registered; None in lanes that lead elsewhere."""
    revision: int
    """Of that callback; 0 where there is none."""
    signing_keys: tuple[str, ...]
    """Ids of the account's live signing keys."""
    limits: Limits
    health: Health


class Delivery(Record, frozen=True, kw_only=True):
    """A message's place in a lane, ready to be tried."""

    lane: int
    seq: int
    message: str
    account: str
    type: str | None
    ordering_key: str | None
    body: bytes
    accepted_at: float
    attempts: int
    """Attempts charged to the message so far."""
    strikes: int
    """Endpoint troubles met while this delivery was tried; they are charged to nobody."""
    age: float
    """Seconds that count towards its time to live: those in which the lane was neither held nor paused."""
    followed: bool = False
    """Whether another of its ordering key stood behind it when it was fetched."""


class Attempt(Record, frozen=True, kw_only=True):
    """One try of one delivery, as history keeps it. Phases in milliseconds.

    `resent`: it was sent twice, since the first connection, a kept one, ended without an answer.
    """

    started_at: float
    url: str | None
    outcome: str
    status: int | None = None
    error_code: str | None = None
    fix: str | None = None
    phases: Mapping[str, float] = {}
    excerpt: str = ""
    resent: bool = False


class Settlement(Record, frozen=True, kw_only=True):
    """What one attempt came to. `delay`: seconds until a pending delivery is due again."""

    delivery: Delivery
    state: DeliveryState
    attempts: int
    strikes: int
    attempt: Attempt
    delay: float = 0.0


class LaneVerdict(Record, frozen=True, kw_only=True):
    """What became of the lane itself. `wait`: seconds in which nothing is sent; `pause`: until somebody resumes it."""

    health: Health
    wait: float = 0.0
    pause: bool = False


class Placement(Record, frozen=True, kw_only=True):
    """How a message stands in one lane."""

    consumer: str
    state: DeliveryState
    attempts: int
    due: float
    age: float
    """Seconds that count towards its time to live, as in Delivery."""
    stopped: bool
    """Whether its lane is held or paused, so that its age stands still."""
    behind: str | None
    """Id of the message of the same key that goes first; None if it is the first itself, or settled."""
    settled_at: float | None
    last_outcome: str | None


class Message(Record, frozen=True, kw_only=True):
    """A stored message and where it stands."""

    id: str
    account: str
    type: str | None
    ordering_key: str | None
    idempotency_key: str | None
    """None as well where the message is known by its bytes, or where its key came again when its window was over."""
    body: bytes | None
    """None once retention has removed it, and wherever many are listed."""
    size: int
    sha256: bytes
    accepted_at: float
    duplicates: int
    """How often it came again and was dropped."""
    placements: tuple[Placement, ...]


class Lane(Record, frozen=True, kw_only=True):
    """The state of one lane of an account."""

    consumer: str
    state: LaneState
    until: float | None
    health: Health
    pending: int
    dead: int
    oldest_accepted_at: float | None


class Account(Record, frozen=True, kw_only=True):
    """An account that has something to do with callbacks, by the lane that leads there."""

    account: str
    callback: Callback | None
    lane: Lane
    limits: Limits


class CallbackChange(Record, frozen=True, kw_only=True):
    """Who changed an account's callback, and when; `url` None where it was deregistered."""

    url: str | None
    actor: str
    at: float
    revision: int


class Wanted(Record, frozen=True, kw_only=True):
    """Which messages to list; None means all of them. `until` itself is no part of the span."""

    state: DeliveryState | None = None
    """Of at least one delivery."""
    type: str | None = None
    ordering_key: str | None = None
    since: float | None = None
    until: float | None = None


class Page(Record, frozen=True, kw_only=True):
    """Some of the messages that were asked for, newest first, and where to go on; None at the end.

    A page may be short, or empty: no more than so many are looked at in one go.
    """

    messages: tuple[Message, ...]
    next: int | None


class Retention(Record, frozen=True, kw_only=True):
    """How long and how much is kept of messages whose every delivery is delivered or dead; None means without end."""

    seconds: float | None = None
    bytes: int | None = None
    """Of the store in all: beyond it the oldest bodies go, whatever their age."""


class Pruned(Record, frozen=True, kw_only=True):
    """What one step of retention removed, and whether there is more to remove now."""

    bodies: int
    bytes: int
    more: bool


class Redelivery(Record, frozen=True, kw_only=True):
    """What came of asking for a message once more: its id (a new one if asked for as new), or why not."""

    id: str | None = None
    refused: Literal["unknown", "pending", "pruned"] | None = None


class Credential(Record, frozen=True, kw_only=True):
    """Something that proves who is calling, or that the service signs with. Secrets are kept as hashes or not at all.

    `kind` is client, user, token, session or signing_key; `owner` the client, user or account it belongs to;
    `accounts` None means all of them.
    """

    kind: Literal["client", "user", "token", "session", "signing_key"]
    id: str
    owner: str = ""
    secret_hash: bytes = b""
    accounts: tuple[str, ...] | None = ()
    scopes: tuple[str, ...] = ()
    created_at: float = 0.0
    expires_at: float | None = None

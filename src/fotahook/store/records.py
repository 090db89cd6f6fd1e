"""The records that a store keeps and returns, their times in Unix seconds by its clock, and the errors it raises."""

from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from fotahook.contract.operator import Limits as Limits

FETCH_BYTES: Final = 1024 * 1024
CALLBACK_CONSUMER: Final = ""
"""The consumer of the lane to an account's registered callback; the lane is held while none is registered."""
SCAN_LIMIT: Final = 1000
"""Messages that are read for one page, so that other reads do not wait long."""

DeliveryState = Literal["pending", "delivered", "dead"]
LaneState = Literal["open", "waiting", "held", "paused"]


class StoreError(Exception):
    """The store could not do what was asked."""


class StoreUnavailable(StoreError):
    """The store is down, locked or broken; nothing was written, and the same call may succeed later."""


class DispatchedElsewhere(StoreUnavailable):
    """Another process dispatches from the store, and only one may; every other verb works."""


class StoreFull(StoreError):
    """There is no space left; nothing was written."""


class WrongSchema(StoreUnavailable):
    """Another version of fotahook made the store; the text says what to do."""


class Record(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Base of all records. Records never form cycles, so the garbage collector skips them."""


class Report(Record, frozen=True, kw_only=True):
    """A status that a message reports, of a device or (device '') of the campaign itself, and its place in the life
    cycle, from 1. `detail` is the reason that a device gave, or what was told of a campaign, as JSON."""

    campaign: str
    device: str
    status: str
    rank: int
    detail: str | None = None


class NewMessage(Record, frozen=True, kw_only=True):
    """A message to accept into these lanes of its account, the `consumers`."""

    account: str
    body: bytes
    type: str | None = None
    ordering_key: str | None = None
    idempotency_key: str | None = None
    idempotency_window: float | None = None
    """Seconds after the first message of that key in which duplicates are dropped, the same for all; None: forever."""
    consumers: tuple[str, ...] = (CALLBACK_CONSUMER,)
    reports: tuple[Report, ...] = ()
    by_report: bool = False


class Accepted(Record, frozen=True, kw_only=True):
    """The result for a new message. `conflict`: its idempotency key is known with other bytes; nothing was stored."""

    id: str
    duplicate: bool = False
    conflict: bool = False


class Note(Record, frozen=True, kw_only=True):
    """What deliverers are told of a message beside its bytes. `stale`: devices ('' for the campaign) of which the
    ledger had a later status, or the same result, already."""

    by_report: bool = False
    stale: tuple[str, ...] = ()


class Health(Record, frozen=True, kw_only=True):
    """The health of a lane's endpoint by its recent attempts, of which older ones count less. The lane waits for the
    endpoint failure that is the `reason`, an error code; `window` deliveries may be in flight at once."""

    failures: int = 0
    """Times in a row that endpoint failures made the lane wait."""
    window: int = 4
    refused: int = 0
    reason: str | None = None
    succeeded: float = 0.0
    failed: float = 0.0
    latency: float = 0.0
    """Seconds of the fastest recent answer; 0 if there was none."""


class Lease(Record, frozen=True, kw_only=True):
    """A dispatcher's time-limited right to a lane, and what it needs to know of it as of `read_at`. The lane's next
    lease has a higher token. `url` and `revision` are the callback's; None and 0 in lanes that lead elsewhere."""

    lane: int
    token: int
    account: str
    consumer: str
    open: bool
    """False while the lane is held or paused: attempts in flight may end, none may start."""
    url: str | None
    revision: int
    signing_keys: tuple[str, ...]
    limits: Limits
    health: Health
    read_at: float = 0.0


class Delivery(Record, frozen=True, kw_only=True):
    """A message's place in a lane, ready for an attempt. `followed`: another one of its ordering key waits behind."""

    lane: int
    seq: int
    message: str
    account: str
    type: str | None
    ordering_key: str | None
    body: bytes
    accepted_at: float
    attempts: int = 0
    strikes: int = 0
    """Endpoint failures during attempts at this delivery, which are not charged to it."""
    age: float = 0.0
    """Seconds that count towards its time to live: those in which the lane was neither held nor paused."""
    note: Note | None = None
    followed: bool = False


class LeaseRequest(Record, frozen=True, kw_only=True):
    """A dispatcher's wish to get new messages at once: it takes leases of up to `lanes` idle lanes for `seconds`.
    `asked_at` is its own time, handed back to it."""

    lanes: int
    seconds: float
    asked_at: float = 0.0


class HandOver(Record, frozen=True, kw_only=True):
    """New deliveries of a lane, for the dispatcher that owns the lease of this token; any other drops them. They may
    also be fetched, as `more` must be. `lease`: that lease if it is new; None if the lane was leased before."""

    lane: int
    token: int
    lease: Lease | None
    deliveries: tuple[Delivery, ...]
    more: bool
    asked_at: float


class Attempt(Record, frozen=True, kw_only=True):
    """One attempt, phases in milliseconds. `resent`: sent twice, as the first connection, a kept one, had closed."""

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
    """The result of one attempt. `delay`: seconds until a pending delivery is due again."""

    delivery: Delivery
    state: DeliveryState
    attempts: int
    strikes: int
    attempt: Attempt
    delay: float = 0.0


class LaneVerdict(Record, frozen=True, kw_only=True):
    """The result for the lane itself. `wait`: seconds of backoff; `pause`: stop until somebody resumes the lane."""

    health: Health
    wait: float = 0.0
    pause: bool = False


class DeliveryStatus(Record, frozen=True, kw_only=True):
    """The status of a message's delivery in one lane. `age`: as in Delivery, it stands still while `stopped`."""

    consumer: str
    state: DeliveryState
    attempts: int
    due: float
    age: float
    stopped: bool
    behind: str | None
    """Id of the first message of the same key; None if it is the first itself, or settled."""
    settled_at: float | None
    last_outcome: str | None


class Message(Record, frozen=True, kw_only=True):
    """A stored message. Its key is None as well if it came again after its window; its body is None in lists, and once
    retention has removed it. So many `duplicates` were dropped."""

    id: str
    account: str
    type: str | None
    ordering_key: str | None
    idempotency_key: str | None
    body: bytes | None
    size: int
    sha256: bytes
    accepted_at: float
    duplicates: int
    deliveries: tuple[DeliveryStatus, ...]


class Lane(Record, frozen=True, kw_only=True):
    consumer: str
    state: LaneState
    until: float | None
    health: Health
    pending: int
    dead: int
    oldest_accepted_at: float | None


class MessageFilter(Record, frozen=True, kw_only=True):
    """Which messages to list; None means all of them. `state` is one delivery's at least, `until` is exclusive."""

    state: DeliveryState | None = None
    type: str | None = None
    ordering_key: str | None = None
    since: float | None = None
    until: float | None = None


class Page(Record, frozen=True, kw_only=True):
    """Some of the messages asked for, newest first, and where the next page begins, None at the end. May be empty."""

    messages: tuple[Message, ...]
    next: int | None


class Retention(Record, frozen=True, kw_only=True):
    """How long and how much is kept of messages whose deliveries are all delivered or dead; None: without limit."""

    seconds: float | None = None
    """Bodies, and changes of lanes."""
    bytes: int | None = None
    """Of the whole store: above it the oldest bodies are removed, whatever their age."""
    attempts: float | None = None
    """Seconds for the attempts at messages whose bodies are removed."""
    ids: float | None = None
    """Seconds for messages without bodies: their ids, idempotency keys and hashes."""


class Pruned(Record, frozen=True, kw_only=True):
    """What one step of retention removed, and whether there is more to remove now."""

    bodies: int
    bytes: int
    more: bool


class Redelivery(Record, frozen=True, kw_only=True):
    """The result of a redelivery: the id of the message sent again (a new one for a copy), or why it was refused."""

    id: str | None = None
    refused: Literal["unknown", "pending", "pruned"] | None = None


class Credential(Record, frozen=True, kw_only=True):
    """Authenticates a caller, or names a key that the service signs with; secrets are stored as hashes or not at all.
    Kind secret is a client's former secret, secret_key the mark of the service's. `owner`: the client, user or account
    it belongs to. `accounts`: None means all. `networks` (CIDR): from which it may be used; none: from everywhere."""

    kind: Literal["client", "user", "token", "session", "signing_key", "secret", "secret_key"]
    id: str
    owner: str = ""
    secret_hash: bytes = b""
    accounts: tuple[str, ...] | None = ()
    scopes: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    created_at: float = 0.0
    expires_at: float | None = None


class AuditEntry(Record, frozen=True, kw_only=True):
    """Who did what, and from where: never a secret, a URL's path or a message's content. `subject` is the name of the
    client or user, or the id of the key or message, that was acted on. The store sets `number` and `at`."""

    actor: str
    address: str
    action: str
    account: str | None = None
    subject: str = ""
    detail: str = ""
    number: int = 0
    at: float = 0.0

"""What fotahook's own API, `/v1/…`, is told and answers: its shapes."""

from collections.abc import Mapping
from datetime import datetime

import msgspec
from msgspec import UNSET, UnsetType


class Published(msgspec.Struct, frozen=True):
    """A message that the service has on disk. `duplicate`: it had it already, under the same idempotency key."""

    id: str
    duplicate: bool


class BatchMessage(msgspec.Struct, frozen=True):
    """One message of a batch, with the arguments of `publish`."""

    account: str
    message: bytes | Mapping[str, object]
    ordering_key: str | None = None
    idempotency_key: str | None = None


class _Camel(msgspec.Struct, frozen=True, rename="camel"):
    pass


class Refused(_Camel, frozen=True):
    """A message of a batch that was not accepted, and why; the others were."""

    error_code: str
    error_message: str


class RegisteredCallback(_Camel, frozen=True):
    """The URL registered for an account; the revision grows with every change."""

    url: str
    revision: int
    registered_at: datetime


class LaneState(_Camel, frozen=True):
    """How the way to the endpoint is: `open`, `waiting` until a time, `held` or `paused`, and why.

    `in_flight`: how many deliveries may be under way just now; few at first and after trouble, none unless it is open.
    """

    state: str
    reason: str | None = None
    until: datetime | None = None
    in_flight: int = 0
    failures: int = 0


class Backlog(_Camel, frozen=True):
    """What is not delivered."""

    pending: int
    dead: int
    oldest_accepted_at: datetime | None = None


class Limits(_Camel, frozen=True):
    """An account's own limits: deliveries in flight at once, and deliveries started per second.

    `in_flight` None: the service's default (8 unless configured otherwise). `per_second` None: no limit.
    """

    in_flight: int | None = None
    per_second: float | None = None


class AccountState(_Camel, frozen=True):
    """An account as its operator sees it; `callback` is None if nothing is registered.

    `known` is False for an account that never had a callback or a message: its name may be misspelt.
    """

    account: str
    callback: RegisteredCallback | None
    lane: LaneState
    backlog: Backlog
    limits: Limits = Limits()
    known: bool = True


class DeliveryState(_Camel, frozen=True):
    """The place of a message in a lane: `pending`, `delivered` or `dead`."""

    lane: str
    state: str
    attempts: int
    due: datetime | None = None
    expires_at: datetime | None = None
    last_outcome: str | None = None


class MessageState(_Camel, frozen=True):
    """A message without its bytes; `size` counts them."""

    id: str
    account: str
    size: int
    sha256: str
    accepted_at: datetime
    deliveries: list[DeliveryState]
    type: str | None = None
    ordering_key: str | None = None


class AccountPage(_Camel, frozen=True):
    """Some of the accounts, by name; `cursor` asks for the next ones, None at the end."""

    accounts: list[AccountState]
    cursor: str | None = None


class MessagePage(_Camel, frozen=True):
    """Some of an account's messages, newest first; `cursor` asks for older ones, None at the end.

    A page may be short, even empty, although there is a cursor.
    """

    messages: list[MessageState]
    cursor: str | None = None


class CallbackChange(_Camel, frozen=True):
    """One change of an account's callback: `registered`, `replaced` or `deregistered`, and by whom.

    `actor` is the client, followed by a slash and the user who had logged in; `url` is None where it was deregistered.
    """

    url: str | None
    action: str
    actor: str
    at: datetime
    revision: int


class CallbackHistory(_Camel, frozen=True):
    """The changes of an account's callback, newest first, at most the last thousand."""

    history: list[CallbackChange]


class Reason(_Camel, frozen=True):
    """Why a message stands where it stands, in one sentence; `until` where that ends by itself at a known time."""

    code: str
    text: str
    until: datetime | None = None


class Why(_Camel, frozen=True):
    """The state of a message, and each reason for it."""

    state: str
    reasons: list[Reason]


class Redelivered(_Camel, frozen=True):
    """The id under which a message is sent once more."""

    id: str


class Redeliveries(_Camel, frozen=True):
    """How many messages are sent once more, or would be."""

    count: int


class SigningKey(_Camel, frozen=True):
    """A live signing key of an account, without its secret."""

    id: str
    created_at: datetime
    age_seconds: int
    expires_at: datetime | None = None


class SigningKeys(_Camel, frozen=True):
    """The live signing keys of an account, oldest first."""

    signing_keys: list[SigningKey]


class NewSigningKey(_Camel, frozen=True):
    """A signing key just made; its secret is shown this once."""

    id: str
    secret: str


class Phases(_Camel, frozen=True):
    """How long the parts of an attempt took, in milliseconds; None for a part that was not reached."""

    dns: float | None = None
    connect: float | None = None
    tls: float | None = None
    first_byte: float | None = None
    total: float | None = None


class Attempt(_Camel, frozen=True):
    """One try of one delivery. `fix` says what the receiver's side can do about a failure.

    `resent`: the connection that it was sent on, kept from an earlier one, ended without an answer. It was sent once
    more on a new one, at once; the receiver may have had it twice. Left out where that did not happen.
    """

    number: int
    started_at: datetime
    outcome: str
    url: str | None = None
    http_status: int | None = None
    error_code: str | None = None
    fix: str | None = None
    phases: Phases = Phases()
    excerpt: str | None = None
    resent: bool | UnsetType = UNSET


class Attempts(_Camel, frozen=True):
    """Every attempt at a message, the first one first."""

    attempts: list[Attempt]


class Counts(_Camel, frozen=True):
    """Messages accepted, deliveries that ended delivered and dead, attempts that failed."""

    accepted: int = 0
    delivered: int = 0
    failed: int = 0
    dead: int = 0


class MinuteCounts(_Camel, frozen=True):
    """The same of the minute that began at a time."""

    at: datetime
    accepted: int = 0
    delivered: int = 0
    failed: int = 0
    dead: int = 0


class Stats(_Camel, frozen=True):
    """How much happened in the last minutes: in all, and minute by minute, of which the last one is not over."""

    totals: Counts
    minutes: list[MinuteCounts]

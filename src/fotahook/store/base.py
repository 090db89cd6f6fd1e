"""The store as the other rooms see it: frozen records, and domain verbs that are each one transaction.

A store is whatever passes ``tests/store``. Times in records are Unix seconds by the store's clock; durations given to a
verb are seconds from the moment the store writes them, so that only one clock is ever compared.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, Literal, Protocol

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


class StoreFull(StoreError):
    """There is no room left; nothing was written."""


class WrongSchema(StoreUnavailable):
    """The store was made by another version of fotahook; the text says what to do."""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """Facts at rest."""


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
    consumers: tuple[str, ...] = (CALLBACK_CONSUMER,)


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


class Attempt(Record, frozen=True, kw_only=True):
    """One try of one delivery, as history keeps it. Phases in milliseconds."""

    started_at: float
    url: str | None
    outcome: str
    status: int | None = None
    error_code: str | None = None
    fix: str | None = None
    phases: Mapping[str, float] = {}
    excerpt: str = ""


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


class Store(Protocol):
    """Where the rooms meet. Every verb is one transaction; those that write return once it is synced to disk.

    All may raise StoreUnavailable; those that add rows also StoreFull.
    """

    async def register(self, account: str, url: str, *, actor: str) -> Callback:
        """Make `url` the account's callback, whatever it was, and open its lane; what waited for the old one is due."""

    async def deregister(self, account: str, *, actor: str) -> bool:
        """Forget the account's callback and hold its lane; False if there was none."""

    async def callback(self, account: str) -> Callback | None:
        """The account's callback, if one is registered."""

    async def accept(self, messages: Sequence[NewMessage]) -> list[Accepted]:
        """Store messages with their deliveries and make the lanes due; an answer for each, in order."""

    async def message(self, message_id: str) -> Message | None:
        """One message with its placements."""

    async def attempts(self, message_id: str) -> list[Attempt]:
        """Every attempt at a message, oldest first."""

    async def lanes(self, account: str) -> list[Lane]:
        """The lanes of an account with their backlogs."""

    async def accounts(
        self,
        *,
        state: AccountState | None = None,
        among: Collection[str] | None = None,
        after: str = "",
        limit: int,
    ) -> list[Account]:
        """Accounts that have a lane to a callback, by name, from behind `after`; of one state or all, among these."""

    async def messages(self, account: str, wanted: Wanted, *, before: int | None = None, limit: int) -> Page:
        """An account's messages, newest first, without their bodies; `before` is the last page's `next`."""

    async def callback_history(self, account: str, limit: int) -> list[CallbackChange]:
        """The last changes of an account's callback, newest first."""

    async def pause(self, account: str, consumer: str = CALLBACK_CONSUMER) -> None:
        """Send nothing over a lane until it is resumed; everything is kept, and its time to live stands still."""

    async def resume(self, account: str, consumer: str = CALLBACK_CONSUMER) -> None:
        """Open a paused lane, or end its wait, with the endpoint's health forgotten; what waited for it is due."""

    async def limits(self, account: str) -> Limits:
        """What an operator allows the account."""

    async def set_limits(self, account: str, limits: Limits) -> None:
        """Allow it something else; dispatchers know within a turn."""

    async def redeliver(self, message_id: str, *, as_new: bool = False) -> Redelivery:
        """Send a settled message once more: to the tail of its key, with attempts and time to live afresh.

        The same id, so that receivers know it again, unless `as_new`: then a copy is accepted under a new one.
        """

    async def redeliver_all(
        self, account: str, state: DeliveryState, *, since: float, until: float, dry_run: bool = False
    ) -> int:
        """How many settled messages were accepted in a span and are in a state; unless `dry_run`, send them again.

        The wish is on disk when this returns; ``tidy`` fulfils it in small steps, after a restart too.
        """

    async def tidy(self, retention: Retention) -> bool:
        """One small step of what can wait: redeliveries of many, then retention. Whether there is more to do now."""

    async def prune(self, retention: Retention) -> Pruned:
        """One small step of retention alone."""

    async def lease(self, limit: int, seconds: float) -> list[Lease]:
        """Take up to `limit` lanes that have something due, longest overdue first, for `seconds`."""

    async def fetch(self, lease: Lease, limit: int) -> list[Delivery]:
        """The deliveries of a leased lane that are due, earliest first; nothing that stands behind its key's head."""

    async def settle(
        self, lease: Lease, settlements: Sequence[Settlement], verdict: LaneVerdict, *, keep: float
    ) -> Lease | None:
        """Write outcomes and the lane's verdict, and keep the lane for `keep` more seconds (0 gives it back).

        The lease as it stands now, callback and keys read afresh; None if it is over: given back, or lost to another
        dispatcher, and then nothing was written. Where another callback was registered since `lease` was read, the
        outcomes count and the verdict does not: it spoke of the old endpoint.
        """

    async def due_in(self) -> float | None:
        """Seconds until some lane can be leased; None if none has anything to send."""

    async def wait(self, seconds: float) -> None:
        """Return at a hint that a lane may have become due, or after `seconds`. Polling is the truth."""

    async def save_credential(self, credential: Credential) -> None:
        """Insert a credential, or replace the one of its kind and id."""

    async def credential(self, kind: str, credential_id: str) -> Credential | None:
        """One credential; None if there is none or it has expired."""

    async def credentials(self, kind: str, owner: str) -> list[Credential]:
        """The live credentials of one owner, oldest first."""

    async def drop_credentials(self, kind: str, ids: Collection[str]) -> None:
        """Forget credentials."""

    async def check(self) -> None:
        """Return if the store can be read and has this version's schema; otherwise StoreUnavailable or WrongSchema."""

    async def close(self) -> None:
        """Finish what is being written and let go of the files or connections."""


Clock = Callable[[], float]

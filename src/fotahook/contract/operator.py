"""The types of fotahook's own API, `/v1/…`."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from .exchange import Masked, Model

AccountFilter = Literal["trouble", "open", "waiting", "held", "paused"]
MessageStateName = Literal["pending", "delivered", "dead"]
if TYPE_CHECKING:
    LaneStateName = Literal["open", "waiting", "held", "paused"]
    DeliveryStateName = MessageStateName
    CheckResult = Literal["pass", "warn", "fail"]
else:
    # What is read may be from a newer service, with a state that is not known here.
    LaneStateName = DeliveryStateName = CheckResult = str


class Published(Model, frozen=True):
    """A message that the service has on disk. `duplicate` if it was already there, under the same idempotency key."""

    id: str
    duplicate: bool


class BatchMessage(msgspec.Struct, frozen=True):
    """One message of a batch, with the arguments of `publish`."""

    account: str
    message: bytes | Mapping[str, object]
    ordering_key: str | None = None
    idempotency_key: str | None = None


class Refused(Model, frozen=True):
    """A message of a batch that was not accepted, and why."""

    error_code: str
    error_message: str


class RegisteredCallback(Model, frozen=True):
    """The URL registered for an account; each change increases the revision."""

    url: str
    revision: int
    registered_at: datetime


class LaneState(Model, frozen=True):
    """The lane to an endpoint; `in_flight`: the deliveries allowed at once now, few at first and after failures."""

    state: LaneStateName
    reason: str | None = None
    until: datetime | None = None
    in_flight: int = 0
    failures: int = 0


class Backlog(Model, frozen=True):
    pending: int
    dead: int
    oldest_accepted_at: datetime | None = None


class Limits(Model, frozen=True):
    """An account's own limits of deliveries, and its quotas of undelivered messages and bytes, publishes and changes.

    None: the service's default; for `per_second`, no limit.
    """

    in_flight: int | None = None
    per_second: float | None = None
    pending_messages: int | None = None
    pending_bytes: int | None = None
    publishes_per_second: int | None = None
    changes_per_hour: int | None = None


_Quota = Annotated[int, Meta(ge=0, le=10**15)]


class NewLimits(Model, frozen=True, forbid_unknown_fields=True):
    """The limits to change; null restores the default, and a limit that is left out stays."""

    in_flight: Annotated[int, Meta(ge=1, le=256)] | UnsetType | None = UNSET
    per_second: Annotated[float, Meta(ge=0.001, le=10_000.0)] | UnsetType | None = UNSET
    pending_messages: _Quota | UnsetType | None = UNSET
    pending_bytes: _Quota | UnsetType | None = UNSET
    publishes_per_second: _Quota | UnsetType | None = UNSET
    changes_per_hour: _Quota | UnsetType | None = UNSET


class AccountState(Model, frozen=True):
    """The state of an account; `known` is False if it never had a callback or a message, as if its name is misspelt."""

    account: str
    callback: RegisteredCallback | None
    lane: LaneState
    backlog: Backlog
    limits: Limits = Limits()
    known: bool = True


class DeliveryState(Model, frozen=True):
    lane: str
    state: DeliveryStateName
    attempts: int
    due: datetime | None = None
    expires_at: datetime | None = None
    last_outcome: str | None = None


class MessageState(Model, frozen=True):
    """A message without its bytes; `size` is their number."""

    id: str
    account: str
    size: int
    sha256: str
    accepted_at: datetime
    deliveries: list[DeliveryState]
    type: str | None = None
    ordering_key: str | None = None


class AccountPage(Model, frozen=True):
    """A page of accounts, by name; `cursor` gets the next one, None at the end."""

    accounts: list[AccountState]
    cursor: str | None = None


class MessagePage(Model, frozen=True):
    """A page of messages, newest first; `cursor` gets the next one, None at the end. It may be short, even empty."""

    messages: list[MessageState]
    cursor: str | None = None


class CallbackChange(Model, frozen=True):
    """A change of an account's callback; `actor` is the client, a slash, and the user who was logged in."""

    url: str | None
    action: str
    actor: str
    at: datetime
    revision: int


class CallbackHistory(Model, frozen=True):
    history: list[CallbackChange]


class Reason(Model, frozen=True):
    """One reason for the state of a message; `until` if it ends by itself at a known time."""

    code: str
    text: str
    until: datetime | None = None


class Why(Model, frozen=True):
    """The state of a message, and the reasons for it."""

    state: str
    reasons: list[Reason]


class Redelivered(Model, frozen=True):
    """The id under which a message is delivered again."""

    id: str


class Redeliveries(Model, frozen=True):
    count: int


class SigningKey(Model, frozen=True):
    id: str
    created_at: datetime
    age_seconds: int
    expires_at: datetime | None = None


class SigningKeys(Model, frozen=True):
    signing_keys: list[SigningKey]


class NewSigningKey(Masked, frozen=True):
    """A new signing key; its secret is shown only once."""

    shown = ("id",)
    id: str
    secret: str


class AuditEntry(Model, frozen=True):
    """Who did what, when and from where; `subject` is the client, user, key or message that it was done to."""

    at: datetime
    actor: str
    address: str
    action: str
    account: str | None
    subject: str
    detail: str


class AuditPage(Model, frozen=True):
    """A page of the audit log, newest first; `cursor` gets the next one, None at the end."""

    entries: list[AuditEntry]
    cursor: str | None = None


class Phases(Model, frozen=True):
    """The durations of an attempt's phases in milliseconds; None for a phase that was not reached."""

    dns: float | None = None
    connect: float | None = None
    tls: float | None = None
    first_byte: float | None = None
    total: float | None = None


class Attempt(Model, frozen=True):
    """One attempt of a delivery. `fix` says what the receiver's operator can do about a failure.

    `resent` if the connection was kept and ended without a response: the receiver may have got the message twice.
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
    resent: bool = False
    message_id: str | None = None


class Attempts(Model, frozen=True):
    attempts: list[Attempt]


class Check(Model, frozen=True):
    """One check of a receiver: `pass`, `warn` or `fail`, what was found, and what to do about it."""

    check: str
    result: CheckResult
    found: str
    fix: str | None = None


class Checks(Model, frozen=True):
    url: str
    result: CheckResult
    checks: list[Check]


class StateCounts(Model, frozen=True):
    """How many accounts are in each state; `trouble`: how many need attention."""

    open: int = 0
    waiting: int = 0
    held: int = 0
    paused: int = 0
    trouble: int = 0


class Latency(Model, frozen=True):
    """Milliseconds from the acceptance of a message to its delivery, over the last deliveries; None without any."""

    p50: float | None = None
    p99: float | None = None


class Counts(Model, frozen=True):
    """Messages accepted, deliveries that became delivered or dead, and failed attempts."""

    accepted: int = 0
    delivered: int = 0
    failed: int = 0
    dead: int = 0


class MinuteCounts(Counts, frozen=True, kw_only=True):
    at: datetime


class Stats(Model, frozen=True):
    """The counts of the last minutes, the last of which is not over; accounts, backlog and latency are those of now."""

    totals: Counts
    minutes: list[MinuteCounts]
    accounts: StateCounts = StateCounts()
    backlog: Backlog = Backlog(pending=0, dead=0)
    latency: Latency = Latency()


class CampaignState(Model, frozen=True):
    """A campaign; `other` devices are under way, `silent` ones said nothing, `overdue` ones of both are late."""

    account: str
    campaign_id: str
    succeeded: int = 0
    failed: int = 0
    other: int = 0
    silent: int = 0
    overdue: int = 0
    repaired: int = 0
    status: str | None = None
    until: datetime | None = None
    last_at: datetime | None = None


class FailureReason(Model, frozen=True):
    reason: str
    count: int


class ResultCounts(Model, frozen=True):
    """The devices that said their last status in the span of time that begins `at`; `other` ones are under way."""

    at: datetime
    succeeded: int
    failed: int
    other: int


class CampaignDetails(CampaignState, frozen=True):
    """A campaign with the reasons of its failures, the most frequent first, and when its devices reported."""

    reasons: Sequence[FailureReason] = ()
    timeline: Sequence[ResultCounts] = ()


class CampaignPage(Model, frozen=True):
    """A page of campaigns, newest first; `cursor` gets the next one, None at the end."""

    campaigns: list[CampaignState]
    cursor: str | None = None


class DeviceState(Model, frozen=True):
    """The last status of a device in a campaign; `kind`: `succeeded`, `failed`, `other`, `silent` or `overdue`."""

    device_id: str
    kind: str
    status: str | None = None
    reason: str | None = None
    source: str | None = None
    at: datetime | None = None
    message_id: str | None = None


class DevicePage(Model, frozen=True):
    """A page of a campaign's devices, in order; `cursor` gets the next one, None at the end. It may be short."""

    devices: list[DeviceState]
    cursor: str | None = None


class FoundDevice(Model, frozen=True):
    account: str
    campaign_id: str
    device_id: str
    status: str
    at: datetime


class Found(Model, frozen=True):
    """What a search found: at most ten of each kind."""

    accounts: list[AccountState]
    messages: list[MessageState]
    devices: list[FoundDevice]
    campaigns: list[CampaignState]

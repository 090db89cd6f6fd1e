"""The types of the operator API's campaigns and of its search."""

from collections.abc import Sequence
from datetime import datetime

from .operator import AccountState, Camel, MessageState


class CampaignState(Camel, frozen=True):
    """A campaign by what its messages, or ThingSpace's report, said of its devices.

    `other` devices are under way, `silent` ones were expected and said nothing; `overdue` ones of these two have no
    result after the end. `repaired`: statuses that no message brought.
    """

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


class FailureReason(Camel, frozen=True):
    """A reason for failures, and the number of devices that failed for it."""

    reason: str
    count: int


class ResultCounts(Camel, frozen=True):
    """The devices that said their last status in the span of time that begins `at`; `other` ones are under way."""

    at: datetime
    succeeded: int
    failed: int
    other: int


class CampaignDetails(CampaignState, frozen=True, rename="camel"):
    """A campaign with the reasons of its failures, the most frequent first, and when its devices reported."""

    reasons: Sequence[FailureReason] = ()
    timeline: Sequence[ResultCounts] = ()


class CampaignPage(Camel, frozen=True):
    """A page of campaigns, newest first; `cursor` gets the next one, None at the end."""

    campaigns: list[CampaignState]
    cursor: str | None = None


class DeviceState(Camel, frozen=True):
    """The last status of a device in a campaign, the message that said it, and whether a callback or a report did.

    `kind` is `succeeded`, `failed`, `other`, `silent` or `overdue`.
    """

    device_id: str
    kind: str
    status: str | None = None
    reason: str | None = None
    source: str | None = None
    at: datetime | None = None
    message_id: str | None = None


class DevicePage(Camel, frozen=True):
    """A page of a campaign's devices, in order; `cursor` gets the next one, None at the end. It may be short."""

    devices: list[DeviceState]
    cursor: str | None = None


class FoundDevice(Camel, frozen=True):
    """The last status of a device in a campaign."""

    account: str
    campaign_id: str
    device_id: str
    status: str
    at: datetime


class Found(Camel, frozen=True):
    """What a search found: at most ten of each kind."""

    accounts: list[AccountState]
    messages: list[MessageState]
    devices: list[FoundDevice]
    campaigns: list[CampaignState]

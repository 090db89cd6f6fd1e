"""What a store keeps in its ledger: campaigns, their devices, and what was reported of them."""

from .records import Record


class LedgerDevice(Record, frozen=True, kw_only=True):
    """The last status of a device in a campaign; None if it is only expected."""

    device: str
    status: str | None
    rank: int
    at: float | None
    by_report: bool
    repairs: int
    """How often a report had to say what no message did."""


class LedgerReport(Record, frozen=True, kw_only=True):
    """The last status of a device ('' for the campaign itself) in a campaign."""

    account: str
    campaign: str
    device: str
    status: str
    at: float
    detail: str | None
    told: str | None
    """What was told of the campaign, as JSON."""


class LedgerCampaign(Record, frozen=True, kw_only=True):
    """A campaign in the ledger, with its own last status. Its end is unknown until somebody says it."""

    id: int
    account: str
    campaign: str
    status: str | None = None
    rank: int = 0
    at: float | None = None
    ends_at: float | None = None
    cursor: str = ""
    """How far its report was read: the last device; empty at the beginning."""


class CampaignDevice(LedgerDevice, frozen=True, kw_only=True):
    """The last status of a device, why, and the id of the message that said it."""

    detail: str | None
    message: str | None


class DevicePage(Record, frozen=True, kw_only=True):
    """Some of a campaign's devices in order, and the device behind which to go on; None at the end."""

    devices: tuple[CampaignDevice, ...]
    next: str | None


class LedgerCount(Record, frozen=True, kw_only=True):
    """How many devices of a campaign have a status; '' if they are only expected."""

    status: str
    is_final: bool
    devices: int
    repairs: int

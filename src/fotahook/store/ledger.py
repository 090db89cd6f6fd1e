"""The ledger: the last status of each device in each campaign, kept in the transaction that accepts a message."""

import hashlib
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from msgspec.structs import fields

from fotahook.contract.messages import FINAL_RANK, CallbackMessage, Upgrade, place
from fotahook.contract.models import CampaignSoftware
from fotahook.contract.operator import FailureReason, ResultCounts

from .records import NewMessage, Note, Record, Report
from .session import NEWEST, Engine, ReportRow, Session, to_json
from .views import read

_TEXT_LIMIT: Final = 256
_TOLD: Final = [
    field.encode_name
    for field in fields(CampaignSoftware)
    if field.type == str | None and field.name not in ("id", "account_name", "status")
]


def reports_of(message: CallbackMessage, *, detailed: bool) -> tuple[Report, ...]:
    """The statuses that a message reports of its devices and campaign; `detailed`: with what else it says of them."""
    found: list[Report] = []

    def add(campaign: str, device: str, status: str, detail: str | None) -> None:
        spelling, rank = place(status)
        found.append(Report(campaign=campaign, device=device, status=storable(spelling), rank=rank, detail=detail))

    for part in (message.upgrade_progress, message.upgrade_scheduled, message.campaign):
        if part is None or (campaign := part.campaign or message.campaign_id) is None:
            continue
        campaign = storable(campaign)
        if part.status:
            add(campaign, "", part.status, _told(part) if detailed else None)
        for device in part.device_list:
            if device.device_id and device.status:
                reason = _short(device.result_reason) if detailed else None
                add(campaign, storable(device.device_id), device.status, reason)
    if len(found) > 1:
        # Of a device that is named more than once, the latest of the life cycle counts.
        found.sort(key=lambda report: report.rank)
        found = list({(report.campaign, report.device): report for report in found}.values())
    return tuple(found)


def _told(part: Upgrade) -> str | None:
    """What a message says of a campaign besides its status, as JSON."""
    members = {"softwareName": part.software_name or part.firmware_name, "startDate": part.start_date, **part.extra}
    told = {name: _short(text) for name in _TOLD if isinstance(text := members.get(name), str)}
    return to_json(told) if told else None


def _short(text: str | None) -> str | None:
    """A text from a message, cut, and without NUL, which PostgreSQL does not store."""
    return text and text[:_TEXT_LIMIT].replace("\0", "\ufffd")


def storable(text: str) -> str:
    """A key that any store can hold: the hash of one that is long or contains NUL, which PostgreSQL does not store."""
    if len(text) <= _TEXT_LIMIT and "\0" not in text:
        return text
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


async def record_reports(db: Session, messages: Sequence[tuple[int, NewMessage]]) -> Mapping[int, Note]:
    """Enter what new messages report, in their order; a note for each, by its number, that deserves one."""
    names = {(message.account, one.campaign) for _, message in messages for one in message.reports}
    campaigns = await campaign_ids(db, names)
    # A statement writes a row once: a device that is named again goes into the next part.
    parts: defaultdict[int, list[ReportRow]] = defaultdict(list)
    times: defaultdict[tuple[int, str], int] = defaultdict(int)
    for seq, message in messages:
        for one in message.reports:
            name = campaigns[message.account, one.campaign], one.device
            parts[times[name]].append((seq, *name, one.status, one.rank, message.by_report, one.detail))
            times[name] += 1
    stale: defaultdict[int, list[str]] = defaultdict(list)
    for part in parts.values():
        for row in await db.record_reports(part):
            stale[row["seq"]].append(row["device"])
    noted = ((seq, message.by_report) for seq, message in messages if message.by_report or seq in stale)
    notes = {seq: Note(by_report=by_report, stale=tuple(stale.get(seq, ()))) for seq, by_report in noted}
    if notes:
        await db.rows("add_notes", rows=to_json([(seq, to_json(note)) for seq, note in notes.items()]))
    return notes


async def campaign_ids(db: Session, names: Collection[tuple[str, str]]) -> Mapping[tuple[str, str], int]:
    """The ids of campaigns, by account and name, created where they are missing."""
    found = await db.rows("find_campaigns", names=to_json(names))
    if len(found) < len(names):
        await db.rows("add_campaigns", names=to_json(sorted(names)))
        found = await db.rows("find_campaigns", names=to_json(names))
    return {(row["account"], row["campaign"]): row["id"] for row in found}


class LedgerDevice(Record, frozen=True, kw_only=True):
    """The last status of a device in a campaign, None if it is only expected; why, and the id of the message."""

    device: str
    status: str | None
    rank: int
    at: float | None
    by_report: bool
    repairs: int
    """How often a report had to say what no message did."""
    detail: str | None = None
    message: str | None = None


class LedgerReport(Record, frozen=True, kw_only=True):
    """The last status of a device ('' for the campaign itself) in a campaign. `told`: what of the campaign, as JSON."""

    account: str
    campaign: str
    device: str
    status: str
    at: float
    detail: str | None
    told: str | None


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


class LedgerCount(Record, frozen=True, kw_only=True):
    """How many devices of a campaign have a status; '' if they are only expected."""

    status: str
    is_final: bool
    devices: int
    repairs: int


class LedgerVerbs(Engine):
    async def expect(
        self,
        account: str,
        campaign: str,
        devices: Collection[str] = (),
        *,
        ends_at: float | None = None,
        cursor: str | None = None,
    ) -> None:
        """Enter a campaign, and devices that are to report; what is known of them, or not given, stays as it is."""

        async def job(db: Session) -> None:
            (number,) = (await campaign_ids(db, {(account, campaign)})).values()
            await db.rows("change_campaign", campaign=number, ends_at=ends_at, cursor=cursor)
            await db.rows("expect_devices", campaign=number, devices=sorted(set(devices)))

        await self._write(job)

    async def ledger_campaigns(
        self, *, name: tuple[str, str] | None = None, after: int = 0, limit: int
    ) -> list[LedgerCampaign]:
        """Campaigns in the ledger by id, above `after`; with a `name`, an account and a campaign, only that one."""
        account, campaign = name or (None, None)
        values = {"account": account, "campaign": campaign, "after": after, "limit": limit}
        return await self._list(LedgerCampaign, "ledger_campaigns", **values)

    async def ledger_devices(
        self,
        campaign: int,
        *,
        among: Collection[str] | None = None,
        kind: str | None = None,
        after: str = "",
        limit: int,
    ) -> tuple[list[LedgerDevice], str | None]:
        """The `limit` devices of a campaign behind `after`, in order, all or these; with a `kind`, those of them that
        ``succeeded``, ``failed`` or are ``silent``. Then the device behind which to go on, None at the end."""
        values = {"campaign": campaign, "among": among, "kind": kind or "", "after": after, "scan": limit}
        found = await self._query("ledger_devices", final=FINAL_RANK, **values)
        fitting = [read(LedgerDevice, row) for row in found if row["fits"]]
        return fitting, found[-1]["device"] if found and len(found) == limit else None

    async def ledger_counts(self, campaign: int) -> list[LedgerCount]:
        return await self._list(LedgerCount, "ledger_counts", campaign=campaign, final=FINAL_RANK)

    async def latest_campaigns(
        self, *, among: Collection[str] | None, campaign: str | None = None, before: int | None = None, limit: int
    ) -> list[LedgerCampaign]:
        """Campaigns of these accounts or of all, newest first: below an id, and by the beginning of their name."""
        values = {"among": among, "campaign": campaign, "before": before or NEWEST, "limit": limit}
        return await self._list(LedgerCampaign, "latest_campaigns", **values)

    async def campaign_reasons(self, campaign: int, *, limit: int) -> list[FailureReason]:
        """Why devices of a campaign failed, the most frequent reason first."""
        values = {"campaign": campaign, "failed": FINAL_RANK, "limit": limit}
        return await self._list(FailureReason, "campaign_reasons", **values)

    async def campaign_timeline(self, campaign: int, *, slots: int) -> list[ResultCounts]:
        """When the devices of a campaign said their last status, in at most so many spans of time."""
        values = {"campaign": campaign, "slots": slots, "final": FINAL_RANK}
        return await self._list(ResultCounts, "campaign_timeline", **values)

    async def find_device(self, device: str, *, among: Collection[str] | None, limit: int) -> list[LedgerReport]:
        """What was last reported of a device in each campaign of these accounts or of all, newest first."""
        return await self._list(LedgerReport, "find_device", device=device, among=among, limit=limit)

    async def reports_of_campaign(
        self, account: str, campaign: str, *, after: str | None = None, limit: int
    ) -> list[LedgerReport]:
        """What was reported of a campaign, first of itself, then of its devices in order; behind a device, if given."""
        values = {"account": account, "campaign": campaign, "after": after, "limit": limit}
        return await self._list(LedgerReport, "reports_of_campaign", **values)

    async def reports_of_device(self, account: str, device: str, *, after: str = "", limit: int) -> list[LedgerReport]:
        """What was reported of a device ('' for the campaigns themselves) in each campaign behind `after`, in order."""
        values = {"account": account, "device": device, "after": after, "limit": limit}
        return await self._list(LedgerReport, "reports_of_device", **values)

    async def overdue_devices(self, seconds: float) -> int:
        """Devices without a result in campaigns that ended within the last `seconds`."""
        (row,) = await self._query("overdue_devices", seconds=seconds, final=FINAL_RANK)
        return int(row["devices"])

    async def forget_reports(self, campaign: int, seconds: float, limit: int) -> bool:
        """Remove up to `limit` statuses from the ledger that are older than `seconds`; whether there may be more."""
        values = {"campaign": campaign, "seconds": seconds, "limit": limit}
        return len(await self._write(lambda db: db.rows("forget_reports", **values))) == limit

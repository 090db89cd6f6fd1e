"""The ledger: the last status of each device in each campaign, kept in the transaction that accepts a message."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from fotahook.contract.life_cycle import place
from fotahook.contract.messages import CallbackMessage, Upgrade

from .records import NewMessage, Note, Report
from .session import ReportRow, Session, to_json

_TEXT_LIMIT: Final = 256
_TOLD: Final = (
    "campaignName",
    "softwareName",
    "distributionType",
    "make",
    "model",
    "softwareFrom",
    "softwareTo",
    "startDate",
    "endDate",
    "downloadAfterDate",
    "installAfterDate",
)
"""What is kept of what a message says of its campaign: those members of CampaignSoftware that are texts."""


def reports_of(message: CallbackMessage, *, detailed: bool) -> tuple[Report, ...]:
    """The statuses that a message reports, of its devices and of its campaign, for the ledger.

    `detailed`: with what else it says, which reports return; a listener spares the space.
    """
    found: list[Report] = []
    for part in (message.upgrade_progress, message.upgrade_scheduled, message.campaign):
        if part is None or (campaign := part.campaign or message.campaign_id) is None:
            continue
        campaign = storable(campaign)
        if part.status:
            found.append(_report(campaign, "", part.status, _told(part) if detailed else None))
        found += [
            _report(
                campaign, storable(device.device_id), device.status, _short(device.result_reason) if detailed else None
            )
            for device in part.device_list
            if device.device_id and device.status
        ]
    if len(found) > 1:
        # Of a device that is named more than once, the latest of the life cycle counts.
        found.sort(key=lambda report: report.rank)
        found = list({(report.campaign, report.device): report for report in found}.values())
    return tuple(found)


def _report(campaign: str, device: str, status: str, detail: str | None) -> Report:
    spelling, rank = place(status)
    return Report(campaign=campaign, device=device, status=storable(spelling), rank=rank, detail=detail)


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
    campaigns = await campaign_ids(
        db, {(message.account, one.campaign) for _, message in messages for one in message.reports}
    )
    rows = [
        (seq, campaigns[message.account, one.campaign], one.device, one.status, one.rank, message.by_report, one.detail)
        for seq, message in messages
        for one in message.reports
    ]
    stale: defaultdict[int, list[str]] = defaultdict(list)
    for part in _without_repetitions(rows):
        for row in await db.record_reports(part):
            stale[row["seq"]].append(row["device"])
    notes = {
        seq: Note(by_report=message.by_report, stale=tuple(stale.get(seq, ())))
        for seq, message in messages
        if message.by_report or seq in stale
    }
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


def _without_repetitions(rows: list[ReportRow]) -> list[list[ReportRow]]:
    """The rows in parts that name each device once, because a statement writes a row once."""
    parts: defaultdict[int, list[ReportRow]] = defaultdict(list)
    times: Counter[tuple[int, str]] = Counter()
    for row in rows:
        parts[times[row[1:3]]].append(row)
        times[row[1:3]] += 1
    return list(parts.values())

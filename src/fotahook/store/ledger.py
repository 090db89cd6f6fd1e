"""The ledger: the last status of each device in each campaign, kept in the transaction that accepts a message."""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence

import msgspec

from .records import NewMessage, Note
from .session import ReportRow, Session


async def record_reports(db: Session, messages: Sequence[tuple[int, NewMessage]]) -> Mapping[int, Note]:
    """Enter what new messages report, in their order; a note for each, by its number, that deserves one."""
    campaigns = await campaign_ids(
        db, {(message.account, one.campaign) for _, message in messages for one in message.reports}
    )
    rows = [
        (seq, campaigns[message.account, one.campaign], one.device, one.status, one.rank, message.by_report)
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
        await db.rows("add_notes", rows=_json([(seq, _json(note)) for seq, note in notes.items()]))
    return notes


async def campaign_ids(db: Session, names: Collection[tuple[str, str]]) -> Mapping[tuple[str, str], int]:
    """The ids of campaigns, by account and name, created where they are missing."""
    found = await db.rows("find_campaigns", names=_json(names))
    if len(found) < len(names):
        await db.rows("add_campaigns", names=_json(sorted(names)))
        found = await db.rows("find_campaigns", names=_json(names))
    return {(row["account"], row["campaign"]): row["id"] for row in found}


def _without_repetitions(rows: list[ReportRow]) -> list[list[ReportRow]]:
    """The rows in parts that name each device once, because a statement writes a row once."""
    if len({row[1:3] for row in rows}) == len(rows):
        return [rows]
    parts: list[list[ReportRow]] = []
    times: Counter[tuple[int, str]] = Counter()
    for row in rows:
        if times[row[1:3]] == len(parts):
            parts.append([])
        parts[times[row[1:3]]].append(row)
        times[row[1:3]] += 1
    return parts


def read_note(note: str | None) -> Note | None:
    """The note of a message as the store has it."""
    return None if note is None else msgspec.json.decode(note, type=Note)


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()

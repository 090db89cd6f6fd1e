"""Reading messages from the PostgreSQL store, one by one or in pages."""

from collections.abc import Sequence

import msgspec

from ..records import SCAN_LIMIT, Delivery, Message, MessageFilter, Page
from ..rows import Row, read_messages
from .connection import Db, rows


async def find_message(db: Db, message_id: str) -> Message | None:
    found = await _messages(db, await rows(db, "message", id=message_id))
    return found[0] if found else None


async def list_messages(db: Db, account: str, matching: MessageFilter, before: int | None, limit: int) -> Page:
    """The matching messages among the newest candidates."""
    statement = f"recent_{matching.state}" if matching.state in ("pending", "dead") else "recent"
    before = (1 << 63) - 1 if before is None else before
    seqs = [row["seq"] for row in await rows(db, statement, account=account, before=before, limit=SCAN_LIMIT)]
    found = await rows(db, "matching", seqs=seqs, limit=limit, **msgspec.structs.asdict(matching))
    more = found[-1]["seq"] if len(found) == limit else seqs[-1] if len(seqs) == SCAN_LIMIT else None
    return Page(messages=tuple(await _messages(db, found)), next=more)


async def _messages(db: Db, found: Sequence[Row]) -> list[Message]:
    return read_messages(found, await rows(db, "delivery_statuses", seqs=[row["seq"] for row in found]))


def read_delivery(row: Row) -> Delivery:
    values = dict(row)
    del values["number"]
    return Delivery(message=values.pop("id"), **values)

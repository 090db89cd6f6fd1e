"""Reading messages, one by one or in pages."""

from collections.abc import Sequence

import msgspec

from .records import SCAN_LIMIT, Message, MessageFilter, Page
from .rows import read_messages
from .session import Row, Session


async def find_message(db: Session, message_id: str) -> Message | None:
    """A message with its deliveries."""
    found = await _messages(db, await db.rows("message", id=message_id))
    return found[0] if found else None


async def list_messages(db: Session, account: str, matching: MessageFilter, before: int | None, limit: int) -> Page:
    """The matching messages among the newest SCAN_LIMIT candidates."""
    # Pending and dead ones have an index, so that a few among many messages are found at once.
    statement = f"recent_{matching.state}" if matching.state in ("pending", "dead") else "recent"
    before = (1 << 63) - 1 if before is None else before
    seqs = [row["seq"] for row in await db.rows(statement, account=account, before=before, limit=SCAN_LIMIT)]
    found = await db.rows("matching", seqs=seqs, limit=limit, **msgspec.structs.asdict(matching))
    more = found[-1]["seq"] if len(found) == limit else seqs[-1] if len(seqs) == SCAN_LIMIT else None
    return Page(messages=tuple(await _messages(db, found)), next=more)


async def _messages(db: Session, found: Sequence[Row]) -> list[Message]:
    return read_messages(found, await db.rows("delivery_statuses", seqs=[row["seq"] for row in found]))

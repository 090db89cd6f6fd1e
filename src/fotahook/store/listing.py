"""Reading messages, one by one or in pages."""

from collections.abc import Sequence
from typing import Final

import msgspec

from .records import SCAN_LIMIT, Message, MessageFilter, Page
from .rows import read_messages
from .session import Row, Session

_NEWEST: Final = (1 << 63) - 1


async def find_message(db: Session, message_id: str) -> Message | None:
    """A message with its deliveries."""
    found = await _messages(db, await db.rows("message", id=message_id))
    return found[0] if found else None


async def list_messages(db: Session, account: str, matching: MessageFilter, before: int | None, limit: int) -> Page:
    """The matching messages among the newest SCAN_LIMIT candidates."""
    # Pending and dead ones have an index, so that a few among many messages are found at once.
    statement = f"recent_{matching.state}" if matching.state in ("pending", "dead") else "recent"
    before = _NEWEST if before is None else before
    looked = await db.rows(statement, account=account, before=before, limit=SCAN_LIMIT)
    seqs = [row["seq"] for row in looked if row["seq"] is not None]
    found = await db.rows("matching", seqs=seqs, limit=limit, **msgspec.structs.asdict(matching))
    more = found[-1]["seq"] if len(found) == limit else looked[-1]["reached"] if len(looked) == SCAN_LIMIT else None
    return Page(messages=tuple(await _messages(db, found)), next=more)


async def account_attempts(db: Session, account: str, messages: int, limit: int) -> Sequence[Row]:
    """The last attempts at an account's newest messages, and at those that wait longest, as for a failing endpoint."""
    newest = await db.rows("recent", account=account, before=_NEWEST, limit=messages)
    oldest = await db.rows("longest_pending", account=account, limit=messages)
    seqs = {row["seq"] for row in (*newest, *oldest) if row["seq"] is not None}
    return await db.rows("account_attempts", seqs=sorted(seqs), limit=limit)


async def _messages(db: Session, found: Sequence[Row]) -> list[Message]:
    return read_messages(found, await db.rows("delivery_statuses", seqs=[row["seq"] for row in found]))

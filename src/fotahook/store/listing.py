"""Reading messages, one by one or in pages."""

from collections.abc import Sequence
from typing import Final

import msgspec

from .ids import first_id
from .records import SCAN_LIMIT, Message, MessageFilter, Page
from .rows import read_messages
from .session import Row, Session

_NEWEST: Final = (1 << 63) - 1
_LAST_ID: Final = "g"
CLOCK_SECONDS: Final = 60.0
"""By which the clock of the process that made an id may differ from the store's."""
SEARCH_STEP: Final = 10_000
"""Numbers of messages that one look of a search goes through."""
SEARCH_EACH: Final = 20
"""Pending or dead messages of a lane that a search looks at."""


async def find_message(db: Session, message_id: str) -> Message | None:
    """A message with its deliveries."""
    found = await _messages(db, await db.rows("message", id=message_id))
    return found[0] if found else None


async def list_messages(db: Session, account: str, matching: MessageFilter, before: int | None, limit: int) -> Page:
    """The matching messages among the newest SCAN_LIMIT candidates."""
    first, before = await _span(db, matching, before)
    # Pending and dead ones have an index, so that a few among many messages are found at once.
    statement = f"recent_{matching.state}" if matching.state in ("pending", "dead") else "recent"
    looked = await db.rows(statement, account=account, before=before, limit=SCAN_LIMIT)
    reached: int = looked[-1]["reached"] if len(looked) == SCAN_LIMIT else first
    return await _page(db, matching, [row["seq"] for row in looked if row["seq"] is not None], reached, first, limit)


async def search_messages(
    db: Session, among: Sequence[str] | None, matching: MessageFilter, before: int | None, limit: int
) -> Page:
    """The matching ones among a bounded number of several accounts' messages: see ``Store.search_messages``."""
    first, end = await _span(db, matching, before)
    values = {"among": among, "before": end, "limit": SCAN_LIMIT}
    if before is None and matching.state in ("pending", "dead"):
        looked = await db.rows(f"newest_{matching.state}", floor=first, each=SEARCH_EACH, **values)
        seqs = [row["seq"] for row in looked]
        page = await _page(db, matching, seqs, first, first, limit)
        if len(page.messages) == limit or len(seqs) < SCAN_LIMIT:
            return msgspec.structs.replace(page, next=None)
        # There are many, and few of them match otherwise: look for these.
    times = {"since": matching.since, "until": matching.until}
    floor = max(first, end - SEARCH_STEP)
    looked = await db.rows("newest", floor=floor, type=matching.type, **times, **values)
    reached: int = looked[-1]["seq"] if len(looked) == SCAN_LIMIT else floor
    return await _page(db, matching, [row["seq"] for row in looked], reached, first, limit)


async def _span(db: Session, matching: MessageFilter, before: int | None) -> tuple[int, int]:
    """The numbers between which messages are of the right time, by their ids; not below `before`, if that is given."""
    since = "" if matching.since is None else first_id(matching.since - CLOCK_SECONDS)
    until = _LAST_ID if matching.until is None else first_id(matching.until + CLOCK_SECONDS)
    (span,) = await db.rows("span", since=since, until=until)
    return span["first"], span["end"] if before is None else min(before, span["end"])


async def _page(
    db: Session, matching: MessageFilter, seqs: Sequence[int], reached: int, first: int, limit: int
) -> Page:
    """The matching ones of these; the next page begins where it was looked last, unless that is the first message."""
    found = await db.rows("matching", seqs=seqs, limit=limit, **msgspec.structs.asdict(matching))
    reached = found[-1]["seq"] if len(found) == limit else reached
    return Page(messages=tuple(await _messages(db, found)), next=reached if reached > first else None)


async def account_attempts(db: Session, account: str, messages: int, limit: int) -> Sequence[Row]:
    """The last attempts at an account's newest messages, and at those that wait longest, as for a failing endpoint."""
    newest = await db.rows("recent", account=account, before=_NEWEST, limit=messages)
    oldest = await db.rows("longest_pending", account=account, limit=messages)
    seqs = {row["seq"] for row in (*newest, *oldest) if row["seq"] is not None}
    return await db.rows("account_attempts", seqs=sorted(seqs), limit=limit)


async def _messages(db: Session, found: Sequence[Row]) -> list[Message]:
    return read_messages(found, await db.rows("delivery_statuses", seqs=[row["seq"] for row in found]))

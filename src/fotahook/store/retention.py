"""Retention: the bodies of old messages are removed in small steps."""

from collections.abc import Sequence
from typing import Final

from .records import Record, Retention
from .redelivery import STEP
from .session import Session


class RetentionCursor(Record, frozen=True, kw_only=True):
    """The message after which the next step begins, and the bytes that are still in excess."""

    accepted_at: float = float("-inf")
    seq: int = 0
    excess: int = 0


BEGINNING: Final = RetentionCursor()


async def find_removable(
    db: Session, retention: Retention, cursor: RetentionCursor
) -> tuple[list[int], RetentionCursor]:
    """Messages after the cursor whose bodies may be removed, and the cursor for the next step."""
    excess = cursor.excess
    if cursor is BEGINNING:
        excess = 0 if retention.bytes is None else await db.value("kept_bytes") - retention.bytes
    seconds = float("inf") if retention.seconds is None else retention.seconds
    found = await db.rows("old_bodies", after=cursor.accepted_at, seq=cursor.seq, seconds=seconds, limit=STEP)
    removable: list[int] = []
    for body in found:
        if not body["is_old"] and excess <= 0:
            # The rest is younger still: begin again from the oldest next time.
            return removable, BEGINNING
        if not body["pending"]:
            removable.append(body["seq"])
            excess -= body["size"]
    if len(found) < STEP:
        return removable, BEGINNING
    return removable, RetentionCursor(accepted_at=found[-1]["accepted_at"], seq=found[-1]["seq"], excess=excess)


async def remove_bodies(db: Session, seqs: Sequence[int]) -> list[int]:
    """Remove the bodies of these messages, except those that became pending again; the sizes of the removed ones."""
    await db.rows("lock_messages", seqs=seqs)
    return [body["size"] for body in await db.rows("prune", seqs=seqs)]

"""Retention in the PostgreSQL store."""

from typing import Final

from ..records import Pruned, Record, Retention
from ..redelivery import STEP
from ..session import Session


class RetentionCursor(Record, frozen=True, kw_only=True):
    """The message after which the next step begins, and the bytes that are still in excess."""

    accepted_at: float = float("-inf")
    seq: int = 0
    excess: int = 0


BEGINNING: Final = RetentionCursor()


async def step_retention(db: Session, retention: Retention, cursor: RetentionCursor) -> tuple[Pruned, RetentionCursor]:
    """Remove some bodies after the cursor; what was removed, and the cursor for the next step."""
    excess = cursor.excess
    if cursor is BEGINNING:
        excess = 0 if retention.bytes is None else await db.value("kept_bytes") - retention.bytes
    seconds = float("inf") if retention.seconds is None else retention.seconds
    found = await db.rows("old_bodies", after=cursor.accepted_at, seq=cursor.seq, seconds=seconds, limit=STEP)
    removable: list[int] = []
    for body in found:
        if not body["is_old"] and excess <= 0:
            # The rest is younger still: begin again from the oldest next time.
            found = []
            break
        if not body["pending"]:
            removable.append(body["seq"])
            excess -= body["size"]
    sizes: list[int] = []
    if removable:
        await db.rows("lock_messages", seqs=removable)
        sizes = [pruned["size"] for pruned in await db.rows("prune", seqs=removable)]
    is_end = len(found) < STEP
    pruned = Pruned(bodies=len(sizes), bytes=sum(sizes), more=bool(removable) or not is_end)
    if is_end:
        return pruned, BEGINNING
    return pruned, RetentionCursor(accepted_at=found[-1]["accepted_at"], seq=found[-1]["seq"], excess=excess)

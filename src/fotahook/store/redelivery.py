"""Redelivery of one message or of many."""

from typing import Final

from .records import Redelivery
from .session import Session

STEP: Final = 200
"""Messages in one step, so that other writes do not wait long."""


async def redeliver(db: Session, message_id: str) -> Redelivery:
    """Send a settled message again."""
    found = await db.row("message", id=message_id)
    if found is None:
        return Redelivery(refused="unknown")
    if await db.redeliver([found["seq"]], None):
        return Redelivery(id=message_id)
    # Read again, now that the message is locked.
    (found,) = await db.rows("message", id=message_id)
    return Redelivery(refused="pruned" if found["body"] is None else "pending")


async def step_redelivery(db: Session) -> bool:
    """Send some messages of the oldest bulk redelivery; False if there is none."""
    request = await db.row("next_redelivery")
    if request is None:
        return False
    seqs = [found["seq"] for found in await db.rows("redeliverable", **request, limit=STEP)]
    await db.redeliver(seqs, request["state"])
    if len(seqs) < STEP:
        await db.rows("end_redelivery", id=request["id"])
    else:
        await db.rows("advance_redelivery", id=request["id"], done=seqs[-1])
    return True

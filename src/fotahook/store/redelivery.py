"""Redelivery of one message or of many."""

from typing import Final

from .records import Redelivery
from .session import Row, Session

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


async def find_redeliverable(db: Session, request: Row, after: int, limit: int) -> tuple[list[int], int | None]:
    """The messages of a bulk redelivery among the next ones after one, and after which to go on; None at the end."""
    looked = await db.rows("following", account=request["account"], after=after, last=request["last"], limit=limit)
    seqs = [row["seq"] for row in looked if row["seq"] is not None]
    wanted = {name: request[name] for name in ("state", "since", "until")}
    found = await db.rows("redeliverable", seqs=seqs, **wanted) if seqs else []
    return [row["seq"] for row in found], looked[-1]["reached"] if len(looked) == limit else None


async def step_redelivery(db: Session) -> bool:
    """Send some messages of the oldest bulk redelivery; False if there is none."""
    request = await db.row("next_redelivery")
    if request is None:
        return False
    seqs, reached = await find_redeliverable(db, request, request["done"], STEP)
    await db.redeliver(seqs, request["state"])
    if reached is None:
        await db.rows("end_redelivery", id=request["id"])
    else:
        await db.rows("advance_redelivery", id=request["id"], done=reached)
    return True

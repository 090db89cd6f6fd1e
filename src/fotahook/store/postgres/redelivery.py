"""Redelivery in the PostgreSQL store, of one message or of many."""

from collections.abc import Sequence
from typing import Final

from ..records import Redelivery
from .connection import Db, row, rows, value
from .lanes import lock_lanes

STEP: Final = 200
"""Messages in one step, so that other writes do not wait long."""


async def redeliver(db: Db, message_id: str) -> Redelivery:
    """Send a settled message again."""
    found = await row(db, "message", id=message_id)
    if found is None:
        return Redelivery(refused="unknown")
    moved = await _redeliver(db, [found["seq"]], None)
    # Read again, now that the message is locked.
    body = (await rows(db, "message", id=message_id))[0]["body"]
    if moved:
        return Redelivery(id=message_id)
    return Redelivery(refused="pruned" if body is None else "pending")


async def step_redelivery(db: Db) -> bool:
    """Send some messages of the oldest bulk redelivery; False if there is none."""
    request = await row(db, "next_redelivery")
    if request is None:
        return False
    seqs = [found["seq"] for found in await rows(db, "redeliverable", **request, limit=STEP)]
    await _redeliver(db, seqs, request["state"])
    if len(seqs) < STEP:
        await rows(db, "end_redelivery", id=request["id"])
    else:
        await rows(db, "advance_redelivery", id=request["id"], done=seqs[-1])
    return True


async def _redeliver(db: Db, seqs: Sequence[int], state: str | None) -> int:
    """Move settled messages' deliveries (in this state, or all) to the tail of their keys; the number of messages."""
    lanes = await rows(db, "lanes_of_messages", seqs=seqs)
    await lock_lanes(db, set(), [lane["lane"] for lane in lanes])
    await rows(db, "lock_messages", seqs=seqs)
    moved: int = await value(db, "redeliver", seqs=seqs, state=state)
    return moved

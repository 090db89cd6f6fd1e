"""What can wait, in small steps, on PostgreSQL: redeliveries of many, and retention."""

from collections.abc import Sequence
from typing import Final

from ..records import Pruned, Record, Retention
from .connection import Db, row, rows, value
from .rows import lock_lanes

STEP: Final = 200
"""Messages in one step, so that no delivery waits long behind it."""


class Pruning(Record, frozen=True, kw_only=True):
    """How far retention has come: behind which message it goes on, and how many bytes are still too many."""

    accepted_at: float = float("-inf")
    seq: int = 0
    excess: int = 0


BEGINNING: Final = Pruning()


async def redeliver_messages(db: Db, seqs: Sequence[int], state: str | None) -> int:
    """Put settled messages' deliveries (in this state, or all) to the tail of their keys; how many messages it were."""
    lanes = await rows(db, "lanes_of_messages", seqs=seqs)
    await lock_lanes(db, set(), [lane["lane"] for lane in lanes])
    await rows(db, "lock_messages", seqs=seqs)
    moved: int = await value(db, "redeliver", seqs=seqs, state=state)
    return moved


async def step_redelivery(db: Db) -> bool:
    """Send some more messages of the oldest wish for many; whether there was such a wish."""
    wish = await row(db, "next_redelivery")
    if wish is None:
        return False
    query = dict(wish)
    wish_id = query.pop("id")
    seqs = [found["seq"] for found in await rows(db, "redeliverable", **query, limit=STEP)]
    await redeliver_messages(db, seqs, query["state"])
    if len(seqs) < STEP:
        await rows(db, "end_redelivery", id=wish_id)
    else:
        await rows(db, "advance_redelivery", id=wish_id, done=seqs[-1])
    return True


async def step_retention(db: Db, retention: Retention, at: Pruning) -> tuple[Pruned, Pruning]:
    """Remove some bodies, going on where the last step ended; what went, and from where to go on."""
    excess = at.excess
    if at is BEGINNING:
        excess = 0 if retention.bytes is None else await value(db, "kept_bytes") - retention.bytes
    seconds = float("inf") if retention.seconds is None else retention.seconds
    found = await rows(db, "old_bodies", after=at.accepted_at, seq=at.seq, seconds=seconds, limit=STEP)
    doomed: list[int] = []
    for body in found:
        if not body["is_old"] and excess <= 0:
            # The rest is younger still: begin again from the oldest next time.
            found = []
            break
        if not body["pending"]:
            doomed.append(body["seq"])
            excess -= body["size"]
    sizes: list[int] = []
    if doomed:
        await rows(db, "lock_messages", seqs=doomed)
        sizes = [pruned["size"] for pruned in await rows(db, "prune", seqs=doomed)]
    is_end = len(found) < STEP
    step = Pruned(bodies=len(sizes), bytes=sum(sizes), more=bool(doomed) or not is_end)
    if is_end:
        return step, BEGINNING
    return step, Pruning(accepted_at=found[-1]["accepted_at"], seq=found[-1]["seq"], excess=excess)

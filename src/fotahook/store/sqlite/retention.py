"""What can wait, in small steps, on SQLite: redeliveries of many, and retention."""

import sqlite3
from collections.abc import Sequence
from typing import Final

from ..records import Pruned, Record, Retention
from .rows import Q, redeliver_one

STEP: Final = 200
"""Messages in one step, so that no delivery waits long behind it."""


class Doomed(Record, frozen=True, kw_only=True):
    """Messages whose bodies may go, behind which message to go on next time, and whether there is more to do now."""

    seqs: Sequence[int]
    after: int
    more: bool


def step_redelivery(db: sqlite3.Connection, now: float) -> bool:
    """Send some more messages of the oldest wish for many; whether there was such a wish."""
    wish = db.execute(Q["next_redelivery"]).fetchone()
    if wish is None:
        return False
    found = db.execute(Q["redeliverable"], wish | {"limit": STEP}).fetchall()
    for row in found:
        redeliver_one(db, row["seq"], wish["state"], now)
    if len(found) < STEP:
        db.execute(Q["end_redelivery"], {"id": wish["id"]})
    else:
        db.execute(Q["advance_redelivery"], {"id": wish["id"], "done": found[-1]["seq"]})
    return True


def choose_bodies(db: sqlite3.Connection, retention: Retention, after: int, now: float) -> Doomed:
    """Bodies for retention to remove, from behind message `after`."""
    over = 0 if retention.bytes is None else db.execute(Q["used_bytes"]).fetchone()["bytes"] - retention.bytes
    before = float("-inf") if retention.seconds is None else now - retention.seconds
    rows = db.execute(Q["old_bodies"], {"after": after, "limit": STEP}).fetchall()
    doomed: list[int] = []
    for row in rows:
        if row["accepted_at"] >= before and over <= 0:
            # The rest is younger still: begin again from the oldest next time.
            return Doomed(seqs=doomed, after=0, more=bool(doomed))
        if not row["pending"]:
            doomed.append(row["seq"])
            over -= row["size"]
    if len(rows) == STEP:
        return Doomed(seqs=doomed, after=rows[-1]["seq"], more=True)
    return Doomed(seqs=doomed, after=0, more=bool(doomed))


def remove_bodies(db: sqlite3.Connection, doomed: Doomed) -> Pruned:
    """Remove them, but for those that wait for delivery again since they were chosen."""
    found = [db.execute(Q["prune"], {"seq": seq}).fetchone() for seq in doomed.seqs]
    sizes = [row["size"] for row in found if row is not None]
    return Pruned(bodies=len(sizes), bytes=sum(sizes), more=doomed.more)

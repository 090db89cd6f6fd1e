"""Retention in the SQLite store."""

import sqlite3
from collections.abc import Sequence

from ..records import Pruned, Record, Retention
from ..redelivery import STEP
from .connection import execute


class Removable(Record, frozen=True, kw_only=True):
    """Messages whose bodies may be removed, the message after which the next step begins, and if there is more now."""

    seqs: Sequence[int]
    after: int
    more: bool


def find_removable(db: sqlite3.Connection, retention: Retention, after: int, now: float) -> Removable:
    """Bodies for retention to remove, of messages after `after`."""
    excess = 0 if retention.bytes is None else execute(db, "used_bytes").fetchone()["bytes"] - retention.bytes
    before = float("-inf") if retention.seconds is None else now - retention.seconds
    found = execute(db, "old_bodies", after=after, limit=STEP).fetchall()
    seqs: list[int] = []
    for body in found:
        if body["accepted_at"] >= before and excess <= 0:
            # The rest is younger still: begin again from the oldest next time.
            return Removable(seqs=seqs, after=0, more=bool(seqs))
        if not body["pending"]:
            seqs.append(body["seq"])
            excess -= body["size"]
    if len(found) == STEP:
        return Removable(seqs=seqs, after=found[-1]["seq"], more=True)
    return Removable(seqs=seqs, after=0, more=bool(seqs))


def remove_bodies(db: sqlite3.Connection, removable: Removable) -> Pruned:
    """Remove these bodies, except those that became pending again since they were found."""
    found = [execute(db, "prune", seq=seq).fetchone() for seq in removable.seqs]
    sizes = [body["size"] for body in found if body is not None]
    return Pruned(bodies=len(sizes), bytes=sum(sizes), more=removable.more)

"""Redelivery in the SQLite store, of one message or of many."""

import sqlite3
from typing import Final

from ..ids import MessageIds
from ..records import Redelivery
from ..rows import copy_of
from .accept import accept_all
from .connection import execute, row, rows, value
from .lanes import recompute_due
from .listing import find_message

STEP: Final = 200
"""Messages in one step, so that other writes do not wait long."""


def redeliver(db: sqlite3.Connection, message_id: str, now: float) -> Redelivery:
    """Send a settled message again."""
    found = row(db, "message", id=message_id)
    if found is None:
        return Redelivery(refused="unknown")
    if found["body"] is None:
        return Redelivery(refused="pruned")
    if value(db, "is_pending", seq=found["seq"]):
        return Redelivery(refused="pending")
    _redeliver(db, found["seq"], None, now)
    return Redelivery(id=message_id)


def redeliver_copy(db: sqlite3.Connection, message_id: str, ids: MessageIds, now: float) -> Redelivery:
    """Accept a message's bytes again under a new id."""
    message = find_message(db, message_id, now)
    if message is None:
        return Redelivery(refused="unknown")
    if message.body is None:
        return Redelivery(refused="pruned")
    [[accepted]] = accept_all(db, [[copy_of(message, message.body)]], ids, now)
    return Redelivery(id=accepted.id)


def step_redelivery(db: sqlite3.Connection, now: float) -> bool:
    """Send some messages of the oldest bulk redelivery; False if there is none."""
    request = row(db, "next_redelivery")
    if request is None:
        return False
    found = rows(db, "redeliverable", **request, limit=STEP)
    for message in found:
        _redeliver(db, message["seq"], request["state"], now)
    if len(found) < STEP:
        execute(db, "end_redelivery", id=request["id"])
    else:
        execute(db, "advance_redelivery", id=request["id"], done=found[-1]["seq"])
    return True


def _redeliver(db: sqlite3.Connection, seq: int, state: str | None, now: float) -> None:
    """Move a settled message's deliveries (in this state, or all) to the tail of their keys."""
    place = value(db, "next_place")
    moved = rows(db, "redeliver", seq=seq, state=state, place=place, now=now)
    recompute_due(db, [delivery["lane"] for delivery in moved])

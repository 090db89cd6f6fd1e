"""Lanes of the PostgreSQL store: locked, and created where they are missing."""

from collections.abc import Collection, Set

from ..rows import Row
from .connection import Db, rows

LaneName = tuple[str, str]
"""An account and a consumer."""


async def lock_lanes(db: Db, names: Set[LaneName], ids: Collection[int] = ()) -> list[Row]:
    """Lock lanes by their names, created where they are missing, and others by their ids."""
    accounts, consumers = [account for account, _ in names], [consumer for _, consumer in names]
    locked = await rows(db, "lock_lanes", accounts=accounts, consumers=consumers, ids=ids)
    if not names <= {(lane["account"], lane["consumer"]) for lane in locked}:
        await rows(db, "add_lanes", accounts=accounts, consumers=consumers)
        locked = await rows(db, "lock_lanes", accounts=accounts, consumers=consumers, ids=ids)
    return locked

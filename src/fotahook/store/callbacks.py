"""Callbacks and their lanes: registered, deregistered, and brought out of backoff."""

from collections.abc import Sequence

from .event_reader import STEP
from .records import CALLBACK_CONSUMER, HISTORY_CHANGES, Callback
from .session import Session


async def register(db: Session, account: str, url: str, actor: str) -> Callback:
    """Register or replace a callback and open its lane."""
    await db.lock_lanes({(account, CALLBACK_CONSUMER)})
    revision = await _add_history(db, account, url, actor)
    (callback,) = await db.rows("put_callback", account=account, url=url, revision=revision)
    await db.rows("open_callback_lane", account=account)
    await end_backoff(db, account, CALLBACK_CONSUMER)
    return Callback(**callback)


async def deregister(db: Session, account: str, actor: str) -> bool:
    """Remove a callback and hold its lane; False if there was none."""
    await db.lock_lanes({(account, CALLBACK_CONSUMER)}, create=False)
    if await db.row("drop_callback", account=account) is None:
        return False
    await _add_history(db, account, None, actor)
    await db.rows("hold_callback_lane", account=account)
    return True


async def end_backoff(db: Session, account: str, consumer: str) -> None:
    """Make the deliveries of a lane due that wait for a failing endpoint."""
    await db.rows("end_backoff", account=account, consumer=consumer)
    await db.rows("recompute_due", account=account, consumer=consumer)


async def wake(db: Session, lanes: Sequence[int], *, whole: bool) -> None:
    """Make lanes due whose endpoint recovered; or `whole`, whatever they wait for and whoever holds their leases."""
    await db.lock_lanes(set(), lanes)
    await db.rows("recall_pending" if whole else "end_backoffs", lanes=lanes)
    await db.rows("recall_lanes" if whole else "wake_lanes", lanes=lanes)


async def _add_history(db: Session, account: str, url: str | None, actor: str) -> int:
    """Record a change of a callback, for which the oldest ones make room; its revision."""
    revision: int = await db.value("add_history", account=account, url=url, actor=actor)
    removed = await db.rows("trim_history", account=account, revision=revision - HISTORY_CHANGES, limit=STEP)
    if removed:
        await db.rows("mark_removed", source="callbacks", number=max(row["number"] for row in removed))
    return revision

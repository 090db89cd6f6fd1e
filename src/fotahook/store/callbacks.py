"""The verbs of a store about callbacks and lanes, alike on every engine."""

from collections.abc import Collection

import msgspec

from fotahook.contract.operator import Limits, StateCounts

from . import records
from .access_verbs import AccessVerbs
from .event_reader import STEP
from .records import CALLBACK_CONSUMER, HISTORY_CHANGES
from .rows import read
from .session import Session


class CallbackVerbs(AccessVerbs):
    """Base of the stores, for what they keep of endpoints."""

    async def register(self, account: str, url: str, *, actor: str) -> records.Callback:
        """Register or replace the account's callback and open its lane; deliveries in backoff become due."""

        async def job(db: Session) -> records.Callback:
            await db.lock_lanes({(account, CALLBACK_CONSUMER)})
            revision = await _add_history(db, account, url, actor)
            (callback,) = await db.rows("put_callback", account=account, url=url, revision=revision)
            await db.rows("open_callback_lane", account=account)
            await _end_backoff(db, account, CALLBACK_CONSUMER)
            return read(records.Callback, callback)

        callback = await self._change(job)
        self._notify()
        return callback

    async def deregister(self, account: str, *, actor: str) -> bool:
        """Remove the account's callback and hold its lane; False if there was none."""

        async def job(db: Session) -> bool:
            await db.lock_lanes({(account, CALLBACK_CONSUMER)}, create=False)
            if await db.row("drop_callback", account=account) is None:
                return False
            await _add_history(db, account, None, actor)
            await db.rows("hold_callback_lane", account=account)
            return True

        return await self._change(job)

    async def callback(self, account: str) -> records.Callback | None:
        """The account's callback, if one is registered."""
        return await self._find(records.Callback, "callback", account=account)

    async def callback_history(self, account: str, limit: int) -> list[records.CallbackChange]:
        """The last changes of an account's callback, newest first."""
        return await self._list(records.CallbackChange, "callback_history", account=account, limit=limit)

    async def lanes(self, account: str) -> list[records.Lane]:
        """The lanes of an account with their backlogs."""
        return await self._list(records.Lane, "lanes", account=account)

    async def accounts(
        self,
        *,
        state: records.AccountState | None = None,
        among: Collection[str] | None = None,
        after: str = "",
        consumer: str = CALLBACK_CONSUMER,
        limit: int,
    ) -> list[records.Account]:
        """Accounts that have a lane to their callback, or another lane, sorted by name and starting after `after`.

        `state` and `among` select by state and by name.
        """
        values = {"state": state, "among": among, "after": after, "consumer": consumer, "limit": limit}
        return await self._list(records.Account, "accounts", **values)

    async def state_counts(
        self, among: Collection[str] | None = None, *, consumer: str = CALLBACK_CONSUMER
    ) -> StateCounts:
        """How many accounts are in each state, of these or of all."""
        return await self._one(StateCounts, "state_counts", among=among, consumer=consumer)

    async def pending_usage(self, account: str, *, after: int, limit: int) -> records.PendingUsage:
        """A look at up to `limit` messages that wait for the account's callback, behind the number `after`."""
        return await self._one(records.PendingUsage, "pending_usage", account=account, after=after, limit=limit)

    async def pause(self, account: str, consumer: str = CALLBACK_CONSUMER) -> None:
        """Stop sending over a lane until it is resumed; everything is kept, and its time to live stands still."""

        async def job(db: Session) -> None:
            await db.lock_lanes({(account, consumer)})
            await db.rows("pause", account=account, consumer=consumer)

        await self._change(job)

    async def resume(self, account: str, consumer: str = CALLBACK_CONSUMER) -> None:
        """Open a paused or waiting lane and reset its health; deliveries in backoff become due."""

        async def job(db: Session) -> None:
            await db.rows("resume", account=account, consumer=consumer)
            await _end_backoff(db, account, consumer)

        await self._change(job)
        self._notify()

    async def limits(self, account: str) -> Limits:
        """The limits that an operator set for the account."""
        return await self._find(Limits, "limits", account=account) or Limits()

    async def quotas(self) -> dict[str, Limits]:
        """The limits of the accounts that have quotas of their own."""
        return {row["account"]: read(Limits, row) for row in await self._query("quotas")}

    async def set_limits(self, account: str, limits: Limits) -> None:
        """Set an account's limits; dispatchers apply them within a turn, services within a second."""
        values = msgspec.structs.asdict(limits)
        await self._change(lambda db: db.rows("set_limits", account=account, **values))

    async def wake_origin(self, origin: str, limit: int) -> int:
        """Make up to `limit` lanes due that wait for a URL of this scheme, host and port; how many there were."""
        return await self._wake(("lanes_of_origin", "end_backoffs", "wake_lanes"), origin=origin, limit=limit)

    async def recall(self, seconds: float, limit: int) -> int:
        """Make up to `limit` lanes due that would be only after so long, with all they hold; how many there were."""
        return await self._wake(("lanes_beyond", "recall_pending", "recall_lanes"), seconds=seconds, limit=limit)

    async def _wake(self, statements: tuple[str, str, str], **values: object) -> int:
        """Make lanes due that the first statement finds, by the others."""
        found_by, *changes = statements

        async def job(db: Session) -> None:
            await db.lock_lanes(set(), lanes)
            for statement in changes:
                await db.rows(statement, lanes=lanes)

        lanes = sorted(row["lane"] for row in await self._query(found_by, **values))
        if lanes:
            await self._write(job)
            self._notify()
        return len(lanes)


async def _end_backoff(db: Session, account: str, consumer: str) -> None:
    """Make the deliveries of a lane due that wait for a failing endpoint."""
    await db.rows("end_backoff", account=account, consumer=consumer)
    await db.rows("recompute_due", account=account, consumer=consumer)


async def _add_history(db: Session, account: str, url: str | None, actor: str) -> int:
    """Record a change of a callback, for which the oldest ones make room; its revision."""
    revision: int = await db.value("add_history", account=account, url=url, actor=actor)
    removed = await db.rows("trim_history", account=account, revision=revision - HISTORY_CHANGES, limit=STEP)
    if removed:
        await db.rows("mark_removed", source="callbacks", number=max(row["number"] for row in removed))
    return revision

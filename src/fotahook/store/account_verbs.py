"""The verbs of a store about accounts, alike on every engine: callbacks, lanes, limits, credentials, audit log."""

import copy
from collections.abc import Collection, Sequence
from typing import Final, Self

from msgspec.structs import asdict

from ..contract.operator import AccountFilter, AccountState, CallbackChange, Limits, RegisteredCallback, StateCounts
from .records import CALLBACK_CONSUMER, AuditEntry, Credential, Lane
from .session import NEWEST, Engine, Session
from .views import Row, read, read_account

HISTORY_CHANGES: Final = 1000
STEP: Final = 1000
"""Rows that retention removes in one step, so that other writes do not wait long."""
_END_BACKOFF: Final = ("end_backoff", "recompute_due")


class AccountVerbs(Engine):
    def audited(self, entry: AuditEntry) -> Self:
        """This store, whose next write records the entry in the audit log, in the same transaction."""
        view = copy.copy(self)
        view._audit = entry
        return view

    async def write_audit(self, entries: Sequence[AuditEntry]) -> list[int]:
        """Add entries to the audit log, or amend the detail of those that have a number; the number of each."""

        async def job(db: Session) -> list[int]:
            for entry in entries:
                if entry.number:
                    await db.rows("amend_audit", number=entry.number, detail=entry.detail)
            return [entry.number or await db.value("add_audit", **asdict(entry)) for entry in entries]

        return await self._write(job)

    async def audit(
        self, *, among: Collection[str] | None = None, before: int | None = None, limit: int
    ) -> list[AuditEntry]:
        """The audit log, newest first, below a number; `among` restricts it to entries about these accounts."""
        return await self._list(AuditEntry, "audit", among=among, before=before or NEWEST, limit=limit)

    async def save_credential(self, credential: Credential) -> None:
        """Insert a credential, or replace the one of its kind and id."""
        await self._change(lambda db: db.run("drop_expired_credentials", "save_credential", **asdict(credential)))

    async def replace_credential(self, old: Credential, new: Credential) -> bool:
        """Replace `old` by `new`, of the same kind and id; False, writing nothing, if `old` is not what is stored."""

        async def job(db: Session) -> bool:
            found = await db.row("lock_credential", kind=old.kind, id=old.id)
            if found is None or read(Credential, found) != old:
                return False
            await db.rows("save_credential", **asdict(new))
            return True

        return await self._change(job)

    async def credential(self, kind: str, credential_id: str) -> Credential | None:
        return await self._find(Credential, "credential", kind=kind, id=credential_id)

    async def credentials(self, kind: str, owner: str) -> list[Credential]:
        return await self._list(Credential, "credentials", kind=kind, owner=owner)

    async def drop_credentials(self, kind: str, ids: Collection[str]) -> None:
        await self._change(lambda db: db.rows("drop_credentials", kind=kind, ids=ids))

    async def register(self, account: str, url: str, *, actor: str) -> RegisteredCallback:
        """Register or replace the account's callback and open its lane; deliveries in backoff become due."""

        async def job(db: Session) -> RegisteredCallback:
            await db.lock_lanes({(account, CALLBACK_CONSUMER)})
            revision = await _add_history(db, account, url, actor)
            (callback,) = await db.rows("put_callback", account=account, url=url, revision=revision)
            await db.run("open_callback_lane", *_END_BACKOFF, account=account, consumer=CALLBACK_CONSUMER)
            return read(RegisteredCallback, callback)

        return await self._change(job, wakes=True)

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

    async def callback(self, account: str) -> RegisteredCallback | None:
        return await self._find(RegisteredCallback, "callback", account=account)

    async def callback_history(self, account: str, limit: int) -> list[CallbackChange]:
        return await self._list(CallbackChange, "callback_history", account=account, limit=limit)

    async def lanes(self, account: str) -> list[Lane]:
        return await self._list(Lane, "lanes", account=account)

    async def accounts(
        self,
        *,
        state: AccountFilter | None = None,
        among: Collection[str] | None = None,
        after: str = "",
        consumer: str = CALLBACK_CONSUMER,
        limit: int,
    ) -> list[AccountState]:
        """Accounts that have a lane to their callback, or to another consumer, by name, behind `after`."""
        values = {"state": state, "among": among, "after": after, "consumer": consumer, "limit": limit}
        return [read_account(row) for row in await self._query("accounts", **values)]

    async def state_counts(
        self, among: Collection[str] | None = None, *, consumer: str = CALLBACK_CONSUMER
    ) -> StateCounts:
        """How many accounts are in each state, of these or of all."""
        return read(StateCounts, *await self._query("state_counts", among=among, consumer=consumer))

    async def pending_usage(self, account: str, *, after: int, limit: int) -> tuple[int, int, int]:
        """How many of up to `limit` messages wait for the callback behind a number, their bytes, and the last one."""
        (row,) = await self._query("pending_usage", account=account, after=after, limit=limit)
        return row["messages"], row["bytes"], row["last"]

    async def pause(self, account: str, consumer: str = CALLBACK_CONSUMER) -> None:
        """Stop sending over a lane until it is resumed; everything is kept, and its time to live stands still."""

        async def job(db: Session) -> None:
            await db.lock_lanes({(account, consumer)})
            await db.rows("pause", account=account, consumer=consumer)

        await self._change(job)

    async def resume(self, account: str, consumer: str = CALLBACK_CONSUMER) -> None:
        """Open a paused or waiting lane and reset its health; deliveries in backoff become due."""
        await self._change(lambda db: db.run("resume", *_END_BACKOFF, account=account, consumer=consumer), wakes=True)

    async def limits(self, account: str) -> Limits:
        """The limits that an operator set for the account."""
        return await self._find(Limits, "limits", account=account) or Limits()

    async def quotas(self) -> dict[str, Limits]:
        """The limits of the accounts that have quotas of their own."""
        return {row["account"]: read(Limits, row) for row in await self._query("quotas")}

    async def set_limits(self, account: str, limits: Limits) -> None:
        """Set an account's limits; dispatchers apply them within a turn, services within a second."""
        await self._change(lambda db: db.rows("set_limits", account=account, **asdict(limits)))

    async def wake_origin(self, origin: str, limit: int) -> int:
        """Make up to `limit` lanes due that wait for a URL of this scheme, host and port; how many there were."""
        found = await self._query("lanes_of_origin", origin=origin, limit=limit)
        return await self._wake(found, "end_backoffs", "wake_lanes")

    async def recall(self, seconds: float, *, resting: bool = False) -> int:
        """Make lanes due that would be only after so long, with all they hold; how many there were. `resting`: whatever
        any lane has further ahead, even if nothing waits in it or it is paused, becomes now."""
        recalled, last, find = 0, 0, "lanes_ahead" if resting else "lanes_beyond"
        while lanes := await self._query(find, seconds=seconds, after=last, limit=STEP):
            last = lanes[-1]["lane"]
            recalled += await self._wake([lane for lane in lanes if lane["ahead"]], "recall_pending", "recall_lanes")
        return recalled

    async def _wake(self, found: Sequence[Row], *changes: str) -> int:
        async def job(db: Session) -> None:
            await db.lock_lanes(set(), lanes)
            await db.run(*changes, lanes=lanes)

        if lanes := sorted(row["lane"] for row in found):
            await self._change(job, wakes=True)
        return len(lanes)


async def _add_history(db: Session, account: str, url: str | None, actor: str) -> int:
    """Record a change of a callback, for which the oldest ones make room; its revision."""
    revision: int = await db.value("add_history", account=account, url=url, actor=actor)
    removed = await db.rows("trim_history", account=account, revision=revision - HISTORY_CHANGES, limit=STEP)
    if removed:
        await db.rows("mark_removed", source="callbacks", number=max(row["number"] for row in removed))
    return revision

"""The verbs that are alike on every engine, over the sessions that each engine makes."""

import asyncio
import contextlib
import copy
import secrets
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from functools import partial
from time import monotonic
from typing import Final, TypeVar, cast

import msgspec

from . import callbacks, records
from .base import AskForLeases, Receive, Store
from .event_reader import read_events, read_stats, thin_out
from .events import Backlog, EventCursor, EventPage, Stats
from .handing import Handing
from .ledger_verbs import LedgerVerbs
from .listing import account_attempts, find_message, list_messages
from .records import CALLBACK_CONSUMER
from .redelivery import find_redeliverable, redeliver, step_redelivery
from .retention import Sweep, find_removable, remove
from .rows import copy_of, read_account, read_attempt, read_credential, read_lane, read_recent_attempt
from .session import Row, Session
from .transaction import Transaction

T = TypeVar("T")

RECENT_MESSAGES: Final = 200
"""The newest messages of an account, and those that wait longest, whose attempts are looked at."""
MEASURE_SHARE: Final = 20.0
"""A store is measured no sooner than after so many times the time that it took."""
_NEWEST: Final = 2**62
"""Above the number of any audit entry."""


class SqlStore(LedgerVerbs):
    """Base of the stores. `_work` is set when a lane may have become due."""

    def __init__(self) -> None:
        self._work = asyncio.Event()
        self._sweeps: Mapping[str, Sweep] = {}
        self._excess_bytes = self._merged_minute = 0
        self._measure_at = 0.0
        self._audit: records.AuditEntry | None = None
        self._request: AskForLeases = lambda: None
        self._receive: Receive = lambda handed: None

    def transaction(self, delivery: records.Delivery) -> Transaction | None:
        return None

    def hand_over(self, request: AskForLeases, receive: Receive) -> None:
        self._request, self._receive = request, receive

    def _deal_out(self, handing: Handing) -> None:
        """After a transaction that accepted: hand over what it collected, and wake dispatchers for the rest."""
        if handed := handing.result():
            self._receive(handed)
        if not handing.complete:
            self._notify()

    @abstractmethod
    async def _find(self, statement: str, **values: object) -> Row | None:
        """The row that a single statement finds by its primary key."""

    @abstractmethod
    async def _read(self, job: Callable[[Session], Awaitable[T]]) -> T:
        """Return what `job` returns; all its statements see one state of the store."""

    @abstractmethod
    async def _look(self, job: Callable[[Session], Awaitable[T]]) -> T:
        """The same for a job that looks through much: such jobs take turns, and no other read waits for them."""

    @abstractmethod
    async def now(self) -> float: ...

    @abstractmethod
    def _notify(self) -> None:
        """Wake the dispatchers of this store: a lane may have become due."""

    @abstractmethod
    async def accept(self, messages: Sequence[records.NewMessage]) -> list[records.Accepted]: ...

    async def check(self) -> None:
        async def job(db: Session) -> None:
            # Of its own, so that checks of several processes do not wait for one another.
            own_id = secrets.token_hex(8)
            await db.rows("take_room", id=own_id)
            await db.rows("give_room_back", id=own_id)

        await self._write(job)

    async def pending_usage(self, account: str, *, after: int, limit: int) -> records.PendingUsage:
        (row,) = await self._query("pending_usage", account=account, after=after, limit=limit)
        return records.PendingUsage(**row)

    # The audit log

    def audited(self, entry: records.AuditEntry) -> Store:
        view = copy.copy(self)
        view._audit = entry
        return cast("Store", view)

    async def _change(self, job: Callable[[Session], Awaitable[T]]) -> T:
        """As ``_write``, with the audit entry of this view unless nothing was changed."""

        async def audited(db: Session) -> T:
            result = await job(db)
            refused = isinstance(result, records.Redelivery) and result.refused is not None
            if self._audit is not None and result is not False and not refused:
                await db.rows("add_audit", **msgspec.structs.asdict(self._audit))
            return result

        return await self._write(audited)

    async def audit(
        self, *, among: Collection[str] | None = None, before: int | None = None, limit: int
    ) -> list[records.AuditEntry]:
        names, before = None if among is None else list(among), _NEWEST if before is None else before
        found = await self._query("audit", among=names, before=before, limit=limit)
        return [records.AuditEntry(**row) for row in found]

    # Callbacks and lanes

    async def register(self, account: str, url: str, *, actor: str) -> records.Callback:
        callback = await self._change(lambda db: callbacks.register(db, account, url, actor))
        self._notify()
        return callback

    async def deregister(self, account: str, *, actor: str) -> bool:
        return await self._change(lambda db: callbacks.deregister(db, account, actor))

    async def callback(self, account: str) -> records.Callback | None:
        row = await self._find("callback", account=account)
        return records.Callback(**row) if row else None

    async def callback_history(self, account: str, limit: int) -> list[records.CallbackChange]:
        changes = await self._query("callback_history", account=account, limit=limit)
        return [records.CallbackChange(**row) for row in changes]

    async def lanes(self, account: str) -> list[records.Lane]:
        return [read_lane(row) for row in await self._query("lanes", account=account)]

    async def accounts(
        self,
        *,
        state: records.AccountState | None = None,
        among: Collection[str] | None = None,
        after: str = "",
        limit: int,
    ) -> list[records.Account]:
        names = None if among is None else list(among)
        found = await self._query("accounts", state=state, among=names, after=after, limit=limit)
        return [read_account(row) for row in found]

    async def state_counts(self, among: Collection[str] | None = None) -> records.StateCounts:
        (row,) = await self._query("state_counts", among=None if among is None else list(among))
        return records.StateCounts(**row)

    async def pause(self, account: str, consumer: str = CALLBACK_CONSUMER) -> None:
        async def job(db: Session) -> None:
            await db.lock_lanes({(account, consumer)})
            await db.rows("pause", account=account, consumer=consumer)

        await self._change(job)

    async def resume(self, account: str, consumer: str = CALLBACK_CONSUMER) -> None:
        async def job(db: Session) -> None:
            await db.rows("resume", account=account, consumer=consumer)
            await callbacks.end_backoff(db, account, consumer)

        await self._change(job)
        self._notify()

    async def limits(self, account: str) -> records.Limits:
        row = await self._find("limits", account=account)
        return records.Limits(**row) if row else records.Limits()

    async def set_limits(self, account: str, limits: records.Limits) -> None:
        values = msgspec.structs.asdict(limits)
        await self._change(lambda db: db.rows("set_limits", account=account, **values))

    # Messages and events

    async def message(self, message_id: str) -> records.Message | None:
        if "\0" in message_id:
            # PostgreSQL takes no such text.
            return None
        return await self._read(lambda db: find_message(db, message_id))

    async def attempts(self, message_id: str) -> list[records.Attempt]:
        return [read_attempt(row) for row in await self._query("attempts", id=message_id)]

    async def recent_attempts(self, account: str | None, *, limit: int) -> list[records.RecentAttempt]:
        if account is None:
            found = await self._query("recent_attempts", limit=limit)
        else:
            found = await self._look(lambda db: account_attempts(db, account, RECENT_MESSAGES, limit))
        return [read_recent_attempt(row) for row in found]

    async def messages(
        self, account: str, matching: records.MessageFilter, *, before: int | None = None, limit: int
    ) -> records.Page:
        return await self._look(lambda db: list_messages(db, account, matching, before, limit))

    async def events(self, after: EventCursor | None, *, limit: int) -> EventPage:
        async def visible(present: EventCursor) -> EventCursor:
            return present

        return await self._read(lambda db: read_events(db, after, limit, visible))

    async def stats(self, minutes: int, *, among: Collection[str] | None = None) -> Stats:
        return await self._look(lambda db: read_stats(db, minutes, among))

    async def backlog(self) -> Backlog:
        (row,) = await self._look(lambda db: db.rows("backlog"))
        return Backlog(**row)

    # Redelivery and retention

    async def redeliver(self, message_id: str, *, as_new: bool = False) -> records.Redelivery:
        if as_new:
            return await self._redeliver_copy(message_id)
        redelivery = await self._change(lambda db: redeliver(db, message_id))
        self._notify()
        return redelivery

    async def _redeliver_copy(self, message_id: str) -> records.Redelivery:
        message = await self.message(message_id)
        if message is None:
            return records.Redelivery(refused="unknown")
        if message.body is None:
            return records.Redelivery(refused="pruned")
        await self._change(lambda db: db.rows("write_nothing"))
        (accepted,) = await self.accept([copy_of(message, message.body)])
        return records.Redelivery(id=accepted.id)

    async def redeliver_all(
        self, account: str, state: records.DeliveryState, *, since: float, until: float, dry_run: bool = False
    ) -> int:
        (last,) = await self._query("last_message")
        request = {"account": account, "state": state, "since": since, "until": until, "last": last["seq"]}
        count = 0
        after: int | None = 0
        while after is not None:
            # Each look is short, so that other reads get their turn in between.
            find = partial(find_redeliverable, request=request, after=after, limit=records.SCAN_LIMIT)
            found, after = await self._look(find)
            count += len(found)
        if count and not dry_run:
            await self._change(lambda db: db.rows("add_redelivery", **request))
        return count

    async def tidy(self, retention: records.Retention, *, now: float | None = None) -> bool:
        if await self._write(step_redelivery):
            self._notify()
            return True
        time = await self.now() if now is None else now
        thinning, self._merged_minute = await self._write(lambda db: thin_out(db, self._merged_minute, time))
        return (await self.prune(retention, now=time)).more or thinning

    async def prune(self, retention: records.Retention, *, now: float | None = None) -> records.Pruned:
        time = await self.now() if now is None else now
        # Found outside of a write transaction, so that no delivery waits for it.
        excess = await self._excess(retention)
        found = await self._look(lambda db: find_removable(db, retention, self._sweeps, excess, time))
        removable = any(sweep.numbers for sweep in found.values())
        sizes = await self._write(lambda db: remove(db, found)) if removable else []
        self._sweeps = found
        more = removable or any(sweep.after for sweep in found.values())
        return records.Pruned(bodies=len(sizes), bytes=sum(sizes), more=more)

    async def _excess(self, retention: records.Retention) -> int:
        """Bytes above the store's limit. Large stores, in which it takes long, are measured seldom."""
        began = monotonic()
        if retention.bytes is None or (began < self._measure_at and self._excess_bytes <= 0):
            return 0
        kept: int = await self._look(lambda db: db.value("kept_bytes"))
        self._excess_bytes = kept - retention.bytes
        self._measure_at = began + MEASURE_SHARE * (monotonic() - began)
        return self._excess_bytes

    # Dispatching

    async def wake_origin(self, origin: str, limit: int) -> int:
        async def job(db: Session) -> None:
            await db.lock_lanes(set(), lanes)
            await db.rows("end_backoffs", lanes=lanes)
            await db.rows("wake_lanes", lanes=lanes)

        lanes = sorted(row["lane"] for row in await self._query("lanes_of_origin", origin=origin, limit=limit))
        if lanes:
            await self._write(job)
            self._notify()
        return len(lanes)

    def _due_since(self) -> float:
        """A time before which no lane is due."""
        return float("-inf")

    async def due_in(self) -> float | None:
        (row,) = await self._query("due_in", since=self._due_since())
        return None if row["due_in"] is None else max(0.0, row["due_in"])

    async def wait(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._work.wait()
        self._work.clear()

    # Credentials

    async def save_credential(self, credential: records.Credential) -> None:
        async def job(db: Session) -> None:
            await db.rows("drop_expired_credentials", kind=credential.kind)
            await db.rows("save_credential", **msgspec.structs.asdict(credential))

        await self._change(job)

    async def replace_credential(self, old: records.Credential, new: records.Credential) -> bool:
        async def job(db: Session) -> bool:
            found = await db.row("lock_credential", kind=old.kind, id=old.id)
            if found is None or read_credential(found) != old:
                return False
            await db.rows("save_credential", **msgspec.structs.asdict(new))
            return True

        return await self._change(job)

    async def credential(self, kind: str, credential_id: str) -> records.Credential | None:
        row = await self._find("credential", kind=kind, id=credential_id)
        return read_credential(row) if row else None

    async def credentials(self, kind: str, owner: str) -> list[records.Credential]:
        return [read_credential(row) for row in await self._query("credentials", kind=kind, owner=owner)]

    async def drop_credentials(self, kind: str, ids: Collection[str]) -> None:
        await self._change(lambda db: db.rows("drop_credentials", kind=kind, ids=list(ids)))

"""The Store: domain verbs over the records of records.py and events.py.

What is alike on every engine is here, in ledger_verbs.py and in access_verbs.py, over the sessions that each engine
makes. A store is whatever passes ``tests/store``. Durations given to a verb are seconds from the moment the store
writes them, so that only one clock is ever compared.
"""

import asyncio
import contextlib
import secrets
from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from time import monotonic
from typing import Final, TypeVar

import msgspec

from . import callbacks, records
from .access_verbs import AccessVerbs
from .event_reader import read_events, read_stats, thin_out
from .events import Backlog, EventCursor, EventPage, StateCounts, Stats
from .handing import Handing
from .ledger_verbs import LedgerVerbs
from .listing import account_attempts, find_message, list_messages, search_messages
from .records import CALLBACK_CONSUMER
from .redelivery import find_redeliverable, redeliver, step_redelivery
from .retention import Sweep, find_removable, remove
from .rows import copy_of, read, read_account, read_attempt, read_lane, read_recent_attempt
from .session import Session
from .transaction import Transaction

T = TypeVar("T")
Clock = Callable[[], float]
AskForLeases = Callable[[], records.LeaseRequest | None]
Receive = Callable[[Sequence[records.HandOver]], None]

RECENT_MESSAGES: Final = 200
"""The newest messages of an account, and those that wait longest, whose attempts are looked at."""
MEASURE_SHARE: Final = 20.0
"""A store is measured no sooner than after so many times the time that it took."""


class Store(LedgerVerbs, AccessVerbs):
    """Keeps callbacks, messages and deliveries. Every verb is one transaction; a write returns once it is on disk.

    Every verb may raise StoreUnavailable; a verb that adds rows may raise StoreFull.
    """

    def __init__(self) -> None:
        super().__init__()
        self._work = asyncio.Event()
        """Set when a lane may have become due."""
        self._sweeps: Mapping[str, Sweep] = {}
        self._excess_bytes = self._merged_minute = 0
        self._measure_at = 0.0
        self._request: AskForLeases = lambda: None
        self._receive: Receive = lambda handed: None

    def transaction(self, delivery: records.Delivery) -> Transaction | None:
        """A transaction for the writes of a delivery's handlers, with which it counts as handled; None on SQLite."""
        return None

    def hand_over(self, request: AskForLeases, receive: Receive) -> None:
        """Hand new deliveries to a dispatcher of this process, without a lease and a fetch of their own.

        Each ``accept`` calls `request`. Unless it returns None, the same transaction leases lanes that were idle: open,
        neither leased nor waiting, with nothing pending. After the commit, and before ``accept`` returns, `receive` is
        called with what is new in these lanes and in leased ones. Handing over is a short way only: whatever is not
        taken is fetched, at the latest when the lease has ended.
        """
        self._request, self._receive = request, receive

    def _deal_out(self, handing: Handing) -> None:
        """After a transaction that accepted: hand over what it collected, and wake dispatchers for the rest."""
        if handed := handing.result():
            self._receive(handed)
        if not handing.complete:
            self._notify()

    @abstractmethod
    async def close(self) -> None:
        """Finish pending writes and release the files or connections."""

    @abstractmethod
    async def now(self) -> float:
        """A reading of the store's clock."""

    @abstractmethod
    def _notify(self) -> None:
        """Wake the dispatchers of this store: a lane may have become due."""

    @abstractmethod
    async def accept(self, messages: Sequence[records.NewMessage]) -> list[records.Accepted]:
        """Store messages with their deliveries and make the lanes due; a result for each message, in order."""

    async def check(self) -> None:
        """Raise a StoreError unless the store can be read and written and has this version's schema."""

        async def job(db: Session) -> None:
            # Of its own, so that checks of several processes do not wait for one another.
            own_id = secrets.token_hex(8)
            await db.rows("take_room", id=own_id)
            await db.rows("give_room_back", id=own_id)

        await self._write(job)

    async def pending_usage(self, account: str, *, after: int, limit: int) -> records.PendingUsage:
        """A look at up to `limit` messages that wait for the account's callback, behind the number `after`."""
        (row,) = await self._query("pending_usage", account=account, after=after, limit=limit)
        return records.PendingUsage(**row)

    # Callbacks and lanes

    async def register(self, account: str, url: str, *, actor: str) -> records.Callback:
        """Register or replace the account's callback and open its lane; deliveries in backoff become due."""
        callback = await self._change(lambda db: callbacks.register(db, account, url, actor))
        self._notify()
        return callback

    async def deregister(self, account: str, *, actor: str) -> bool:
        """Remove the account's callback and hold its lane; False if there was none."""
        return await self._change(lambda db: callbacks.deregister(db, account, actor))

    async def callback(self, account: str) -> records.Callback | None:
        """The account's callback, if one is registered."""
        row = await self._find("callback", account=account)
        return records.Callback(**row) if row else None

    async def callback_history(self, account: str, limit: int) -> list[records.CallbackChange]:
        """The last changes of an account's callback, newest first."""
        changes = await self._query("callback_history", account=account, limit=limit)
        return [records.CallbackChange(**row) for row in changes]

    async def lanes(self, account: str) -> list[records.Lane]:
        """The lanes of an account with their backlogs."""
        return [read_lane(row) for row in await self._query("lanes", account=account)]

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
        names = None if among is None else list(among)
        found = await self._query("accounts", state=state, among=names, after=after, consumer=consumer, limit=limit)
        return [read_account(row) for row in found]

    async def state_counts(
        self, among: Collection[str] | None = None, *, consumer: str = CALLBACK_CONSUMER
    ) -> StateCounts:
        """How many accounts are in each state, of these or of all."""
        (row,) = await self._query("state_counts", among=None if among is None else list(among), consumer=consumer)
        return StateCounts(**row)

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
            await callbacks.end_backoff(db, account, consumer)

        await self._change(job)
        self._notify()

    async def limits(self, account: str) -> records.Limits:
        """The limits that an operator set for the account."""
        row = await self._find("limits", account=account)
        return records.Limits(**row) if row else records.Limits()

    async def quotas(self) -> dict[str, records.Limits]:
        """The limits of the accounts that have quotas of their own."""
        return {row["account"]: read(records.Limits, row) for row in await self._query("quotas")}

    async def set_limits(self, account: str, limits: records.Limits) -> None:
        """Set an account's limits; dispatchers apply them within a turn, services within a second."""
        values = msgspec.structs.asdict(limits)
        await self._change(lambda db: db.rows("set_limits", account=account, **values))

    # Messages and events

    async def message(self, message_id: str) -> records.Message | None:
        """One message with the status of its deliveries."""
        if "\0" in message_id:
            # PostgreSQL takes no such text.
            return None
        return await self._read(lambda db: find_message(db, message_id))

    async def known(self, account: str, key: str, digest: bytes) -> records.Accepted | None:
        """What accepting bytes with this hash comes to, if an earlier message has the idempotency key."""
        row = await self._find("known_message", account=account, key=key)
        if row is None:
            return None
        return records.Accepted(id=row["id"], duplicate=True, conflict=row["sha256"] != digest)

    async def attempts(self, message_id: str) -> list[records.Attempt]:
        """Every attempt at a message, oldest first."""
        return [read_attempt(row) for row in await self._query("attempts", id=message_id)]

    async def recent_attempts(self, account: str | None, *, limit: int) -> list[records.RecentAttempt]:
        """The last attempts, newest first: of all accounts, or at the newest and longest waiting messages of one."""
        if account is None:
            found = await self._query("recent_attempts", limit=limit)
        else:
            found = await self._look(lambda db: account_attempts(db, account, RECENT_MESSAGES, limit))
        return [read_recent_attempt(row) for row in found]

    async def messages(
        self, account: str, matching: records.MessageFilter, *, before: int | None = None, limit: int
    ) -> records.Page:
        """An account's messages, newest first, without their bodies; `before` is the `next` of the last page."""
        return await self._look(lambda db: list_messages(db, account, matching, before, limit))

    async def search_messages(
        self, matching: records.MessageFilter, *, among: Collection[str] | None, before: int | None = None, limit: int
    ) -> records.Page:
        """A look at the newest messages of some accounts, or of all, for those that match; as ``messages`` else.

        It goes through a bounded number of messages. Of pending and dead ones, it sees the newest of each account.
        """
        names = None if among is None else list(among)
        return await self._look(lambda db: search_messages(db, names, matching, before, limit))

    async def events(self, after: EventCursor | None, *, limit: int) -> EventPage:
        """Events after a cursor, up to `limit` of each source; for None, no events and a cursor at the present.

        An event appears once every earlier event of its source is visible.
        """

        async def visible(present: EventCursor) -> EventCursor:
            return present

        return await self._read(lambda db: read_events(db, after, limit, visible))

    async def stats(self, minutes: int, *, among: Collection[str] | None = None) -> Stats:
        """Counts for the last minutes, the current one included, of these accounts or of all."""
        return await self._look(lambda db: read_stats(db, minutes, among))

    async def backlog(self) -> Backlog:
        """Undelivered messages of the whole store."""
        (row,) = await self._look(lambda db: db.rows("backlog"))
        return Backlog(**row)

    # Redelivery and retention

    async def redeliver(self, message_id: str, *, as_new: bool = False) -> records.Redelivery:
        """Send a settled message again: at the tail of its key, with fresh attempts and time to live.

        It keeps its id, so that receivers recognize it; with `as_new` a copy is accepted under a new id.
        """
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
        """Count the settled messages accepted in a time span and in a state; unless `dry_run`, send them again.

        The request is on disk when this returns; ``tidy`` carries it out in small steps, after a restart too.
        """
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
        """One small step of maintenance: bulk redeliveries, then retention. True if there is more to do now.

        Ages are taken at `now`: a reading of the store's clock that the caller believes, or -inf, at which nothing is
        old. By default the clock is read.
        """
        if await self._write(step_redelivery):
            self._notify()
            return True
        time = await self.now() if now is None else now
        thinning, self._merged_minute = await self._write(lambda db: thin_out(db, self._merged_minute, time))
        return (await self.prune(retention, now=time)).more or thinning

    async def prune(self, retention: records.Retention, *, now: float | None = None) -> records.Pruned:
        """One small step of retention alone."""
        time = await self.now() if now is None else now
        # Found outside of a write transaction, so that no delivery waits for it.
        excess = await self._excess(retention)
        if (dropped := await self._drop_day(retention, excess, time)) is not None:
            return dropped
        found = await self._look(lambda db: find_removable(db, retention, self._sweeps, excess, time))
        removable = any(sweep.numbers for sweep in found.values())
        sizes = await self._write(lambda db: remove(db, found)) if removable else []
        self._sweeps = found
        more = removable or any(sweep.after for sweep in found.values())
        return records.Pruned(bodies=len(sizes), bytes=sum(sizes), more=more)

    async def _drop_day(self, retention: records.Retention, excess: int, now: float) -> records.Pruned | None:
        """Remove much at once, where a store can; None if there is nothing left for it."""
        return None

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
        """Make up to `limit` lanes due that wait for a URL of this scheme, host and port; how many there were."""
        return await self._wake("lanes_of_origin", origin=origin, limit=limit)

    async def recall(self, seconds: float, limit: int) -> int:
        """Make up to `limit` lanes due that would be only after so long, with all they hold; how many there were."""
        return await self._wake("lanes_beyond", seconds=seconds, limit=limit)

    async def _wake(self, found_by: str, **values: object) -> int:
        lanes = sorted(row["lane"] for row in await self._query(found_by, **values))
        if lanes:
            await self._write(lambda db: callbacks.wake(db, lanes, whole=found_by == "lanes_beyond"))
            self._notify()
        return len(lanes)

    @abstractmethod
    async def lease(self, limit: int, seconds: float) -> list[records.Lease]:
        """Lease up to `limit` due lanes for `seconds`, longest overdue first."""

    @abstractmethod
    async def fetch(
        self,
        lease: records.Lease,
        limit: int,
        *,
        without: Collection[int] = (),
        max_bytes: int = records.FETCH_BYTES,
    ) -> list[records.Delivery]:
        """The due deliveries of a leased lane, earliest first; of each ordering key at most the first.

        `without`: the numbers (`seq`) of deliveries already in flight. The first comes whatever its size, others while
        those before them have no more than `max_bytes`.
        """

    @abstractmethod
    async def settle(
        self,
        lease: records.Lease,
        settlements: Sequence[records.Settlement],
        verdict: records.LaneVerdict,
        *,
        keep: float,
    ) -> records.Lease | None:
        """Write outcomes and the lane's verdict, and keep the lease for `keep` more seconds (0 gives it back).

        Returns the lease with its callback and keys read afresh; None if it was given back, or lost to another
        dispatcher, in which case nothing was written. If the callback changed since `lease` was read, the outcomes
        count and the verdict, which is about the old endpoint, does not.
        """

    def _due_since(self) -> float:
        """A time before which no lane is due."""
        return float("-inf")

    async def due_in(self) -> float | None:
        """Seconds until a lane can be leased; None if no lane has anything to send."""
        (row,) = await self._query("due_in", since=self._due_since())
        return None if row["due_in"] is None else max(0.0, row["due_in"])

    async def wait(self, seconds: float) -> None:
        """Return at a hint that a lane may have become due, or after `seconds`. Hints may be lost: poll as well."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._work.wait()
        self._work.clear()

"""The embedded store: one SQLite file in WAL mode, every commit synced, one dispatcher per file."""

import asyncio
import contextlib
import os
import sqlite3
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import msgspec

from ..base import Clock
from ..events import Backlog, EventCursor, EventPage, Stats
from ..ids import MessageIds
from ..records import (
    CALLBACK_CONSUMER,
    Accepted,
    Account,
    AccountState,
    Attempt,
    Callback,
    CallbackChange,
    Credential,
    Delivery,
    DeliveryState,
    Lane,
    LaneVerdict,
    Lease,
    Limits,
    Message,
    MessageFilter,
    NewMessage,
    Page,
    Pruned,
    Redelivery,
    Retention,
    Settlement,
    StoreFull,
    StoreUnavailable,
)
from .accept import accept_all
from .bulk import Settling, add_lanes, as_json, read_leases, settle_all
from .events import forget, read_events, read_stats
from .file import connect, lock_file, told, watch
from .listing import list_accounts, list_changes, list_messages, read_attempt, read_message
from .retention import choose_bodies, remove_bodies, step_redelivery
from .rows import (
    Q,
    copy_as_new,
    find_credential,
    hurry,
    next_revision,
    read_credential,
    read_deliveries,
    read_lane,
    redeliver_one,
    write_credential,
)
from .schema import check_schema, make_or_check
from .writer import Reader, Writer


class SqliteStore:
    """A Store in one file. Make one with ``open``; several processes may read and accept, one may dispatch."""

    def __init__(self, path: Path, *, clock: Clock) -> None:
        self._path = path
        self._url = f"sqlite:///{path}"
        self._clock = clock
        self._ids = MessageIds(clock)
        self._work = asyncio.Event()
        self._dispatcher_lock: int | None = None
        self._pruned_up_to = 0
        writing, reading, peeking = connect(path), connect(path), connect(path, busy_seconds=0)
        # The triggers that tell of changed lanes go by it too.
        writing.create_function("store_now", 0, clock)
        self._writer = Writer(writing)
        self._reader = Reader(reading, peeking)

    @classmethod
    async def open(cls, path: str | os.PathLike[str], *, clock: Clock = time.time) -> "SqliteStore":
        """The store in this file, made if it is empty. StoreUnavailable says what is wrong with the file."""
        path = Path(path)
        store = cls(path, clock=clock)
        try:
            with store._named():
                await store._writer.run(lambda db: make_or_check(db, store._url))
            store._writer.check_with(watch(path))
        except BaseException:
            await store.close()
            raise
        return store

    async def check(self) -> None:
        with self._named():
            await self._reader.run(lambda db: check_schema(db, self._url))
            # An immediate transaction alone would begin on a file that can only be read.
            await self._writer.run(lambda db: db.execute(Q["write_nothing"]))

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """Says of SQLite's errors which file they are about, and what to do."""
        try:
            yield
        except (StoreFull, StoreUnavailable) as error:
            if isinstance(error.__cause__, sqlite3.Error):
                raise type(error)(told(self._path, error.__cause__)) from error.__cause__
            raise

    async def close(self) -> None:
        await asyncio.to_thread(self._writer.close)
        await asyncio.to_thread(self._reader.close)
        if self._dispatcher_lock is not None:
            os.close(self._dispatcher_lock)
            self._dispatcher_lock = None

    # Callbacks

    async def register(self, account: str, url: str, *, actor: str) -> Callback:
        def job(db: sqlite3.Connection) -> Callback:
            now = self._clock()
            revision = next_revision(db, account)
            change = {"account": account, "url": url, "revision": revision, "actor": actor, "now": now}
            db.execute(Q["put_callback"], change)
            db.execute(Q["add_history"], change)
            db.execute(Q["open_callback_lane"], change)
            hurry(db, account, CALLBACK_CONSUMER, now)
            return Callback(account=account, url=url, revision=revision, registered_at=now)

        callback = await self._writer.run(job)
        self._work.set()
        return callback

    async def deregister(self, account: str, *, actor: str) -> bool:
        def job(db: sqlite3.Connection) -> bool:
            if db.execute(Q["drop_callback"], {"account": account}).rowcount == 0:
                return False
            change = {"account": account, "url": None, "actor": actor, "now": self._clock()}
            db.execute(Q["add_history"], change | {"revision": next_revision(db, account)})
            db.execute(Q["hold_callback_lane"], change)
            return True

        return await self._writer.run(job)

    async def callback(self, account: str) -> Callback | None:
        def job(db: sqlite3.Connection) -> Callback | None:
            row = db.execute(Q["callback"], {"account": account}).fetchone()
            return Callback(**row) if row else None

        return await self._reader.peek(job)

    # Messages

    async def accept(self, messages: Sequence[NewMessage]) -> list[Accepted]:
        accepted = await self._writer.run_with_others(self._accept, messages)
        self._work.set()
        return accepted

    def _accept(self, db: sqlite3.Connection, batches: Sequence[Sequence[NewMessage]]) -> list[list[Accepted]]:
        return accept_all(db, batches, self._ids, self._clock())

    async def message(self, message_id: str) -> Message | None:
        def job(db: sqlite3.Connection) -> Message | None:
            row = db.execute(Q["message"], {"id": message_id}).fetchone()
            return read_message(db, row, self._clock()) if row else None

        return await self._reader.run(job)

    async def attempts(self, message_id: str) -> list[Attempt]:
        def job(db: sqlite3.Connection) -> list[Attempt]:
            rows = db.execute(Q["attempts"], {"id": message_id})
            return [read_attempt(row) for row in rows]

        return await self._reader.run(job)

    async def lanes(self, account: str) -> list[Lane]:
        def job(db: sqlite3.Connection) -> list[Lane]:
            now = self._clock()
            return [read_lane(row, now) for row in db.execute(Q["lanes"], {"account": account})]

        return await self._reader.run(job)

    # What an operator looks through

    async def accounts(
        self,
        *,
        state: AccountState | None = None,
        among: Collection[str] | None = None,
        after: str = "",
        limit: int,
    ) -> list[Account]:
        return await self._reader.run(lambda db: list_accounts(db, state, among, after, limit, self._clock()))

    async def messages(self, account: str, wanted: MessageFilter, *, before: int | None = None, limit: int) -> Page:
        return await self._reader.run(lambda db: list_messages(db, account, wanted, before, limit, self._clock()))

    async def callback_history(self, account: str, limit: int) -> list[CallbackChange]:
        return await self._reader.run(lambda db: list_changes(db, account, limit))

    async def events(self, after: EventCursor | None, *, limit: int) -> EventPage:
        return await self._reader.run(lambda db: read_events(db, after, limit))

    async def stats(self, minutes: int, *, among: Collection[str] | None = None) -> Stats:
        return await self._reader.run(lambda db: read_stats(db, minutes, among, self._clock()))

    async def backlog(self) -> Backlog:
        def job(db: sqlite3.Connection) -> Backlog:
            return Backlog(**db.execute(Q["backlog"], {"now": self._clock()}).fetchone())

        return await self._reader.run(job)

    # What an operator asks for

    async def pause(self, account: str, consumer: str = CALLBACK_CONSUMER) -> None:
        def job(db: sqlite3.Connection) -> None:
            now = self._clock()
            add_lanes(db, [(account, consumer)], now)
            db.execute(Q["pause"], {"account": account, "consumer": consumer, "now": now})

        await self._writer.run(job)

    async def resume(self, account: str, consumer: str = CALLBACK_CONSUMER) -> None:
        def job(db: sqlite3.Connection) -> None:
            now = self._clock()
            db.execute(Q["resume"], {"account": account, "consumer": consumer, "now": now})
            hurry(db, account, consumer, now)

        await self._writer.run(job)
        self._work.set()

    async def limits(self, account: str) -> Limits:
        def job(db: sqlite3.Connection) -> Limits:
            row = db.execute(Q["limits"], {"account": account}).fetchone()
            return Limits(**row) if row else Limits()

        return await self._reader.run(job)

    async def set_limits(self, account: str, limits: Limits) -> None:
        values = msgspec.structs.asdict(limits) | {"account": account}
        await self._writer.run(lambda db: db.execute(Q["set_limits"], values))

    async def redeliver(self, message_id: str, *, as_new: bool = False) -> Redelivery:
        def job(db: sqlite3.Connection) -> Redelivery:
            row = db.execute(Q["message"], {"id": message_id}).fetchone()
            if row is None:
                return Redelivery(refused="unknown")
            if row["body"] is None:
                return Redelivery(refused="pruned")
            now = self._clock()
            if as_new:
                return copy_as_new(db, row, self._ids, now)
            if db.execute(Q["is_pending"], row).fetchone()["pending"]:
                return Redelivery(refused="pending")
            redeliver_one(db, row["seq"], None, now)
            return Redelivery(id=message_id)

        redelivery = await self._writer.run(job)
        self._work.set()
        return redelivery

    async def redeliver_all(
        self, account: str, state: DeliveryState, *, since: float, until: float, dry_run: bool = False
    ) -> int:
        def count(db: sqlite3.Connection) -> tuple[int, int]:
            last = db.execute(Q["last_message"], {"account": account}).fetchone()["seq"]
            query = wish | {"done": 0, "last": last, "limit": -1}
            return len(db.execute(Q["redeliverable"], query).fetchall()), last

        wish = {"account": account, "state": state, "since": since, "until": until}
        found, last = await self._reader.run(count)
        if found and not dry_run:
            await self._writer.run(lambda db: db.execute(Q["add_redelivery"], wish | {"last": last}))
        return found

    async def tidy(self, retention: Retention) -> bool:
        def job(db: sqlite3.Connection) -> tuple[bool, bool]:
            now = self._clock()
            return step_redelivery(db, now), forget(db, retention, now)

        redelivering, forgetting = await self._writer.run(job)
        if redelivering:
            self._work.set()
            return True
        return (await self.prune(retention)).more or forgetting

    async def prune(self, retention: Retention) -> Pruned:
        after, now = self._pruned_up_to, self._clock()
        doomed = await self._reader.run(lambda db: choose_bodies(db, retention, after, now))
        self._pruned_up_to = doomed.after
        if not doomed.seqs:
            return Pruned(bodies=0, bytes=0, more=doomed.more)
        return await self._writer.run(lambda db: remove_bodies(db, doomed))

    # Dispatching

    async def lease(self, limit: int, seconds: float) -> list[Lease]:
        if self._dispatcher_lock is None:
            self._dispatcher_lock = lock_file(self._path)
            # Leases found now belong to a process that is gone.
            await self._writer.run(lambda db: db.execute(Q["forget_leases"]))

        def job(db: sqlite3.Connection) -> list[Lease]:
            now = self._clock()
            taken = db.execute(Q["lease"], {"now": now, "seconds": seconds, "limit": limit}).fetchall()
            return list(read_leases(db, [row["id"] for row in taken], now).values())

        return await self._writer.run(job)

    async def fetch(self, lease: Lease, limit: int, *, without: Collection[int] = ()) -> list[Delivery]:
        besides = as_json(list(without))

        def job(db: sqlite3.Connection) -> list[Delivery]:
            query = {"lane": lease.lane, "now": self._clock(), "limit": limit, "without": besides}
            return read_deliveries(lease, db.execute(Q["fetch"], query).fetchone()["deliveries"])

        return await self._reader.run(job)

    async def settle(
        self, lease: Lease, settlements: Sequence[Settlement], verdict: LaneVerdict, *, keep: float
    ) -> Lease | None:
        kept = await self._writer.run_with_others(self._settle, (lease, settlements, verdict, keep))
        if kept is None:
            self._work.set()
        return kept

    def _settle(self, db: sqlite3.Connection, settlings: Sequence[Settling]) -> list[Lease | None]:
        return settle_all(db, settlings, self._clock())

    async def due_in(self) -> float | None:
        def job(db: sqlite3.Connection) -> float | None:
            due = db.execute(Q["next_due"]).fetchone()["next"]
            return None if due is None else max(0.0, due - self._clock())

        return await self._reader.run(job)

    async def wait(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._work.wait()
        self._work.clear()

    # Credentials

    async def save_credential(self, credential: Credential) -> None:
        def job(db: sqlite3.Connection) -> None:
            db.execute(Q["drop_expired_credentials"], {"kind": credential.kind, "now": self._clock()})
            write_credential(db, credential)

        await self._writer.run(job)

    async def replace_credential(self, old: Credential, new: Credential) -> bool:
        def job(db: sqlite3.Connection) -> bool:
            if find_credential(db, old.kind, old.id, self._clock()) != old:
                return False
            write_credential(db, new)
            return True

        return await self._writer.run(job)

    async def credential(self, kind: str, credential_id: str) -> Credential | None:
        return await self._reader.peek(lambda db: find_credential(db, kind, credential_id, self._clock()))

    async def credentials(self, kind: str, owner: str) -> list[Credential]:
        def job(db: sqlite3.Connection) -> list[Credential]:
            query = {"kind": kind, "owner": owner, "now": self._clock()}
            return [read_credential(row) for row in db.execute(Q["credentials"], query)]

        return await self._reader.run(job)

    async def drop_credentials(self, kind: str, ids: Collection[str]) -> None:
        def job(db: sqlite3.Connection) -> None:
            db.executemany(Q["drop_credential"], [{"kind": kind, "id": one} for one in ids])

        await self._writer.run(job)

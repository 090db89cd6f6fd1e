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
from ..events import EventCursor, EventPage, Stats
from ..ids import MessageIds
from ..records import (
    CALLBACK_CONSUMER,
    Accepted,
    Callback,
    Credential,
    Delivery,
    DeliveryState,
    LaneVerdict,
    Lease,
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
from ..rows import Row, read_credential
from ..single_statement import SingleStatementVerbs
from .accept import accept_all
from .connection import connect, describe_error, execute, file_check, lock_dispatcher, row, rows, value
from .events import forget, read_events, read_stats
from .lanes import add_lanes, end_backoff, read_leases
from .listing import find_message, list_messages, read_deliveries
from .redelivery import redeliver, redeliver_copy, step_redelivery
from .retention import find_removable, remove_bodies
from .schema import check_schema, create_or_check
from .settle import SettleRequest, settle_all
from .writer import Reader, Writer


class SqliteStore(SingleStatementVerbs):
    """A Store in one file. Make one with ``open``; several processes may read and accept, one may dispatch."""

    def __init__(self, path: Path, *, clock: Clock) -> None:
        super().__init__()
        self._path = path
        self._url = f"sqlite:///{path}"
        self._clock = clock
        self._ids = MessageIds(clock)
        self._dispatcher_lock: int | None = None
        self._pruned_up_to = 0
        writing, reading, peeking = connect(path), connect(path), connect(path, busy_seconds=0)
        # The triggers that record lane changes use the same clock.
        writing.create_function("store_now", 0, clock)
        self._writer = Writer(writing)
        self._reader = Reader(reading, peeking)

    @classmethod
    async def open(cls, path: str | os.PathLike[str], *, clock: Clock = time.time) -> "SqliteStore":
        """The store in this file, created if it is empty. StoreUnavailable says what is wrong with the file."""
        path = Path(path)
        store = cls(path, clock=clock)
        try:
            with store._describing_errors():
                await store._writer.run(lambda db: create_or_check(db, store._url))
            store._writer.check_with(file_check(path))
        except BaseException:
            await store.close()
            raise
        return store

    async def check(self) -> None:
        with self._describing_errors():
            await self._reader.run(lambda db: check_schema(db, self._url))
            # An immediate transaction alone would begin on a file that can only be read.
            await self._write("write_nothing")

    @contextlib.contextmanager
    def _describing_errors(self) -> Iterator[None]:
        """Adds to SQLite's errors the file they are about, and what to do."""
        try:
            yield
        except (StoreFull, StoreUnavailable) as error:
            if isinstance(error.__cause__, sqlite3.Error):
                raise type(error)(describe_error(self._path, error.__cause__)) from error.__cause__
            raise

    async def close(self) -> None:
        await asyncio.to_thread(self._writer.close)
        await asyncio.to_thread(self._reader.close)
        if self._dispatcher_lock is not None:
            os.close(self._dispatcher_lock)
            self._dispatcher_lock = None

    async def _read(self, statement: str, **values: object) -> Sequence[Row]:
        return await self._reader.run(lambda db: rows(db, statement, now=self._clock(), **values))

    async def _read_by_key(self, statement: str, **values: object) -> Row | None:
        return await self._reader.peek(lambda db: row(db, statement, now=self._clock(), **values))

    async def _write(self, statement: str, **values: object) -> None:
        await self._writer.run(lambda db: execute(db, statement, **values))

    # Callbacks

    async def register(self, account: str, url: str, *, actor: str) -> Callback:
        def job(db: sqlite3.Connection) -> Callback:
            now = self._clock()
            revision = value(db, "last_revision", account=account) + 1
            execute(db, "put_callback", account=account, url=url, revision=revision, now=now)
            execute(db, "add_history", account=account, url=url, revision=revision, actor=actor, now=now)
            execute(db, "open_callback_lane", account=account, now=now)
            end_backoff(db, account, CALLBACK_CONSUMER, now)
            return Callback(account=account, url=url, revision=revision, registered_at=now)

        callback = await self._writer.run(job)
        self._work.set()
        return callback

    async def deregister(self, account: str, *, actor: str) -> bool:
        def job(db: sqlite3.Connection) -> bool:
            if execute(db, "drop_callback", account=account).rowcount == 0:
                return False
            now = self._clock()
            revision = value(db, "last_revision", account=account) + 1
            execute(db, "add_history", account=account, url=None, revision=revision, actor=actor, now=now)
            execute(db, "hold_callback_lane", account=account, now=now)
            return True

        return await self._writer.run(job)

    async def pause(self, account: str, consumer: str = CALLBACK_CONSUMER) -> None:
        def job(db: sqlite3.Connection) -> None:
            now = self._clock()
            add_lanes(db, [(account, consumer)], now)
            execute(db, "pause", account=account, consumer=consumer, now=now)

        await self._writer.run(job)

    async def resume(self, account: str, consumer: str = CALLBACK_CONSUMER) -> None:
        def job(db: sqlite3.Connection) -> None:
            now = self._clock()
            execute(db, "resume", account=account, consumer=consumer, now=now)
            end_backoff(db, account, consumer, now)

        await self._writer.run(job)
        self._work.set()

    # Messages

    async def accept(self, messages: Sequence[NewMessage]) -> list[Accepted]:
        accepted = await self._writer.run_with_others(self._accept, messages)
        self._work.set()
        return accepted

    def _accept(self, db: sqlite3.Connection, batches: Sequence[Sequence[NewMessage]]) -> list[list[Accepted]]:
        return accept_all(db, batches, self._ids, self._clock())

    async def message(self, message_id: str) -> Message | None:
        return await self._reader.run(lambda db: find_message(db, message_id, self._clock()))

    async def messages(self, account: str, matching: MessageFilter, *, before: int | None = None, limit: int) -> Page:
        return await self._reader.run(lambda db: list_messages(db, account, matching, before, limit, self._clock()))

    async def events(self, after: EventCursor | None, *, limit: int) -> EventPage:
        return await self._reader.run(lambda db: read_events(db, after, limit))

    async def stats(self, minutes: int, *, among: Collection[str] | None = None) -> Stats:
        return await self._reader.run(lambda db: read_stats(db, minutes, among, self._clock()))

    # Redelivery and retention

    async def redeliver(self, message_id: str, *, as_new: bool = False) -> Redelivery:
        def job(db: sqlite3.Connection) -> Redelivery:
            if as_new:
                return redeliver_copy(db, message_id, self._ids, self._clock())
            return redeliver(db, message_id, self._clock())

        redelivery = await self._writer.run(job)
        self._work.set()
        return redelivery

    async def redeliver_all(
        self, account: str, state: DeliveryState, *, since: float, until: float, dry_run: bool = False
    ) -> int:
        def count(db: sqlite3.Connection) -> tuple[int, int]:
            last = value(db, "last_message", account=account)
            return len(rows(db, "redeliverable", **request, done=0, last=last, limit=-1)), last

        request = {"account": account, "state": state, "since": since, "until": until}
        found, last = await self._reader.run(count)
        if found and not dry_run:
            await self._write("add_redelivery", **request, last=last)
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
        removable = await self._reader.run(lambda db: find_removable(db, retention, after, now))
        self._pruned_up_to = removable.after
        if not removable.seqs:
            return Pruned(bodies=0, bytes=0, more=removable.more)
        return await self._writer.run(lambda db: remove_bodies(db, removable))

    # Dispatching

    async def lease(self, limit: int, seconds: float) -> list[Lease]:
        if self._dispatcher_lock is None:
            self._dispatcher_lock = lock_dispatcher(self._path)
            # Leases found now belong to a process that has ended.
            await self._write("forget_leases")

        def job(db: sqlite3.Connection) -> list[Lease]:
            now = self._clock()
            taken = rows(db, "lease", now=now, seconds=seconds, limit=limit)
            return list(read_leases(db, [lane["id"] for lane in taken], now).values())

        return await self._writer.run(job)

    async def fetch(self, lease: Lease, limit: int, *, without: Collection[int] = ()) -> list[Delivery]:
        in_flight = list(without)

        def job(db: sqlite3.Connection) -> list[Delivery]:
            found = value(db, "fetch", lane=lease.lane, now=self._clock(), limit=limit, without=in_flight)
            return read_deliveries(lease, found)

        return await self._reader.run(job)

    async def settle(
        self, lease: Lease, settlements: Sequence[Settlement], verdict: LaneVerdict, *, keep: float
    ) -> Lease | None:
        kept = await self._writer.run_with_others(self._settle, (lease, settlements, verdict, keep))
        if kept is None:
            self._work.set()
        return kept

    def _settle(self, db: sqlite3.Connection, requests: Sequence[SettleRequest]) -> list[Lease | None]:
        return settle_all(db, requests, self._clock())

    # Credentials

    async def save_credential(self, credential: Credential) -> None:
        def job(db: sqlite3.Connection) -> None:
            execute(db, "drop_expired_credentials", kind=credential.kind, now=self._clock())
            execute(db, "save_credential", **_columns(credential))

        await self._writer.run(job)

    async def replace_credential(self, old: Credential, new: Credential) -> bool:
        def job(db: sqlite3.Connection) -> bool:
            found = row(db, "credential", kind=old.kind, id=old.id, now=self._clock())
            if found is None or read_credential(found) != old:
                return False
            execute(db, "save_credential", **_columns(new))
            return True

        return await self._writer.run(job)


def _columns(credential: Credential) -> dict[str, object]:
    accounts = None if credential.accounts is None else list(credential.accounts)
    return msgspec.structs.asdict(credential) | {"accounts": accounts, "scopes": " ".join(credential.scopes)}

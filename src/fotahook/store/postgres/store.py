"""The store on a PostgreSQL server, for any number of processes that accept and dispatch side by side."""

import contextlib
import time
from collections.abc import Collection, Sequence
from typing import Final, cast

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
    StoreError,
    StoreUnavailable,
)
from ..rows import Row, copy_of, read_credential, read_lease
from ..single_statement import SingleStatementVerbs
from .accept import AcceptRequest
from .connection import ConnectionPool, Db, row, rows, value
from .events import VisibilityTracker, forget, read_events, read_stats
from .group_commit import GROUP_LIMIT, Batcher, Request, Response, commit_group, settled_lane, weight
from .lanes import lock_lanes
from .listing import find_message, list_messages, read_delivery
from .notify import Notifier
from .redelivery import redeliver, step_redelivery
from .retention import BEGINNING, step_retention
from .schema import check_schema, create_or_check
from .settle import Settled, SettleRequest

FETCH_LIMIT: Final = 2000
"""Deliveries fetched for several lanes at once, unless one alone asks for more: their bodies take memory."""


class PostgresStore(SingleStatementVerbs):
    """A Store on a PostgreSQL server, in the schema of the connection's search path. Make one with ``open``.

    Its clock is the server's. A call that fails because the connection was lost may have been written all the same.
    """

    def __init__(self, pool: ConnectionPool, *, clock: Clock) -> None:
        super().__init__()
        self._pool = pool
        self._ids = MessageIds(clock)
        self._notifier = Notifier(pool.connect_for_notifications, self._work)
        self._writes: Batcher[Request, Response] = Batcher(
            self._commit, limit=GROUP_LIMIT, weight=weight, key=settled_lane
        )
        self._fetches: Batcher[tuple[int, int, str], list[Delivery]] = Batcher(
            self._fetch, limit=FETCH_LIMIT, weight=lambda request: request[1]
        )
        self._retention_cursor = BEGINNING
        self._visibility = VisibilityTracker()

    @classmethod
    async def open(cls, url: str, *, clock: Clock = time.time) -> "PostgresStore":
        """The store at ``postgresql://…``, created if its schema is empty; `clock` is for the time in message ids.

        ValueError if it is no such URL; StoreUnavailable says what is wrong with the server.
        """
        pool = ConnectionPool(url)
        try:
            await pool.open()
            async with pool.connection() as db:
                await create_or_check(db, pool.public_url)
        except BaseException:
            await pool.close()
            raise
        return cls(pool, clock=clock)

    async def check(self) -> None:
        async with self._pool.connection() as db:
            await check_schema(db, self._pool.public_url)
            await rows(db, "write_nothing")

    async def close(self) -> None:
        await self._writes.close()
        await self._fetches.close()
        await self._notifier.close()
        await self._pool.close()

    async def _read(self, statement: str, **values: object) -> Sequence[Row]:
        async with self._pool.connection() as db:
            return await rows(db, statement, **values)

    async def _read_by_key(self, statement: str, **values: object) -> Row | None:
        async with self._pool.connection() as db:
            return await row(db, statement, **values)

    async def _write(self, statement: str, **values: object) -> None:
        await self._pool.write(lambda db: rows(db, statement, **values))

    # Callbacks

    async def register(self, account: str, url: str, *, actor: str) -> Callback:
        async def job(db: Db) -> Callback:
            await lock_lanes(db, {(account, CALLBACK_CONSUMER)})
            revision = await value(db, "add_history", account=account, url=url, actor=actor)
            (callback,) = await rows(db, "put_callback", account=account, url=url, revision=revision)
            await rows(db, "open_callback_lane", account=account)
            await rows(db, "end_backoff", account=account, consumer=CALLBACK_CONSUMER)
            return Callback(**callback)

        callback = await self._pool.write(job)
        self._notifier.notify()
        return callback

    async def deregister(self, account: str, *, actor: str) -> bool:
        async def job(db: Db) -> bool:
            await lock_lanes(db, {(account, CALLBACK_CONSUMER)})
            if await row(db, "drop_callback", account=account) is None:
                return False
            await rows(db, "add_history", account=account, url=None, actor=actor)
            await rows(db, "hold_callback_lane", account=account)
            return True

        return await self._pool.write(job)

    async def pause(self, account: str, consumer: str = CALLBACK_CONSUMER) -> None:
        async def job(db: Db) -> None:
            await lock_lanes(db, {(account, consumer)})
            await rows(db, "pause", account=account, consumer=consumer)

        await self._pool.write(job)

    async def resume(self, account: str, consumer: str = CALLBACK_CONSUMER) -> None:
        async def job(db: Db) -> None:
            await rows(db, "resume", account=account, consumer=consumer)
            await rows(db, "end_backoff", account=account, consumer=consumer)

        await self._pool.write(job)
        self._notifier.notify()

    # Messages

    async def accept(self, messages: Sequence[NewMessage]) -> list[Accepted]:
        request = AcceptRequest.of(messages, self._ids.take(len(messages)))
        accepted = cast("list[Accepted]", await self._writes.submit(request))
        if not all(each.duplicate for each in accepted):
            self._notifier.notify()
        return accepted

    async def message(self, message_id: str) -> Message | None:
        return await self._pool.read(lambda db: find_message(db, message_id))

    async def messages(self, account: str, matching: MessageFilter, *, before: int | None = None, limit: int) -> Page:
        return await self._pool.read(lambda db: list_messages(db, account, matching, before, limit))

    async def events(self, after: EventCursor | None, *, limit: int) -> EventPage:
        async with self._pool.connection() as db:
            return await read_events(db, self._visibility, after, limit)

    async def stats(self, minutes: int, *, among: Collection[str] | None = None) -> Stats:
        return await self._pool.read(lambda db: read_stats(db, minutes, among))

    # Redelivery and retention

    async def redeliver(self, message_id: str, *, as_new: bool = False) -> Redelivery:
        if as_new:
            return await self._redeliver_copy(message_id)
        redelivery = await self._pool.write(lambda db: redeliver(db, message_id))
        self._notifier.notify()
        return redelivery

    async def _redeliver_copy(self, message_id: str) -> Redelivery:
        message = await self.message(message_id)
        if message is None:
            return Redelivery(refused="unknown")
        if message.body is None:
            return Redelivery(refused="pruned")
        (accepted,) = await self.accept([copy_of(message, message.body)])
        return Redelivery(id=accepted.id)

    async def redeliver_all(
        self, account: str, state: DeliveryState, *, since: float, until: float, dry_run: bool = False
    ) -> int:
        async def job(db: Db) -> int:
            last = await value(db, "last_message", account=account)
            request = {"account": account, "state": state, "since": since, "until": until, "last": last}
            found: int = await value(db, "count_redeliverable", **request)
            if found and not dry_run:
                await rows(db, "add_redelivery", **request)
            return found

        return await self._pool.write(job)

    async def tidy(self, retention: Retention) -> bool:
        if await self._pool.write(step_redelivery):
            self._notifier.notify()
            return True
        forgetting = await self._pool.write(lambda db: forget(db, retention))
        return (await self.prune(retention)).more or forgetting

    async def prune(self, retention: Retention) -> Pruned:
        pruned, self._retention_cursor = await self._pool.write(
            lambda db: step_retention(db, retention, self._retention_cursor)
        )
        return pruned

    # Dispatching

    async def lease(self, limit: int, seconds: float) -> list[Lease]:
        found = await self._read("lease", limit=limit, seconds=seconds)
        taken = [each for each in found if each["lane"] is not None]
        missed = found[0]["late"] - sum(each["was_late"] for each in taken)
        leases = [read_lease(each) for each in taken]
        if missed > 0 and len(leases) < limit:
            # The lanes leased already must be served even if this fails: the others stay due.
            with contextlib.suppress(StoreUnavailable):
                late = await self._read("lease_late", limit=limit - len(leases), seconds=seconds)
                leases += [read_lease(each) for each in late]
        return leases

    async def fetch(self, lease: Lease, limit: int, *, without: Collection[int] = ()) -> list[Delivery]:
        return await self._fetches.submit((lease.lane, limit, f"{{{','.join(map(str, without))}}}"))

    async def _fetch(self, requests: Sequence[tuple[int, int, str]]) -> list[list[Delivery]]:
        found: list[list[Delivery]] = [[] for _ in requests]
        lanes, limits, without = zip(*requests, strict=True)
        for each in await self._read("fetch", lanes=lanes, limits=limits, without=without):
            found[each["number"] - 1].append(read_delivery(each))
        return found

    async def settle(
        self, lease: Lease, settlements: Sequence[Settlement], verdict: LaneVerdict, *, keep: float
    ) -> Lease | None:
        settled = cast(Settled, await self._writes.submit(SettleRequest(lease, settlements, verdict, keep)))
        if settled.lease is None:
            self._work.set()
            if settled.is_due:
                self._notifier.notify()
        return settled.lease

    async def _commit(self, requests: Sequence[Request]) -> Sequence[Response | Exception]:
        try:
            return await self._pool.write(lambda db: commit_group(db, requests))
        except StoreUnavailable as error:
            return [error] * len(requests)
        except StoreError as error:
            if len(requests) == 1:
                return [error]
        # One request was refused: run alone, it fails only for its caller.
        return [(await self._commit([request]))[0] for request in requests]

    # Credentials

    async def save_credential(self, credential: Credential) -> None:
        async def job(db: Db) -> None:
            await rows(db, "drop_expired_credentials", kind=credential.kind)
            await rows(db, "save_credential", **msgspec.structs.asdict(credential))

        await self._pool.write(job)

    async def replace_credential(self, old: Credential, new: Credential) -> bool:
        async def job(db: Db) -> bool:
            found = await row(db, "lock_credential", kind=old.kind, id=old.id)
            if found is None or read_credential(found) != old:
                return False
            await rows(db, "save_credential", **msgspec.structs.asdict(new))
            return True

        return await self._pool.write(job)

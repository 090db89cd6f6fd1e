"""The shared store: a PostgreSQL server, for any number of processes that accept and dispatch side by side."""

import asyncio
import contextlib
import time
from collections.abc import Collection, Sequence
from typing import Final, cast

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
    StoreError,
    StoreUnavailable,
)
from .connection import Db, Link, row, rows, value
from .events import VisibilityTracker, forget, read_events, read_stats
from .group_commit import Coalescer
from .listing import list_accounts, list_changes, list_messages, read_messages
from .notify import Hints
from .retention import BEGINNING, redeliver_messages, step_redelivery, step_retention
from .rows import (
    GROUP_LIMIT,
    Answer,
    Part,
    Settle,
    Settled,
    commit_group,
    lock_lanes,
    read_attempt,
    read_credential,
    read_delivery,
    read_lane,
    read_lease,
    settled_lane,
    to_accept,
    weight,
)
from .schema import check_schema, make_or_check

FETCH_LIMIT: Final = 2000
"""Deliveries that are fetched for several lanes at once, unless one alone asks for more: their bodies take room."""


class PostgresStore:
    """A Store on a PostgreSQL server, in the schema of the connection's search path. Make one with ``open``.

    Its time is the server's. A call that was cut off when the connection was lost may have been written all the same.
    """

    def __init__(self, link: Link, *, clock: Clock) -> None:
        self._link = link
        self._ids = MessageIds(clock)
        self._work = asyncio.Event()
        self._hints = Hints(link.connect_for_hints, self._work)
        self._writes: Coalescer[Part, Answer] = Coalescer(
            self._commit, limit=GROUP_LIMIT, weight=weight, key=settled_lane
        )
        self._fetches: Coalescer[tuple[int, int, str], list[Delivery]] = Coalescer(
            self._fetch, limit=FETCH_LIMIT, weight=lambda asked: asked[1]
        )
        self._prune = BEGINNING
        self._visibility = VisibilityTracker()

    @classmethod
    async def open(cls, url: str, *, clock: Clock = time.time) -> "PostgresStore":
        """The store at ``postgresql://…``, made if its schema is empty; `clock` is for the time within message ids.

        ValueError if it is no such URL; StoreUnavailable says what is wrong with the server.
        """
        link = Link(url)
        try:
            await link.open()
            async with link.connection() as db:
                await make_or_check(db, link.shown)
        except BaseException:
            await link.close()
            raise
        return cls(link, clock=clock)

    async def check(self) -> None:
        async with self._link.connection() as db:
            await check_schema(db, self._link.shown)
            await rows(db, "write_nothing")

    async def close(self) -> None:
        await self._writes.close()
        await self._fetches.close()
        await self._hints.close()
        await self._link.close()

    # Callbacks

    async def register(self, account: str, url: str, *, actor: str) -> Callback:
        async def job(db: Db) -> Callback:
            await lock_lanes(db, {(account, CALLBACK_CONSUMER)})
            revision = await value(db, "add_history", account=account, url=url, actor=actor)
            (callback,) = await rows(db, "put_callback", account=account, url=url, revision=revision)
            await rows(db, "open_callback_lane", account=account)
            await rows(db, "hurry", account=account, consumer=CALLBACK_CONSUMER)
            return Callback(**callback)

        callback = await self._link.write(job)
        self._hints.give()
        return callback

    async def deregister(self, account: str, *, actor: str) -> bool:
        async def job(db: Db) -> bool:
            await lock_lanes(db, {(account, CALLBACK_CONSUMER)})
            if await row(db, "drop_callback", account=account) is None:
                return False
            await rows(db, "add_history", account=account, url=None, actor=actor)
            await rows(db, "hold_callback_lane", account=account)
            return True

        return await self._link.write(job)

    async def callback(self, account: str) -> Callback | None:
        async with self._link.connection() as db:
            found = await row(db, "callback", account=account)
        return Callback(**found) if found else None

    # Messages

    async def accept(self, messages: Sequence[NewMessage]) -> list[Accepted]:
        part = to_accept(messages, self._ids.take(len(messages)))
        accepted = cast("list[Accepted]", await self._writes.ask(part))
        if not all(each.duplicate for each in accepted):
            self._hints.give()
        return accepted

    async def message(self, message_id: str) -> Message | None:
        async def job(db: Db) -> Message | None:
            found = await rows(db, "message", id=message_id)
            return next(iter(await read_messages(db, found)), None)

        return await self._link.read(job)

    async def attempts(self, message_id: str) -> list[Attempt]:
        async with self._link.connection() as db:
            return [read_attempt(each) for each in await rows(db, "attempts", id=message_id)]

    async def lanes(self, account: str) -> list[Lane]:
        async with self._link.connection() as db:
            return [read_lane(each) for each in await rows(db, "lanes", account=account)]

    # What an operator looks through

    async def accounts(
        self,
        *,
        state: AccountState | None = None,
        among: Collection[str] | None = None,
        after: str = "",
        limit: int,
    ) -> list[Account]:
        return await self._link.read(lambda db: list_accounts(db, state, among, after, limit))

    async def messages(self, account: str, wanted: MessageFilter, *, before: int | None = None, limit: int) -> Page:
        return await self._link.read(lambda db: list_messages(db, account, wanted, before, limit))

    async def callback_history(self, account: str, limit: int) -> list[CallbackChange]:
        return await self._link.read(lambda db: list_changes(db, account, limit))

    async def events(self, after: EventCursor | None, *, limit: int) -> EventPage:
        async with self._link.connection() as db:
            return await read_events(db, self._visibility, after, limit)

    async def stats(self, minutes: int, *, among: Collection[str] | None = None) -> Stats:
        return await self._link.read(lambda db: read_stats(db, minutes, among))

    async def backlog(self) -> Backlog:
        async with self._link.connection() as db:
            (found,) = await rows(db, "backlog")
        return Backlog(**found)

    # What an operator asks for

    async def pause(self, account: str, consumer: str = CALLBACK_CONSUMER) -> None:
        async def job(db: Db) -> None:
            await lock_lanes(db, {(account, consumer)})
            await rows(db, "pause", account=account, consumer=consumer)

        await self._link.write(job)

    async def resume(self, account: str, consumer: str = CALLBACK_CONSUMER) -> None:
        async def job(db: Db) -> None:
            await rows(db, "resume", account=account, consumer=consumer)
            await rows(db, "hurry", account=account, consumer=consumer)

        await self._link.write(job)
        self._hints.give()

    async def limits(self, account: str) -> Limits:
        async with self._link.connection() as db:
            found = await row(db, "limits", account=account)
        return Limits(**found) if found else Limits()

    async def set_limits(self, account: str, limits: Limits) -> None:
        values = msgspec.structs.asdict(limits)
        await self._link.write(lambda db: rows(db, "set_limits", account=account, **values))

    async def redeliver(self, message_id: str, *, as_new: bool = False) -> Redelivery:
        async def job(db: Db) -> Redelivery:
            found = await row(db, "message", id=message_id)
            if found is None:
                return Redelivery(refused="unknown")
            moved = await redeliver_messages(db, [found["seq"]], None)
            # Read again, now that nobody can change it.
            body = (await rows(db, "message", id=message_id))[0]["body"]
            if moved:
                return Redelivery(id=message_id)
            return Redelivery(refused="pruned" if body is None else "pending")

        redelivery = await (self._copy(message_id) if as_new else self._link.write(job))
        self._hints.give()
        return redelivery

    async def _copy(self, message_id: str) -> Redelivery:
        """Accept a stored message's bytes once more, under a new id, into the lanes of the old one."""
        found = await self.message(message_id)
        if found is None:
            return Redelivery(refused="unknown")
        if found.body is None:
            return Redelivery(refused="pruned")
        message = NewMessage(
            account=found.account,
            body=found.body,
            type=found.type,
            ordering_key=found.ordering_key,
            consumers=tuple(placement.consumer for placement in found.deliveries),
        )
        (accepted,) = await self.accept([message])
        return Redelivery(id=accepted.id)

    async def redeliver_all(
        self, account: str, state: DeliveryState, *, since: float, until: float, dry_run: bool = False
    ) -> int:
        async def job(db: Db) -> int:
            last = await value(db, "last_message", account=account)
            wish = {"account": account, "state": state, "since": since, "until": until, "last": last}
            found: int = await value(db, "count_redeliverable", **wish)
            if found and not dry_run:
                await rows(db, "add_redelivery", **wish)
            return found

        return await self._link.write(job)

    async def tidy(self, retention: Retention) -> bool:
        if await self._link.write(step_redelivery):
            self._hints.give()
            return True
        forgetting = await self._link.write(lambda db: forget(db, retention))
        return (await self.prune(retention)).more or forgetting

    async def prune(self, retention: Retention) -> Pruned:
        pruned, self._prune = await self._link.write(lambda db: step_retention(db, retention, self._prune))
        return pruned

    # Dispatching

    async def lease(self, limit: int, seconds: float) -> list[Lease]:
        async with self._link.connection() as db:
            found = await rows(db, "lease", limit=limit, seconds=seconds)
        taken = [each for each in found if each["lane"] is not None]
        missed = found[0]["late"] - sum(each["was_late"] for each in taken)
        leases = [read_lease(each) for each in taken]
        if missed > 0 and len(leases) < limit:
            # What is leased already must be served, whatever becomes of the others: they stay due.
            with contextlib.suppress(StoreUnavailable):
                async with self._link.connection() as db:
                    late = await rows(db, "lease_late", limit=limit - len(leases), seconds=seconds)
                leases += [read_lease(each) for each in late]
        return leases

    async def fetch(self, lease: Lease, limit: int, *, without: Collection[int] = ()) -> list[Delivery]:
        return await self._fetches.ask((lease.lane, limit, f"{{{','.join(map(str, without))}}}"))

    async def _fetch(self, asked: Sequence[tuple[int, int, str]]) -> list[list[Delivery]]:
        found: list[list[Delivery]] = [[] for _ in asked]
        async with self._link.connection() as db:
            lanes, limits, without = zip(*asked, strict=True)
            for each in await rows(db, "fetch", lanes=lanes, limits=limits, without=without):
                found[each["number"] - 1].append(read_delivery(each))
        return found

    async def settle(
        self, lease: Lease, settlements: Sequence[Settlement], verdict: LaneVerdict, *, keep: float
    ) -> Lease | None:
        settled = cast(Settled, await self._writes.ask(Settle(lease, settlements, verdict, keep)))
        if settled.lease is None:
            self._work.set()
            if settled.is_due:
                self._hints.give()
        return settled.lease

    async def _commit(self, parts: Sequence[Part]) -> Sequence[Answer | Exception]:
        try:
            return await self._link.write(lambda db: commit_group(db, parts))
        except StoreUnavailable as error:
            return [error] * len(parts)
        except StoreError as error:
            if len(parts) == 1:
                return [error]
        # Somebody's part was refused: alone, it fails only who brought it.
        return [(await self._commit([part]))[0] for part in parts]

    async def due_in(self) -> float | None:
        async with self._link.connection() as db:
            seconds: float | None = await value(db, "due_in")
        return None if seconds is None else max(0.0, seconds)

    async def wait(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._work.wait()
        self._work.clear()

    # Credentials

    async def save_credential(self, credential: Credential) -> None:
        async def job(db: Db) -> None:
            await rows(db, "drop_expired_credentials", kind=credential.kind)
            await rows(db, "save_credential", **msgspec.structs.asdict(credential))

        await self._link.write(job)

    async def replace_credential(self, old: Credential, new: Credential) -> bool:
        async def job(db: Db) -> bool:
            found = await row(db, "lock_credential", kind=old.kind, id=old.id)
            if found is None or read_credential(found) != old:
                return False
            await rows(db, "save_credential", **msgspec.structs.asdict(new))
            return True

        return await self._link.write(job)

    async def credential(self, kind: str, credential_id: str) -> Credential | None:
        async with self._link.connection() as db:
            found = await row(db, "credential", kind=kind, id=credential_id)
        return read_credential(found) if found else None

    async def credentials(self, kind: str, owner: str) -> list[Credential]:
        async with self._link.connection() as db:
            return [read_credential(each) for each in await rows(db, "credentials", kind=kind, owner=owner)]

    async def drop_credentials(self, kind: str, ids: Collection[str]) -> None:
        await self._link.write(lambda db: rows(db, "drop_credentials", kind=kind, ids=list(ids)))

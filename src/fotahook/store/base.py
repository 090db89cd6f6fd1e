"""The Store: domain verbs over the records of records.py and events.py, alike on every engine over the sessions that
each makes. A store is whatever passes ``tests/store``. Durations given to a verb are seconds from the moment the store
writes them, so that only one clock is ever compared."""

import asyncio
import contextlib
import hashlib
import math
import secrets
from abc import abstractmethod
from collections.abc import Callable, Collection, Sequence
from typing import Any, ClassVar, Final, TypeAlias, cast

from . import records
from .batcher import Batcher
from .events import EventVerbs
from .group_commit import AcceptRequest, Request, Settled, SettleRequest, commit_group
from .ledger import LedgerVerbs
from .message_verbs import MessageIds, MessageVerbs
from .session import Candidate
from .transaction import Transaction

Clock = Callable[[], float]
AskForLeases = Callable[[], records.LeaseRequest | None]
Receive = Callable[[Sequence[records.HandOver]], None]
FetchRequest: TypeAlias = tuple[records.Lease, int, Collection[int], int]

CHECK_SECONDS: Final = 1.0
FETCH_LIMIT: Final = 2000
"""Deliveries fetched for several lanes at once, unless one alone asks for more: their bodies take memory."""


class Store(MessageVerbs, EventVerbs, LedgerVerbs):
    """Keeps callbacks, messages and deliveries. Every verb is one transaction; a write returns once it is on disk.
    Every verb may raise StoreUnavailable; a verb that adds rows may raise StoreFull."""

    has_many_dispatchers: ClassVar = False

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._ids = MessageIds(clock)
        self._writes: Batcher[Request, Any] = Batcher(self._commit)
        self._fetches: Batcher[FetchRequest, list[records.Delivery]] = Batcher(self._fetch, limit=FETCH_LIMIT)
        self._work = asyncio.Event()
        self._request: AskForLeases = lambda: None
        self._receive: Receive = lambda handed: None
        self._may_lease = True
        self._due_since: Callable[[], float] = lambda: -math.inf

    def transaction(self, delivery: records.Delivery) -> Transaction | None:
        """A transaction for the writes of a delivery's handlers, with which it counts as handled; None on SQLite."""
        return None

    def hand_over(self, request: AskForLeases, receive: Receive) -> None:
        """Hand new deliveries to a dispatcher of this process, without a lease and a fetch of their own. Each
        ``accept`` calls `request`. Unless it returns None, the same transaction leases lanes that were idle: open,
        neither leased nor waiting, with nothing pending. After the commit, and before ``accept`` returns, `receive`
        gets what is new in these lanes and in leased ones. What it does not take is fetched once the lease is over."""
        self._request, self._receive = request, receive

    async def _commit(self, requests: Sequence[Request]) -> Sequence[Any]:
        """Run the requests of one batch; a result for each, or the exception for its caller."""
        try:
            responses, handed, is_complete = await self._run("write", lambda db: commit_group(db, requests))
        except records.StoreUnavailable as error:
            return [error] * len(requests)
        except Exception as error:
            if len(requests) == 1:
                return [error]
            # One request was refused: in the end it runs alone, and fails only for its caller.
            half = len(requests) // 2
            return [*await self._commit(requests[:half]), *await self._commit(requests[half:])]
        if handed:
            self._receive(handed)
        if not is_complete:
            self._notify()
        return responses

    async def close(self) -> None:
        """Finish pending writes and release the files or connections."""
        await self._writes.close()
        await self._fetches.close()

    async def accept(self, messages: Sequence[records.NewMessage]) -> list[records.Accepted]:
        ids = self._ids.take(len(messages))
        given = [Candidate(*one, hashlib.sha256(one[1].body).digest()) for one in zip(ids, messages, strict=True)]
        request = AcceptRequest(given, self._request() if self._may_lease else None)
        return cast("list[records.Accepted]", await self._writes.submit(request, *request.turn))

    async def check(self) -> None:
        """Raise a StoreError unless the store can be read and written and has this version's schema."""
        # Of its own, so that checks of several processes do not wait for one another.
        await self._write(lambda db: db.run("take_room", "give_room_back", id=secrets.token_hex(8)))

    @abstractmethod
    async def lease(self, limit: int, seconds: float) -> list[records.Lease]:
        """Lease up to `limit` due lanes for `seconds`, longest overdue first."""

    async def fetch(
        self, lease: records.Lease, limit: int, *, without: Collection[int] = (), max_bytes: int = records.FETCH_BYTES
    ) -> list[records.Delivery]:
        """The due deliveries of a leased lane, earliest first; of each ordering key at most the first. `without`: the
        numbers (`seq`) of those in flight. The first comes whatever its size, others while those before them have no
        more than `max_bytes`."""
        return await self._fetches.submit((lease, limit, without, max_bytes), lease.lane, limit)

    @abstractmethod
    async def _fetch(self, requests: Sequence[FetchRequest]) -> list[list[records.Delivery]]: ...

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
        request = SettleRequest(lease, settlements, verdict, keep)
        # A lane is settled once in a transaction, since a second settling builds on the first.
        settled: Settled = await self._writes.submit(request, lease.lane, len(settlements), lease.lane)
        fresh, is_due = settled
        if fresh is None and is_due:
            self._notify()
        return fresh

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


class StoreHealth:
    """Checks an open store at most once in CHECK_SECONDS. `on_error` gets each error once, until another one occurs."""

    def __init__(self, store: Store, on_error: Callable[[records.StoreError], None] = lambda error: None) -> None:
        self._store, self._on_error = store, on_error
        self._lock = asyncio.Lock()
        self._checked_at = -math.inf
        self._error: records.StoreError | None = None

    async def error(self) -> records.StoreError | None:
        """Why the store cannot be written; None if it can."""
        async with self._lock:
            if asyncio.get_running_loop().time() - self._checked_at >= CHECK_SECONDS:
                try:
                    await self._store.check()
                    self._error = None
                except records.StoreError as error:
                    if str(error) != str(self._error):
                        self._on_error(error)
                    self._error = error
                self._checked_at = asyncio.get_running_loop().time()
            return self._error

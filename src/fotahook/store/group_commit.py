"""Group commit: concurrent callers share a transaction, and those that come meanwhile share the next."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterator, Sequence
from itertools import islice
from typing import Any, Final, Generic, NamedTuple, TypeAlias, TypeVar

from .accept import accept_all
from .handing import Handing
from .records import Accepted, LeaseRequest, StoreUnavailable
from .session import Candidate, Session
from .settle import Settled, SettleRequest, settle_all
from .turns import LIMIT, Turns

Item = TypeVar("Item")
Result = TypeVar("Result")

GATHERING_TURNS: Final = 3
"""Maximum number of event loop turns that a batch waits while each turn brings more items."""

_LOST: Final = Settled(None, False)


class AcceptRequest(NamedTuple):
    """The messages of one caller, and what a dispatcher wants handed over."""

    candidates: Sequence[Candidate]
    lease: LeaseRequest | None


Job: TypeAlias = Callable[[Session], Awaitable[Any]]
Request: TypeAlias = AcceptRequest | SettleRequest | Job


async def commit_group(db: Session, requests: Sequence[Request]) -> tuple[list[Any], Handing]:
    """Run the requests of several callers in one transaction; a response for each, and what is handed over.

    Of an AcceptRequest the response is a list of Accepted, of a SettleRequest a Settled, of a job what it returns.
    """
    # Jobs first: one of them makes leases invalid that were taken before.
    done = iter([await request(db) for request in requests if not isinstance(request, AcceptRequest | SettleRequest)])
    settles = [request for request in requests if isinstance(request, SettleRequest)]
    accepts = [request for request in requests if isinstance(request, AcceptRequest)]
    given = [each for request in accepts for each in request.candidates]
    handing = Handing(next((request.lease for request in accepts if request.lease is not None), None))
    accepted: Iterator[Accepted] = iter(())
    settled: dict[int, Settled] = {}
    if accepts or settles:
        names = {(each.message.account, consumer) for each in given for consumer in each.message.consumers}
        locked = await db.lock_lanes(names, [settle.lease.lane for settle in settles])
        lanes = {(lane["account"], lane["consumer"]): lane for lane in locked}
        accepted = iter(await accept_all(db, given, lanes, handing))
        # A lane that was leased just now had an owner whose lease was over.
        tokens = {lane["id"]: lane["token"] for lane in locked if lane["id"] not in handing.leases}
        settled = await settle_all(db, [each for each in settles if tokens.get(each.lease.lane) == each.lease.token])
    responses = [
        settled.get(request.lease.lane, _LOST)
        if isinstance(request, SettleRequest)
        else list(islice(accepted, len(request.candidates)))
        if isinstance(request, AcceptRequest)
        else next(done)
        for request in requests
    ]
    return responses, handing


class Batcher(Generic[Item, Result]):
    """Collects items while a batch runs, then runs them as the next batch; one batch at a time.

    `run` returns for each item of a batch, in order, a result or the exception for that caller alone. A batch weighs
    what the limit of `Turns` allows.
    """

    def __init__(
        self, run: Callable[[Sequence[Item]], Awaitable[Sequence[Result | Exception]]], *, limit: int = LIMIT
    ) -> None:
        self._run = run
        self._turns: Turns[tuple[Item, asyncio.Future[Result], Hashable]] = Turns(limit)
        self._worker: asyncio.Task[None] | None = None
        self._closed = False

    async def submit(self, item: Item, owner: Hashable = None, weight: int = 1, key: Hashable = None) -> Result:
        """The item's result. A caller that is cancelled leaves its item in the batch.

        No two items of one `key` are in a batch; None is no key.
        """
        if self._closed:
            raise StoreUnavailable("the store is closed")
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._turns.put((item, future, key), owner, weight)
        if not self._is_working():
            self._worker = asyncio.create_task(self._work())
        return await future

    async def close(self) -> None:
        """Refuse new items, and finish those that were submitted."""
        self._closed = True
        if self._worker is not None and self._is_working():
            await self._worker

    def _is_working(self) -> bool:
        """Whether the worker runs; it ends with its event loop, which may be an earlier one."""
        worker, loop = self._worker, asyncio.get_running_loop()
        return worker is not None and not worker.done() and worker.get_loop() is loop

    async def _work(self) -> None:
        while self._turns:
            await self._gather()
            items, futures, _ = zip(*self._next_batch(), strict=True)
            results: Sequence[Result | Exception]
            try:
                results = await self._run(items)
            except Exception as error:
                results = [error] * len(items)
            for future, result in zip(futures, results, strict=True):
                if future.done():  # its caller was cancelled meanwhile
                    continue
                if isinstance(result, Exception):
                    future.set_exception(result)
                else:
                    future.set_result(result)

    async def _gather(self) -> None:
        """Wait while each turn of the loop brings more: the batch would begin with the first of them alone."""
        seen, turns = 0, GATHERING_TURNS
        while len(self._turns) > seen and turns > 0:
            seen, turns = len(self._turns), turns - 1
            await asyncio.sleep(0)

    def _next_batch(self) -> list[tuple[Item, asyncio.Future[Result], Hashable]]:
        keys: set[Hashable] = set()

        def fits(waiting: tuple[Item, asyncio.Future[Result], Hashable]) -> bool:
            *_, key = waiting
            known = key in keys
            keys.add(key)
            return key is None or not known

        return self._turns.take(fits)

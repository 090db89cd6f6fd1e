"""Group commit: concurrent callers share a transaction, and those that come meanwhile share the next."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from itertools import islice
from typing import Final, Generic, TypeVar

from ..handing import Handing
from ..records import Accepted, StoreUnavailable
from ..session import Session
from ..turns import LIMIT, Turns
from .accept import AcceptRequest, accept_all
from .settle import Settled, SettleRequest, settle_all

Item = TypeVar("Item")
Result = TypeVar("Result")
Request = AcceptRequest | SettleRequest
Response = list[Accepted] | Settled

_LOST: Final = Settled(None, False)


async def commit_group(db: Session, requests: Sequence[Request]) -> tuple[list[Response], Handing]:
    """Accept and settle the requests of several callers in one transaction; what is handed to the dispatcher."""
    settles = [request for request in requests if isinstance(request, SettleRequest)]
    accepts = [request for request in requests if isinstance(request, AcceptRequest)]
    given = [each for request in accepts for each in request.candidates]
    names = {(each.message.account, consumer) for each in given for consumer in each.message.consumers}
    locked = await db.lock_lanes(names, [settle.lease.lane for settle in settles])
    lanes = {(lane["account"], lane["consumer"]): lane for lane in locked}
    handing = Handing(next((request.lease for request in accepts if request.lease is not None), None))
    accepted = iter(await accept_all(db, given, lanes, handing))
    # A lane that was leased just now had an owner whose lease was over.
    tokens = {lane["id"]: lane["token"] for lane in locked}
    valid = [each for each in settles if tokens.get(each.lease.lane) == each.lease.token]
    settled = await settle_all(db, [each for each in valid if each.lease.lane not in handing.leases])
    responses: list[Response] = [
        settled.get(request.lease.lane, _LOST)
        if isinstance(request, SettleRequest)
        else list(islice(accepted, len(request.candidates)))
        for request in requests
    ]
    return responses, handing


def settled_lane(request: Request) -> int | None:
    """The lane that a request settles: once in a transaction, since the second settling builds on the first."""
    return request.lease.lane if isinstance(request, SettleRequest) else None


class Batcher(Generic[Item, Result]):
    """Collects items while a batch runs, then runs them as the next batch; one batch at a time.

    `run` returns for each item of a batch, in order, a result or the exception for that caller alone. A batch has no
    two items of one key (None is no key), and weighs what the limit of `Turns` allows.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Item]], Awaitable[Sequence[Result | Exception]]],
        *,
        limit: int = LIMIT,
        key: Callable[[Item], Hashable] = lambda item: None,
    ) -> None:
        self._run = run
        self._key = key
        self._turns: Turns[tuple[Item, asyncio.Future[Result]]] = Turns(limit)
        self._worker: asyncio.Task[None] | None = None
        self._closed = False

    async def submit(self, item: Item, owner: Hashable = None, weight: int = 1) -> Result:
        """The item's result. A caller that is cancelled leaves its item in the batch."""
        if self._closed:
            raise StoreUnavailable("the store is closed")
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._turns.put((item, future), owner, weight)
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        return await future

    async def close(self) -> None:
        """Refuse new items, and finish those that were submitted."""
        self._closed = True
        if self._worker is not None:
            await self._worker

    async def _work(self) -> None:
        while batch := self._next_batch():
            items, futures = zip(*batch, strict=True)
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
        self._worker = None

    def _next_batch(self) -> list[tuple[Item, asyncio.Future[Result]]]:
        keys: set[Hashable] = set()

        def fits(waiting: tuple[Item, asyncio.Future[Result]]) -> bool:
            key = self._key(waiting[0])
            known = key in keys
            keys.add(key)
            return key is None or not known

        return self._turns.take(fits)

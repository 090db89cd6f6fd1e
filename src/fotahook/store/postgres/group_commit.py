"""Concurrent callers share one piece of work: whoever comes while it is under way is served by the next."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Generic, TypeVar

from ..records import StoreUnavailable

Item = TypeVar("Item")
Result = TypeVar("Result")


class Coalescer(Generic[Item, Result]):
    """Collects what is asked for while a batch runs, then runs that as one batch, and so on; one batch at a time.

    `run` answers each item of a batch, in order, with a result or the exception for that caller alone. A batch weighs
    `limit` at the most, unless a single item weighs more, and has no two items of one key (None is no key).
    """

    def __init__(
        self,
        run: Callable[[Sequence[Item]], Awaitable[Sequence[Result | Exception]]],
        *,
        limit: int,
        weight: Callable[[Item], int] = lambda item: 1,
        key: Callable[[Item], Hashable] = lambda item: None,
    ) -> None:
        self._run = run
        self._limit = limit
        self._weight = weight
        self._key = key
        self._waiting: deque[tuple[Item, asyncio.Future[Result]]] = deque()
        self._worker: asyncio.Task[None] | None = None
        self._closed = False

    async def ask(self, item: Item) -> Result:
        """The item's result. A caller that is cancelled leaves its item in the batch."""
        if self._closed:
            raise StoreUnavailable("the store is closed")
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        return await future

    async def close(self) -> None:
        """Take nothing more, and finish what was asked for."""
        self._closed = True
        if self._worker is not None:
            await self._worker

    async def _work(self) -> None:
        while self._waiting:
            items, futures = self._next_batch()
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

    def _next_batch(self) -> tuple[list[Item], list[asyncio.Future[Result]]]:
        items: list[Item] = []
        futures: list[asyncio.Future[Result]] = []
        keys: set[Hashable] = set()
        room = self._limit
        while self._waiting:
            item, future = self._waiting[0]
            room -= self._weight(item)
            key = self._key(item)
            if items and (room < 0 or (key is not None and key in keys)):
                break
            self._waiting.popleft()
            items.append(item)
            futures.append(future)
            keys.add(key)
        return items, futures

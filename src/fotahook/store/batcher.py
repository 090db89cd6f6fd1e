"""Group commit: concurrent callers share a batch, and those that come meanwhile share the next. Each owner's turn comes
the later the more it had done already."""

import asyncio
import heapq
import time
from collections.abc import Awaitable, Callable, Hashable, Sequence
from itertools import count
from typing import Final, Generic, TypeVar

from .records import StoreUnavailable

T = TypeVar("T")
Item = TypeVar("Item")
Result = TypeVar("Result")

GATHERING_TURNS: Final = 3
LIMIT: Final = 500
"""Weight of the work in one transaction, so that the first of it does not wait too long."""
LONG_SECONDS: Final = 0.002
"""Of a turn of the loop that is followed by a pause as long."""


class Turns(Generic[T]):
    """A queue with start-time fair queueing: who brings little never waits for all that somebody else brought before.
    What is heavier than the limit is taken alone, and alternates with lighter work that comes meanwhile."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._waiting: list[tuple[int, int, int, Hashable, T]] = []
        """A heap of start, number, weight, key and item; the start is how much its owner's work weighed before."""
        self._ends: dict[Hashable, int] = {}
        self._now = 0
        """The start of what was taken last: where an owner begins that brought nothing lately."""
        self._numbers = count()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, item: T, owner: Hashable = None, weight: int = 1, key: Hashable = None) -> None:
        """Queue an item behind those of its owner; None is no key."""
        start = max(self._now, self._ends.get(owner, 0))
        self._ends[owner] = start + weight
        heapq.heappush(self._waiting, (start, next(self._numbers), weight, key, item))

    def take(self) -> list[T]:
        """The next items: of at most the limit together, or one, and one of each key; the first other one ends them."""
        taken: list[T] = []
        keys: set[Hashable] = set()
        room = self._limit
        while self._waiting:
            start, number, weight, key, item = self._waiting[0]
            if key in keys or (taken and weight > room):
                # Others went before it, so it goes first next; not if that was one heavy item, perhaps its owner's.
                if room >= 0:
                    heapq.heapreplace(self._waiting, (-1, number, weight, key, item))
                break
            heapq.heappop(self._waiting)
            if key is not None:
                keys.add(key)
            room -= weight
            if start > self._now:
                self._now = start
            taken.append(item)
        ends = self._ends.items() if self._waiting else ()
        self._ends = {owner: end for owner, end in ends if end > self._now}
        return taken


class LoopTurns:
    """Lets one of the requests that parse much go on in each turn of the loop; after a long one, others for as long."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic, self._began = monotonic, 0.0
        self._waiting: Turns[asyncio.Future[None]] = Turns(0)
        self._running: asyncio.Task[None] | None = None

    async def wait(self, client: str) -> None:
        """Return when it is this request's turn, which lasts until it awaits something."""
        loop = asyncio.get_running_loop()
        if self._running is None or self._running.done() or self._running.get_loop() is not loop:
            # Who waited in an earlier event loop ended with it.
            self._waiting = Turns(0)
            self._running = loop.create_task(self._run(), name="turns")
        self._waiting.put(turn := loop.create_future(), client)
        await turn
        self._began = self._monotonic()

    async def _run(self) -> None:
        while self._waiting:
            for turn in self._waiting.take():
                self._began = self._monotonic()
                if not turn.done():
                    turn.set_result(None)
                # The request goes on first.
                await asyncio.sleep(0)
                took = self._monotonic() - self._began
                await asyncio.sleep(took if took > LONG_SECONDS else 0)


class Batcher(Generic[Item, Result]):
    """Collects items while a batch runs, then runs them as the next batch; one batch at a time. `run` returns for each
    item of a batch, in order, a result or the exception for that caller alone."""

    def __init__(
        self, run: Callable[[Sequence[Item]], Awaitable[Sequence[Result | Exception]]], *, limit: int = LIMIT
    ) -> None:
        self._run = run
        self._turns: Turns[tuple[Item, asyncio.Future[Result]]] = Turns(limit)
        self._worker: asyncio.Task[None] | None = None
        self._closed = False

    async def submit(self, item: Item, owner: Hashable = None, weight: int = 1, key: Hashable = None) -> Result:
        """The item's result. A caller that is cancelled leaves its item in the batch. A batch has one of each key."""
        if self._closed:
            raise StoreUnavailable("the store is closed")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        self._turns.put((item, future), owner, weight, key)
        # A worker ends with its event loop, which may be an earlier one.
        if (worker := self._worker) is None or worker.done() or worker.get_loop() is not loop:
            self._worker = loop.create_task(self._work())
        return await future

    async def close(self) -> None:
        """Refuse new items, and finish those that were submitted."""
        self._closed = True
        worker, loop = self._worker, asyncio.get_running_loop()
        if worker is not None and not worker.done() and worker.get_loop() is loop:
            await worker

    async def _work(self) -> None:
        while self._turns:
            # Each turn of the loop may bring more items: else the batch would begin with the first of them alone.
            seen, turns = 0, GATHERING_TURNS
            while len(self._turns) > seen and turns > 0:
                seen, turns = len(self._turns), turns - 1
                await asyncio.sleep(0)
            items, futures = zip(*self._turns.take(), strict=True)
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

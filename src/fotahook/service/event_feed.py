"""What happens, read from the store once for all who follow it in this process.

A poller reads what is new into a bounded past that all share. A follower takes from there what his mark does not cover
yet. Whoever begins earlier than that past, or is too slow to keep up with it, reads from the store by himself, a page
at a time, until he is there: he misses nothing, and takes no more memory than a page.
"""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from typing import Final, NamedTuple

from ..contract.events import cursor_block, event_block
from ..store import views
from ..store.base import Store
from ..store.events import Event, EventCursor, EventPage
from ..store.records import StoreError
from .requests import mark_cursor

logger = logging.getLogger(__name__)

PAGE: Final = 200
"""Events of each source that are read at once."""
PAST: Final = 4000
"""Events that are kept for those who are not quite up to date."""
POLL_SECONDS: Final = 0.1
PACE_SECONDS: Final = 0.02
"""Between two looks where more is known to come."""
RETRY_SECONDS: Final = 1.0
CATCHING_UP: Final = 2
"""Followers that read by themselves at the same time, so that they do not hold up deliveries."""

Wanted = Callable[[str], bool] | None
"""Whether the events of an account are wanted; None means all of them."""


class Page(NamedTuple):
    """What one look found: each event with its block, all blocks in one, and the marks before and after them."""

    before: EventCursor
    after: EventCursor
    told: tuple[tuple[Event, bytes], ...]
    whole: bytes

    @classmethod
    def of(cls, events: Iterable[Event], before: EventCursor) -> "Page":
        told, mark = [], before
        for event in events:
            mark = mark.advance([event])
            told.append((event, _block(event, mark)))
        return cls(before, mark, tuple(told), b"".join(block for _, block in told))

    def behind(self, mark: EventCursor, wanted: Wanted) -> tuple[bytes, EventCursor]:
        """The blocks of what a mark does not cover, and the mark after them."""
        if mark == self.before:
            if wanted is None:
                return self.whole, self.after
            return b"".join(block for event, block in self.told if wanted(event.account)), self.after
        blocks = []
        for event, _ in self.told:
            # Whoever read by himself may have seen the events of several sources in another order.
            if not mark.covers(event):
                mark = mark.advance([event])
                if wanted is None or wanted(event.account):
                    blocks.append(_block(event, mark))
        return b"".join(blocks), mark.merge(self.after)


class Feed:
    """The events of one store. Nothing is read while nobody follows."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._past: deque[Page] = deque()
        self._kept = 0
        self._gone = 0
        self._mark = EventCursor()
        self._news = asyncio.Event()
        self._followers = 0
        self._starting = asyncio.Lock()
        self._poller: asyncio.Task[None] | None = None
        self._catching_up = asyncio.Semaphore(CATCHING_UP)

    async def present(self) -> EventCursor:
        """The mark behind which everything is still to come."""
        return (await self._store.events(None, limit=1)).cursor

    async def read(self, mark: EventCursor) -> EventPage:
        """A page from the store."""
        async with self._catching_up:
            return await self._store.events(mark, limit=PAGE)

    async def follow(self, mark: EventCursor, wanted: Wanted, quiet: float) -> AsyncGenerator[bytes, None]:
        """Blocks of what happens behind a mark; after so many quiet seconds one that tells the cursor alone.

        It ends if the mark is not of this store any more. What `wanted` says may change meanwhile.
        """
        async with self._followed():
            told_at = time.monotonic()
            async for blocks, reached in self._steps(mark, wanted, quiet):
                if blocks:
                    yield blocks
                # By so much a timer may be early.
                elif time.monotonic() - told_at >= quiet - POLL_SECONDS:
                    yield cursor_block(mark_cursor(reached))
                else:
                    continue
                told_at = time.monotonic()

    async def _steps(self, mark: EventCursor, wanted: Wanted, quiet: float) -> AsyncIterator[tuple[bytes, EventCursor]]:
        """What each step found, which may be nothing, and how far it came."""
        place = self._join(mark)
        while self._poller is not None and not self._poller.done():
            if place is None or place < self._gone:
                beginning = self._beginning()
                found = await self.read(mark)
                if found.lost:
                    return
                blocks, mark = Page.of(found.events, mark).behind(mark, wanted)
                # All that could be seen then was read, so nothing of it is missing before that past.
                mark = mark if found.more else mark.merge(beginning)
                place = self._join(mark)
                if not found.events and place is None:
                    await asyncio.sleep(POLL_SECONDS)
            elif place < self._gone + len(self._past):
                blocks, mark = self._past[place - self._gone].behind(mark, wanted)
                place += 1
            else:
                blocks = b""
                await self._wait(quiet)
            yield blocks, mark

    def _join(self, mark: EventCursor) -> int | None:
        """The number of the first page that is kept, if all that is behind the mark is in there or still to come."""
        return None if self._beginning().is_ahead_of(mark) else self._gone

    def _beginning(self) -> EventCursor:
        return self._past[0].before if self._past else self._mark

    async def _wait(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._news.wait()

    @contextlib.asynccontextmanager
    async def _followed(self) -> AsyncIterator[None]:
        self._followers += 1
        try:
            async with self._starting:
                if self._poller is None:
                    self._mark = await self.present()
                    self._poller = asyncio.create_task(self._poll(), name="events")
            yield
        finally:
            self._followers -= 1
            if self._followers == 0:
                self._rest()

    def _rest(self) -> None:
        poller, self._poller = self._poller, None
        if poller is not None:
            poller.cancel()
        self._gone += len(self._past)
        self._past.clear()
        self._kept = 0

    async def _poll(self) -> None:
        while True:
            try:
                found = await self._store.events(self._mark, limit=PAGE)
            except StoreError as error:
                logger.warning("the store is away, events wait: %s", error)
                await asyncio.sleep(RETRY_SECONDS)
                continue
            if found.lost:
                logger.warning("the store is another one than before: those who follow its events begin again")
                break
            if found.events:
                self._keep(Page.of(found.events, self._mark))
            await asyncio.sleep(PACE_SECONDS if found.more else POLL_SECONDS)
        self._tell()

    def _keep(self, page: Page) -> None:
        self._past.append(page)
        self._mark = page.after
        self._kept += len(page.told)
        while self._kept > PAST and len(self._past) > 1:
            self._kept -= len(self._past.popleft().told)
            self._gone += 1
        self._tell()

    def _tell(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()


def _block(event: Event, mark: EventCursor) -> bytes:
    return event_block(mark_cursor(mark), views.event_data(event))

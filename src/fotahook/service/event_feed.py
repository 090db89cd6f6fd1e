"""Cursors of lists and of the events, and the events, read once for all clients of this process that follow them.
Cursors are sealed, because positions count what happens to all accounts. One poller reads new events into a bounded
buffer of pages that all followers share. A follower that starts before the buffer, or falls behind it, reads from the
store itself, a page at a time, until it has caught up: it misses nothing."""

import asyncio
import base64
import contextlib
import hashlib
import hmac
import logging
import re
from collections import deque
from collections.abc import AsyncGenerator, Iterable
from typing import Final, NamedTuple

import msgspec
from nacl.exceptions import CryptoError
from nacl.secret import SecretBox

from ..contract.events import event_block
from ..contract.keys import cursor_key
from ..store.base import Store
from ..store.events import Event, EventCursor, EventPage
from ..store.records import StoreError
from . import errors

_ALTERNATIVES: Final = b"._"
"""In place of + and /: no cursor begins as a flag of a command does, nor needs quotes in a URL or a shell."""
_BLOCK: Final = 32
"""Positions are filled up to so many bytes, so that not even the length of a number shows."""
_ANY_POSITION = re.compile(r"[^\0]+")
_NUMBER = re.compile(r"[0-9]{1,18}")
_EVENT_POSITION = re.compile(r"[0-9]{1,18}(\.[0-9]{1,18}){3}")


class Cursors:
    """Makes and reads cursors; those of another secret key are refused."""

    def __init__(self, secret_key: bytes) -> None:
        self._key = cursor_key(secret_key)
        self._box = SecretBox(self._key)

    def seal(self, *position: object) -> str:
        """A cursor for a position: one value, or several numbers. A position has one cursor, so events have one id."""
        content = ".".join(map(str, position)).encode()
        filled = content.ljust(-(-len(content) // _BLOCK) * _BLOCK, b"\0")
        # Another content has another nonce, as the box requires.
        nonce = hmac.digest(self._key, filled, hashlib.sha256)[: SecretBox.NONCE_SIZE]
        return base64.b64encode(self._box.encrypt(filled, nonce), _ALTERNATIVES).decode().rstrip("=")

    def open(self, text: str | None, pattern: re.Pattern[str] = _ANY_POSITION) -> str | None:
        """The position of a cursor; None if there is no cursor. Raises an ApiError if it is none of ours."""
        if text is None:
            return None
        try:
            sealed = base64.b64decode(text + "=" * (-len(text) % 4), altchars=_ALTERNATIVES, validate=True)
            position = self._box.decrypt(sealed).rstrip(b"\0").decode()
        except (ValueError, CryptoError):
            position = ""
        if not pattern.fullmatch(position):
            raise errors.INVALID("The cursor is not one of this list; begin without one.")
        return position

    def open_number(self, text: str | None) -> int | None:
        position = self.open(text, _NUMBER)
        return None if position is None else int(position)

    def seal_events(self, cursor: EventCursor) -> str:
        return self.seal(*msgspec.structs.astuple(cursor))

    def open_events(self, text: str | None) -> EventCursor | None:
        """A cursor of the events, 0 for the beginning of the store; None if there is no cursor."""
        position = "0.0.0.0" if text == "0" else self.open(text, _EVENT_POSITION)
        return None if position is None else EventCursor(*map(int, position.split(".")))


logger = logging.getLogger(__name__)

PAGE: Final = 200
BUFFER: Final = 4000
POLL_SECONDS: Final = 0.1
BUSY_POLL_SECONDS: Final = 0.02
RETRY_SECONDS: Final = 1.0
CATCHING_UP: Final = 2
"""Followers that may read from the store at the same time, so that they do not hold up deliveries."""

Filter = frozenset[str] | None
"""The accounts whose events are wanted; None for all."""


class Page(NamedTuple):
    """Events of one read, each with its block, all blocks in one, and the cursors before and after them."""

    before: EventCursor
    after: EventCursor
    events: tuple[tuple[Event, bytes], ...]
    blocks: bytes

    @classmethod
    def of(cls, events: Iterable[Event], before: EventCursor, cursors: Cursors) -> "Page":
        pairs, cursor = [], before
        for event in events:
            cursor = cursor.advance([event])
            pairs.append((event, event_block(cursors.seal_events(cursor), event.data)))
        return cls(before, cursor, tuple(pairs), b"".join(block for _, block in pairs))

    def after_cursor(self, cursor: EventCursor, wanted: Filter, cursors: Cursors) -> tuple[bytes, EventCursor]:
        """The blocks of the wanted events that a cursor does not cover, and the cursor after them."""
        if cursor == self.before:
            if wanted is None:
                return self.blocks, self.after
            return b"".join(block for event, block in self.events if event.data.account in wanted), self.after
        blocks = []
        for event, _ in self.events:
            # A follower that read by itself may have seen the events of several sources in another order.
            if not cursor.covers(event):
                cursor = cursor.advance([event])
                if wanted is None or event.data.account in wanted:
                    blocks.append(event_block(cursors.seal_events(cursor), event.data))
        return b"".join(blocks), cursor.merge(self.after)


class Feed:
    """The events of one store, which is read only while somebody follows."""

    def __init__(self, store: Store, cursors: Cursors) -> None:
        self._store, self._cursors = store, cursors
        self._pages: deque[Page] = deque()
        self._buffered = 0
        self._dropped = 0
        """Pages dropped so far: the number of the first page in the buffer."""
        self._cursor = EventCursor()
        self._changed = asyncio.Event()
        self._followers = 0
        self._starting = asyncio.Lock()
        self._poller: asyncio.Task[None] | None = None
        self._catching_up = asyncio.Semaphore(CATCHING_UP)

    async def present(self, recent: int = 0) -> EventCursor:
        """The cursor after all present events, or before so many of each source, as far as they are kept."""
        page = await self._store.events(None, limit=1)
        return page.cursor.before(recent).merge(page.removed)

    async def read(self, cursor: EventCursor) -> EventPage:
        async with self._catching_up:
            return await self._store.events(cursor, limit=PAGE)

    async def follow(
        self, cursor: EventCursor, wanted: Filter, idle: float
    ) -> AsyncGenerator[tuple[bytes, EventCursor], None]:
        """Blocks of the wanted events after a cursor, and the cursor reached. Yields at least every `idle` seconds,
        then without blocks. Ends if the cursor is no longer of this store."""
        self._followers += 1
        try:
            async with self._starting:
                if self._poller is None:
                    self._cursor = await self.present()
                    self._poller = asyncio.create_task(self._poll(), name="events")
            position = self._join(cursor)
            while not self._poller.done():
                blocks = b""
                if position is None or position < self._dropped:
                    first = self._first_cursor()
                    found = await self.read(cursor)
                    if found.lost:
                        return
                    page = Page.of(found.events, cursor, self._cursors)
                    blocks, cursor = page.after_cursor(cursor, wanted, self._cursors)
                    # Without more to read, everything before the buffer was read.
                    cursor = cursor if found.more else cursor.merge(first)
                    position = self._join(cursor)
                    if not found.events and position is None:
                        await asyncio.sleep(POLL_SECONDS)
                elif position < self._dropped + len(self._pages):
                    blocks, cursor = self._pages[position - self._dropped].after_cursor(cursor, wanted, self._cursors)
                    position += 1
                else:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(idle):
                            await self._changed.wait()
                yield blocks, cursor
        finally:
            self._followers -= 1
            if self._followers == 0 and self._poller is not None:
                self._poller.cancel()
                self._poller = None
                self._dropped += len(self._pages)
                self._pages.clear()
                self._buffered = 0

    def _join(self, cursor: EventCursor) -> int | None:
        """The number of the first buffered page, if every event after the cursor is in the buffer or still to come."""
        return None if self._first_cursor().is_ahead_of(cursor) else self._dropped

    def _first_cursor(self) -> EventCursor:
        return self._pages[0].before if self._pages else self._cursor

    async def _poll(self) -> None:
        while True:
            try:
                found = await self._store.events(self._cursor, limit=PAGE)
            except StoreError as error:
                logger.warning("the store is unavailable, event streams wait: %s", error)
                await asyncio.sleep(RETRY_SECONDS)
                continue
            if found.lost:
                logger.warning("the store was replaced: event streams end")
                break
            if found.events:
                page = Page.of(found.events, self._cursor, self._cursors)
                self._pages.append(page)
                self._cursor = page.after
                self._buffered += len(page.events)
                while self._buffered > BUFFER and len(self._pages) > 1:
                    self._buffered -= len(self._pages.popleft().events)
                    self._dropped += 1
                self._notify()
            await asyncio.sleep(BUSY_POLL_SECONDS if found.more else POLL_SECONDS)
        self._notify()

    def _notify(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

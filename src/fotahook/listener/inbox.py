"""The inbox: a store, and the dispatcher that shows what is in it to the handlers."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from fotahook.delivery import Dispatcher, Rules, Timings
from fotahook.store import Store, open_store
from fotahook.store.base import Accepted, NewMessage, StoreUnavailable

from .calls import Caller
from .handlers import Router

log = logging.getLogger("fotahook.listener")

_MARGIN: Final = 15.0
"""Seconds by which a lease outlasts the attempts that it allows, and closing waits for them."""


class Handling(msgspec.Struct, frozen=True, kw_only=True):
    """An open inbox."""

    store: Store
    dispatcher: Dispatcher
    dispatching: asyncio.Task[None]
    caller: Caller
    grace: float

    async def close(self) -> None:
        """Let the handlers in hand end, none begin, and let go of the store."""
        self.dispatcher.stop()
        try:
            await asyncio.wait({self.dispatching}, timeout=self.grace)
        finally:
            # Whatever is still in hand keeps its message for the next start.
            self.dispatching.cancel()
            await asyncio.gather(self.dispatching, return_exceptions=True)
            self.caller.close()
            await self.store.close()


class Inbox:
    """Opened when it is first used, in whatever event loop that is; closed, it may be opened again."""

    def __init__(
        self,
        url: str,
        router: Router,
        *,
        handler_timeout: float,
        schedule: Sequence[float],
        clock: Callable[[], float],
    ) -> None:
        self.url = url
        self._router = router
        self._handler_timeout = handler_timeout
        self._rules = Rules(schedule=tuple(schedule))
        self._clock = clock
        self._opening: asyncio.Task[Handling] | None = None
        self._closing = False

    @property
    def in_use(self) -> bool:
        """Whether it is open, or about to be."""
        return self._opening is not None

    @property
    def abandoned(self) -> bool:
        """Whether messages are stored and no longer handled: the dispatcher has ended by itself."""
        opened = _opened(self._opening)
        return opened is not None and opened.dispatching.done() and not opened.dispatching.cancelled()

    async def accept(self, message: NewMessage) -> Accepted:
        """Store a message; on return it is on disk."""
        handling = await self.open()
        (accepted,) = await handling.store.accept([message])
        return accepted

    async def open(self) -> Handling:
        """The open inbox. StoreError says what is wrong with its file, ValueError with its URL."""
        if self._closing:
            raise StoreUnavailable("the listener is stopping")
        opening = self._opening
        if opening is None or opening.get_loop() is not asyncio.get_running_loop():
            opening = self._opening = asyncio.create_task(self._open(self._left_behind(opening)))
        try:
            # Several messages may wait for it: that one of them goes away must not end it for the others.
            return await asyncio.shield(opening)
        finally:
            if self._opening is opening and opening.done() and _opened(opening) is None:
                self._opening = None

    async def close(self) -> None:
        """Let the handlers in hand end, and close the store."""
        opening, self._closing = self._opening, True
        try:
            if opening is not None:
                await asyncio.wait({opening})
            if (opened := _opened(opening)) is not None:
                await opened.close()
        finally:
            self._opening, self._closing = None, False

    def _left_behind(self, opening: "asyncio.Task[Handling] | None") -> Handling | None:
        """What was opened in another event loop that has ended without closing it, as those of some test clients do."""
        if opening is not None and not opening.get_loop().is_closed():
            raise StoreUnavailable("the listener runs in another event loop")
        return _opened(opening)

    async def _open(self, left_behind: Handling | None) -> Handling:
        if left_behind is not None:
            await _let_go(left_behind)
        store = await open_store(self.url, clock=self._clock)
        # Handlers are called one after the other, each within its limit.
        attempt = self._handler_timeout * max(1, len(self._router)) + 1
        caller = Caller(self._router, timeout=self._handler_timeout)
        dispatcher = Dispatcher(
            store,
            caller.deliver,
            rules=self._rules,
            timings=Timings(lease=attempt + _MARGIN, attempt=attempt),
            clock=self._clock,
        )
        dispatching = asyncio.create_task(dispatcher.run(), name="fotahook listener")
        dispatching.add_done_callback(_tell_of_end)
        return Handling(
            store=store, dispatcher=dispatcher, dispatching=dispatching, caller=caller, grace=attempt + _MARGIN
        )


def _opened(opening: "asyncio.Task[Handling] | None") -> Handling | None:
    if opening is None or not opening.done() or opening.cancelled() or opening.exception() is not None:
        return None
    return opening.result()


async def _let_go(left_behind: Handling) -> None:
    left_behind.caller.close()
    try:
        async with asyncio.timeout(_MARGIN):
            await left_behind.store.close()
    except Exception:
        # Connections may belong to the loop that has ended, and went with it.
        log.warning("an inbox left open by an event loop that has ended could not be closed", exc_info=True)


def _tell_of_end(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.critical("messages are stored but no longer handled", exc_info=error)

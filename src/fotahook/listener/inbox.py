"""The inbox: a store, and the dispatcher that brings what is in it to the handlers and the forwards."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from fotahook.delivery import Deliver, Dispatcher, Outcome, Rules, Timings, keep_house
from fotahook.store import Store, open_store
from fotahook.store.base import Clock
from fotahook.store.health import StoreHealth
from fotahook.store.records import Accepted, Delivery, Lease, NewMessage, Retention, StoreError, StoreUnavailable

from .forwards import Forwards
from .handlers import Router
from .intake import HANDLERS
from .invocation import Caller

log = logging.getLogger("fotahook.listener")

_MARGIN: Final = 15.0
"""Seconds by which a lease outlasts the attempts that it allows, and closing waits for them."""


class Handling(msgspec.Struct, frozen=True, kw_only=True):
    """An open inbox."""

    store: Store
    pulse: StoreHealth
    dispatcher: Dispatcher
    dispatching: asyncio.Task[None]
    keeping: asyncio.Task[None]
    caller: Caller
    grace: float
    leaving: contextlib.AsyncExitStack
    """Closes what forwards are sent with, and then the store."""

    async def close(self) -> None:
        """Let the handlers in hand end, none begin, and let go of the store."""
        self.dispatcher.stop()
        try:
            await asyncio.wait({self.dispatching}, timeout=self.grace)
        finally:
            # Whatever is still in hand keeps its message for the next start.
            for task in (self.dispatching, self.keeping):
                task.cancel()
            await asyncio.gather(self.dispatching, self.keeping, return_exceptions=True)
            self.caller.close()
            await self.leaving.aclose()


class Inbox:
    """Opened when it is first used, in whatever event loop that is; closed, it may be opened again."""

    def __init__(
        self,
        url: str,
        router: Router,
        forwards: Forwards,
        *,
        handler_timeout: float,
        schedule: Sequence[float],
        retention: Retention,
        clock: Callable[[], float],
    ) -> None:
        self.url = url
        self._router = router
        self._forwards = forwards
        self._handler_timeout = handler_timeout
        self._rules = Rules(schedule=tuple(schedule))
        self._retention = retention
        self._clock = clock
        self._opening: asyncio.Task[Handling] | None = None
        self._closing = False
        self._wrap_store: Callable[[Store], Store] = lambda store: store
        self._wrap_deliver: Callable[[Deliver], Deliver] = lambda deliver: deliver

    def wrap(self, store: Callable[[Store], Store], deliver: Callable[[Deliver], Deliver]) -> None:
        """Put something around the store and the deliverer when they are opened: fault points."""
        self._wrap_store, self._wrap_deliver = store, deliver

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
        """Store a message; on return it is on disk. StoreError if it is not, whatever the reason."""
        handling = self._ready()
        store = await self.store() if handling is None else handling.store
        (accepted,) = await store.accept([message])
        return accepted

    async def trouble(self) -> StoreError | None:
        """Why nothing can be stored; None if it can, or if the inbox is not open, which only a message changes."""
        handling = self._ready()
        return None if handling is None else await handling.pulse.error()

    async def store(self) -> Store:
        """The store, opened if need be. StoreError if that cannot be, whatever the reason."""
        try:
            return (self._ready() or await self.open()).store
        except (ValueError, ImportError) as error:
            raise StoreUnavailable(str(error)) from error

    def _ready(self) -> Handling | None:
        """What is open in this event loop: nearly always there, and quicker than to wait for it."""
        opening = self._opening
        if self._closing or opening is None or opening.get_loop() is not asyncio.get_running_loop():
            return None
        return _opened(opening)

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
        async with contextlib.AsyncExitStack() as stack:
            store = self._wrap_store(await open_inbox(self.url, self._clock))
            stack.push_async_callback(store.close)
            # Not before the inbox is known to be one: a key beside it is worth keeping.
            forward = await stack.enter_async_context(self._forwards.sending(self.url, self._clock))
            caller = Caller(self._router, timeout=self._handler_timeout)
            # Handlers are called one after the other, each within its limit.
            attempt = max(self._handler_timeout * max(1, len(self._router)), self._forwards.forwarding.timeout) + 1
            dispatcher = Dispatcher(
                store,
                self._wrap_deliver(_by_consumer(caller, forward)),
                rules=self._rules,
                # Handlers are no endpoint that could be overrun when it comes back.
                rules_of={HANDLERS: msgspec.structs.replace(self._rules, slow_start=False)},
                timings=Timings(lease=attempt + _MARGIN, attempt=attempt),
                clock=self._clock,
            )
            dispatching = asyncio.create_task(dispatcher.run(), name="fotahook listener")
            dispatching.add_done_callback(_tell_of_end)
            return Handling(
                store=store,
                pulse=pulse_of(store),
                dispatcher=dispatcher,
                dispatching=dispatching,
                keeping=asyncio.create_task(keep_house(store, self._retention), name="fotahook inbox"),
                caller=caller,
                grace=attempt + _MARGIN,
                leaving=stack.pop_all(),
            )


async def open_inbox(url: str, clock: Clock) -> Store:
    """The store at a URL, into which messages can be written. Errors as of ``open_store``."""
    store = await open_store(url, clock=clock)
    try:
        await store.check()
    except BaseException:
        await store.close()
        raise
    return store


def pulse_of(store: Store) -> StoreHealth:
    """The pulse of an open inbox, whose troubles go to the log."""
    return StoreHealth(store, on_error=lambda error: log.error("the inbox is away: %s", error))


def _by_consumer(caller: Caller, forward: Deliver) -> Deliver:
    async def deliver(lease: Lease, delivery: Delivery) -> Outcome:
        return await (caller.deliver if lease.consumer == HANDLERS else forward)(lease, delivery)

    return deliver


def _opened(opening: "asyncio.Task[Handling] | None") -> Handling | None:
    if opening is None or not opening.done() or opening.cancelled() or opening.exception() is not None:
        return None
    return opening.result()


async def _let_go(left_behind: Handling) -> None:
    left_behind.caller.close()
    try:
        async with asyncio.timeout(_MARGIN):
            await left_behind.leaving.aclose()
    except Exception:
        # Connections may belong to the loop that has ended, and went with it.
        log.warning("an inbox left open by an event loop that has ended could not be closed", exc_info=True)


def _tell_of_end(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.critical("messages are stored but no longer handled", exc_info=error)

"""The inbox: a store, the dispatcher that delivers its messages to the handlers and the forwards, and dead letters."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal, TypeAlias

import msgspec

from fotahook.contract.errors import ApiException
from fotahook.contract.exchange import Headers, Reply
from fotahook.contract.operator import Attempt, MessageState, Redelivered
from fotahook.delivery import Deliver, Dispatcher, Outcome, Rules, Timings, run_maintenance
from fotahook.delivery.policy import DAY
from fotahook.store import Store, open_store, records
from fotahook.store.base import StoreHealth
from fotahook.store.batcher import Batcher
from fotahook.store.group_commit import LARGE_BYTES
from fotahook.store.key_file import check_key
from fotahook.store.records import SCAN_LIMIT, Accepted, NewMessage, StoreError, StoreFull, StoreUnavailable
from fotahook.store.views import message_state

from .forwards import Forwards
from .handlers import Invoker, Router
from .intake import HANDLERS
from .settings import Settings
from .watch import Watch

log = logging.getLogger("fotahook.listener")

IN_FLIGHT: Final = 8
"""Messages that the handlers, or one forward, work on at once."""
_RETRY_SECONDS: Final = 0.1

Arrived: TypeAlias = tuple[NewMessage, float]


class NotHandling(StoreError):
    """Messages are stored but not handled, because the dispatcher ended by itself."""


class OpenInbox(msgspec.Struct, frozen=True, kw_only=True):
    store: Store
    health: StoreHealth
    dispatching: asyncio.Task[None] | None
    resources: contextlib.AsyncExitStack


@dataclass(eq=False)
class Inbox:
    """Opens on first use, in the event loop of that use. Once closed, it can be opened again."""

    settings: Settings
    router: Router
    forwards: Forwards
    watch: Watch
    delivers: bool = True
    """If not, messages are only stored, for another process to deliver."""
    margin: float = 15.0
    """Seconds by which a lease is longer than its attempts, and by which closing waits longer for them."""
    wrap_store: Callable[[Store], Store] = lambda store: store
    wrap_deliver: Callable[[Deliver], Deliver] = lambda deliver: deliver
    opening: asyncio.Task[OpenInbox] | None = field(default=None, init=False)
    _closing: bool = field(default=False, init=False)
    _arrived: tuple[asyncio.AbstractEventLoop, Batcher[Arrived, Accepted]] | None = field(default=None, init=False)
    _failure: StoreUnavailable | None = field(default=None, init=False)

    async def accept(self, message: NewMessage) -> Accepted:
        """Store a message; on return it is on disk. StoreError, within the time limit, if it is not."""
        loop, arrived, limit = asyncio.get_running_loop(), self._arrived, self.settings.accept_deadline
        if arrived is None or arrived[0] is not loop:
            arrived = self._arrived = loop, Batcher(self._store)
        try:
            # Of each message, as the one before may have used up its own. It stays in its batch, and may yet be stored.
            with limit:
                weight = 1 + len(message.body) // LARGE_BYTES
                return await arrived[1].submit((message, loop.time()), message.account, weight)
        except TimeoutError:
            raise self._failure or StoreUnavailable(f"the inbox did not respond within {limit.seconds:g} s") from None

    async def _store(self, arrived: Sequence[Arrived]) -> Sequence[Accepted | Exception]:
        """Store messages within the time limit of the last; for each what was accepted, or the error."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(max(at for _, at in arrived) + self.settings.accept_timeout):
                while True:
                    try:
                        accepted = await (await self.store()).accept([message for message, _ in arrived])
                    except StoreUnavailable as error:
                        self._failure = error
                        if self._closing:
                            break
                    except Exception as error:
                        # One of several was refused, and fails alone.
                        return [error] if len(arrived) == 1 else [(await self._store([each]))[0] for each in arrived]
                    else:
                        self._failure = None
                        return accepted
                    await asyncio.sleep(_RETRY_SECONDS)
        return [self._failure or StoreUnavailable("the inbox did not respond in time")] * len(arrived)

    async def check(self) -> StoreError | None:
        """What is wrong with the inbox. None if nothing is, or if it is not open: only a message opens it."""
        if (inbox := self._opened()) is None:
            return None
        dispatching = inbox.dispatching
        if dispatching is not None and dispatching.done() and not dispatching.cancelled():
            return NotHandling()
        return await inbox.health.error()

    async def store(self) -> Store:
        """The store; opens it if necessary. StoreError if it cannot be opened."""
        try:
            return (self._opened() or await self.open()).store
        except (ValueError, ImportError) as error:
            raise StoreUnavailable(str(error)) from error

    def _opened(self) -> OpenInbox | None:
        opening = self.opening
        if opening is None or self._closing or opening.get_loop() is not asyncio.get_running_loop():
            return None
        return opening.result() if _is_open(opening) else None

    async def open(self) -> OpenInbox:
        """The open inbox. StoreError for a problem with its file, ValueError for an invalid URL."""
        if self._closing:
            raise StoreUnavailable("the listener is stopping")
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise ValueError("it needs an event loop of asyncio, so choose another worker class than trio") from None
        opening = self.opening
        if opening is None or opening.get_loop() is not loop:
            if opening is not None and not opening.get_loop().is_closed():
                raise StoreUnavailable("the listener runs in another event loop")
            opening = self.opening = loop.create_task(self._open(abandoned=opening))
        try:
            # Several messages may wait for this task; one that is cancelled must not cancel it for the others.
            return await asyncio.shield(opening)
        finally:
            if self.opening is opening and opening.done() and not _is_open(opening):
                self.opening = None

    async def close(self) -> None:
        """Wait for running attempts and close the store."""
        opening, self._closing = self.opening, True
        try:
            if opening is not None:
                await asyncio.wait({opening})
                if _is_open(opening):
                    await opening.result().resources.aclose()
        finally:
            self.opening, self._closing = None, False

    async def _open(self, abandoned: "asyncio.Task[OpenInbox] | None") -> OpenInbox:
        if abandoned is not None and _is_open(abandoned):
            # Its event loop ended without closing it, as the loops of some test clients do.
            try:
                async with asyncio.timeout(self.margin):
                    await abandoned.result().resources.aclose()
            except Exception:
                # Connections may have ended with their event loop.
                log.warning("the inbox of an event loop that has ended could not be closed", exc_info=True)
        async with contextlib.AsyncExitStack() as stack:
            store = await open_store(self.settings.inbox, clock=self.settings.clock)
            stack.push_async_callback(store.close)
            try:
                await store.check()
            except StoreFull as error:
                # Handled messages make room.
                log.error("the inbox is full: %s", error)
            store = self.wrap_store(store)
            dispatching = await self._start_delivering(store, stack) if self.delivers else None
            health = StoreHealth(store, on_error=lambda error: log.error("the inbox is unavailable: %s", error))
            return OpenInbox(store=store, health=health, dispatching=dispatching, resources=stack.pop_all())

    async def _start_delivering(self, store: Store, stack: contextlib.AsyncExitStack) -> asyncio.Task[None]:
        """The dispatcher's task. No generator: a loop that ends closes those in any order."""
        settings = self.settings
        # After the check of the store, so that no key file is made beside a file that is no inbox.
        if len(self.forwards):
            await check_key(store, settings.forwarding.key(settings.inbox))
        forward = await stack.enter_async_context(self.forwards.open())
        invoker = Invoker(self.router, timeout=settings.handler_timeout, transaction=store.transaction)

        async def deliver(lease: records.Lease, delivery: records.Delivery) -> Outcome:
            self.watch.received(lease, delivery)
            return await (invoker.deliver if lease.consumer == HANDLERS else forward)(lease, delivery)

        # Handlers are called one after the other, each with its own time limit.
        attempt = max(settings.handler_timeout * max(1, len(self.router)), settings.forwarding.timeout) + 1
        rules = Rules(schedule=tuple(settings.schedule), in_flight=IN_FLIGHT)
        dispatcher = Dispatcher(
            store,
            self.wrap_deliver(deliver),
            rules=rules,
            # Handlers need no slow start: they are not an endpoint that a backlog could overload.
            rules_of={HANDLERS: msgspec.structs.replace(rules, slow_start=False)},
            timings=Timings(lease=attempt + self.margin, attempt=attempt),
            clock=settings.clock,
        )
        keep, ids = settings.keep_days * DAY, max(400 * DAY, settings.dedupe_window)
        retention = records.Retention(seconds=keep, attempts=keep, ids=ids)
        loop = asyncio.get_running_loop()
        dispatching = loop.create_task(dispatcher.run(), name="fotahook listener")
        dispatching.add_done_callback(_log_failure)
        maintenance = run_maintenance(store, retention, longest_wait=dispatcher.longest_wait)
        maintaining = loop.create_task(maintenance, name="fotahook inbox")
        watching = loop.create_task(self.watch.run(store), name="fotahook watch")

        async def stop() -> None:
            """Start no more attempts, and wait for the running ones: after that their messages stay pending."""
            dispatcher.stop()
            # The tasks of a loop that has ended have ended with it.
            tasks = (dispatching, maintaining, watching) if loop is asyncio.get_running_loop() else ()
            try:
                if tasks:
                    await asyncio.wait({dispatching}, timeout=attempt + self.margin)
            finally:
                invoker.close()
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

        stack.push_async_callback(stop)
        return dispatching


def _is_open(opening: asyncio.Task[OpenInbox]) -> bool:
    return opening.done() and not opening.cancelled() and opening.exception() is None


def _log_failure(dispatching: asyncio.Task[None]) -> None:
    if not dispatching.cancelled() and (error := dispatching.exception()) is not None:
        log.critical("messages are stored but no longer handled", exc_info=error)


class DeadLetter(msgspec.Struct, frozen=True):
    """A message that failed on every attempt."""

    id: str
    """The id to pass to ``Listener.redeliver``."""
    account: str
    kind: str | None
    received_at: float
    """When the message was stored, in Unix seconds."""
    raw: bytes | None
    """The bytes as received; None once they are removed, after `keep_days`."""
    attempts: int
    """Attempts by handlers and forwards together."""
    failure: str
    """The last failure: a handler's name and traceback, or what a forward answered."""


_REFUSALS: Final = {
    "unknown": (404, "there is no such message in the inbox; check the id"),
    "pending": (409, "the message is not settled yet: it waits for its handlers or forwards"),
    "pruned": (410, "the message's bytes were removed by retention"),
}


class InboxMessages:
    """The messages of a listener. What it cannot do raises ApiException."""

    def __init__(self, store: Store, runner: asyncio.Runner) -> None:
        self._store, self._run = store, runner.run

    def messages(
        self,
        account: str,
        *,
        state: Literal["pending", "delivered", "dead"] | None = None,
        message_type: str | None = None,
        ordering_key: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int | None = None,
    ) -> Iterator[MessageState]:
        wanted = records.MessageFilter(
            state=state,
            type=message_type,
            ordering_key=ordering_key,
            since=since.timestamp() if since else None,
            until=until.timestamp() if until else None,
        )
        before = None
        while True:
            page = self._run(self._store.messages(account, wanted, before=before, limit=limit or SCAN_LIMIT))
            yield from map(message_state, page.messages)
            if (before := page.next) is None:
                return

    def message(self, message_id: str) -> MessageState:
        return message_state(self._find(message_id))

    def message_body(self, message_id: str) -> bytes:
        if (body := self._find(message_id).body) is None:
            raise _refused("pruned")
        return body

    def attempts(self, message_id: str) -> list[Attempt]:
        return self._run(self._store.attempts(message_id))

    def redeliver(self, message_id: str, *, as_new: bool = False) -> Redelivered:
        """Hand a message to its handlers and forwards again; the listener picks it up within a second, or on start."""
        redelivery = self._run(self._store.redeliver(message_id, as_new=as_new))
        if redelivery.id is None:
            raise _refused(redelivery.refused or "unknown")
        return Redelivered(id=redelivery.id)

    def redeliver_all(
        self,
        account: str,
        state: Literal["dead", "delivered"],
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        dry_run: bool = False,
    ) -> int:
        begin, end = since.timestamp() if since else 0.0, until.timestamp() if until else float("inf")
        count = self._run(self._store.redeliver_all(account, state, since=begin, until=end, dry_run=dry_run))
        # Without a running listener nobody else does it.
        while not dry_run and self._run(self._store.tidy(records.Retention())):
            pass
        return count

    def _find(self, message_id: str) -> records.Message:
        if (message := self._run(self._store.message(message_id))) is None:
            raise _refused("unknown")
        return message


def _refused(why: str) -> ApiException:
    status, text = _REFUSALS[why]
    return ApiException(text, reply=Reply(status, "", Headers(), b""))

"""Handlers: how they are registered, which of them get a message, and how they are called."""

import asyncio
import contextvars
import inspect
import logging
import queue
import threading
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, TypeAlias, TypeVar

import msgspec

from fotahook.contract.errors import one_line
from fotahook.contract.messages import CallbackMessage, parse_message
from fotahook.delivery import Deadline, DeadlineExceeded, Outcome
from fotahook.store.batcher import LoopTurns
from fotahook.store.records import Delivery, Lease
from fotahook.store.transaction import AlreadyHandled, Transaction

from .intake import SMALL_BODY, noted

log = logging.getLogger("fotahook.listener")

Handler = Callable[..., object]
"""``handler(message)`` or ``handler(message, context)``, plain or async. The return value is ignored."""
HandlerT = TypeVar("HandlerT", bound=Handler)
Returned: TypeAlias = tuple[object, BaseException | None]
"""What a call in a thread returned or raised: a future cannot hold every exception."""
ThreadCall: TypeAlias = "asyncio.Future[Returned]"
"""A call in a thread, which nobody must cancel."""

THREADS: Final = 32
"""Plain handlers that run at once, within their time limit. It starts when they have a thread, and others wait for one,
no longer than a handler may run."""
OVERRUNNING: Final = 256
"""Calls past their limit that leave their place to others. Further ones keep it."""
SHARE: Final = 8
"""Threads of an account that has a call past its limit: as many as its messages in flight."""
_LOG_SECONDS: Final = 60.0
_EXCERPT_LIMIT: Final = 4000
_FILTERS: Final = ("status", "account", "failed")
_LIMIT: Final = 100
"""Kinds without a handler that are logged, once each, and characters of each: a sender can invent any."""


class Context(msgspec.Struct, frozen=True):
    """Facts about the attempt, for a handler that takes a second argument."""

    id: str
    """The message's id in the inbox: the same on every attempt, so that a handler can recognize a repetition."""
    attempt: int
    """1 on the first attempt. An attempt during which the process died is not counted: its number is used again."""
    received_at: float
    """When the message was stored, in Unix seconds."""
    _transaction: Transaction | None = None

    @property
    def transaction(self) -> Transaction:
        """Statements on the inbox's PostgreSQL server that commit with the message: exactly once, in async handlers.

        RuntimeError for an inbox elsewhere, and in plain handlers.
        """
        if self._transaction is None:
            raise RuntimeError("context.transaction needs an async handler, and an inbox at postgresql://…")
        return self._transaction


class Route(msgspec.Struct, frozen=True, eq=False):
    handler: Handler
    name: str
    kind: str | None
    status: str | None
    account: str | None
    failed: bool | None
    wants_context: bool
    is_async: bool


class Router:
    def __init__(self) -> None:
        self._routes: list[Route] = []
        self._logged: set[str | None] = set()

    def __len__(self) -> int:
        return len(self._routes)

    def add(
        self, handler: HandlerT, kind: str | None, status: str | None, account: str | None, failed: bool | None = None
    ) -> HandlerT:
        """Register a handler. TypeError if it cannot be called with a message, or with a message and a context.

        It gets a context if its second argument is required, or is optional and has the name `context`.
        """
        if not callable(handler):
            raise TypeError(f"a handler must be a function, not {handler!r}")
        name = getattr(handler, "__qualname__", repr(handler))
        if inspect.isgeneratorfunction(handler) or inspect.isasyncgenfunction(handler):
            raise TypeError(f"{name} is a generator function, which calling does not run: remove its yield")
        try:
            parameters = list(inspect.signature(handler).parameters.values())
        except ValueError as error:
            raise TypeError(f"the parameters of {name} are unknown; wrap it in a function of (message)") from error
        positional = [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
        required = [each for each in positional if each.default is each.empty]
        keywords = [each for each in parameters if each.kind is each.KEYWORD_ONLY and each.default is each.empty]
        if len(required) not in (1, 2) or keywords:
            raise TypeError(f"a handler takes (message) or (message, context); {name} does not")
        wants_context = len(required) == 2 or [each.name for each in positional[1:2]] == ["context"]
        is_async = any(map(inspect.iscoroutinefunction, (handler, getattr(handler, "__call__", None))))  # noqa: B004
        self._routes.append(Route(handler, name, kind, status, account, failed, wants_context, is_async))
        return handler

    def matching(self, message: CallbackMessage) -> list[Route]:
        """The routes of a message. If there are none, the log says why, once for each kind."""
        filtered = [route for route in self._routes if route.kind in (None, message.kind)]
        routes = [
            route
            for route in filtered
            if route.account in (None, message.account_name)
            and (route.status is None or route.status in message.statuses)
            and route.failed in (None, message.failed)
        ]
        # Nothing longer is logged or pasted.
        kind = message.kind if len(message.kind or "") <= _LIMIT else None
        if routes or kind in self._logged or len(self._logged) >= _LIMIT:
            return routes
        self._logged.add(kind)
        if filtered:
            statuses = one_line(", ".join(sorted(message.statuses)) or "no status", _LIMIT)
            filters = "; ".join(
                f"{route.name} wants "
                + ", ".join(f"{name}={value!r}" for name in _FILTERS if (value := getattr(route, name)) is not None)
                for route in filtered
            )
            log.warning("no handler's filters match %r with %s: %s", message, statuses, filters)
        else:
            decorator = "on_any" if kind is None else f"on({kind!r})"
            suggestion = f"@listener.{decorator}\ndef handle(message):\n    ...\n"
            log.warning("no handler for %r; to add one:\n\n%s", message, suggestion)
        return routes


class HandlerTimeout(Exception):
    """The handler did not return within its time limit."""


class HandlerExited(Exception):
    """The handler raised something that ends a program or a task, such as SystemExit. It counts as a failure."""


class Invoker:
    def __init__(
        self, router: Router, *, timeout: float, transaction: Callable[[Delivery], Transaction | None] = lambda _: None
    ) -> None:
        self._router, self._transaction, self._deadline = router, transaction, Deadline(timeout)
        self._threads, self._turns = DaemonThreadPool(), LoopTurns()
        self.close = self._threads.close
        self._overrunning: dict[tuple[str, Route], ThreadCall] = {}

    async def deliver(self, lease: Lease, delivery: Delivery) -> Outcome:
        """Call every handler of a message, in the order of their registration, even after one of them failed.

        The message is handled if none failed. Otherwise a later attempt calls all of them again.
        """
        if len(delivery.body) > SMALL_BODY:
            await self._turns.wait(lease.account)
        message = noted(parse_message(delivery.body), delivery.note)
        transaction, attempt = self._transaction(delivery), delivery.attempts + delivery.strikes + 1
        context = Context(delivery.message, attempt, delivery.accepted_at, transaction)
        try:
            failures = [
                await self._failure(route.name, context, self._run(lease.account, route, message, context))
                for route in self._router.matching(message)
            ]
            if not any(failures) and transaction is not None:
                failures = [await self._failure("context.transaction", context, transaction.commit())]
        except AlreadyHandled:
            return Outcome(code="delivered")
        finally:
            if transaction is not None:
                await transaction.close()
        failed = [failure for failure in failures if failure is not None]
        code = failed[0].code if failed else "delivered"
        return Outcome(code=code, excerpt="\n".join(failure.excerpt for failure in failed))

    async def _failure(self, name: str, context: Context, work: Awaitable[None]) -> Outcome | None:
        try:
            await work
        except Exception as error:
            log.exception("%s failed on message %s", name, context.id)
            code = "handler_timeout" if isinstance(error, HandlerTimeout) else "handler_error"
            text = f"{name}\n{''.join(traceback.format_exception(error))[-_EXCERPT_LIMIT:]}"
            # The text of an exception may have characters that stores cannot hold.
            return Outcome(code=code, excerpt=text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode())
        return None

    async def _run(self, account: str, route: Route, message: CallbackMessage, context: Context) -> None:
        """Call a handler, and await what it returns, if that is awaitable, within the time limit."""
        if not route.is_async:
            # The connection belongs to the event loop.
            context = msgspec.structs.replace(context, _transaction=None)
        arguments = (message, context) if route.wants_context else (message,)
        if route.is_async:
            returned = route.handler(*arguments)
        else:
            # A thread cannot be stopped: if the call of an earlier attempt still runs, this attempt takes its result.
            key, limit = (context.id, route), self._deadline.seconds
            if (call := self._overrunning.pop(key, None)) is None:
                call = await self._threads.start(account, limit, route.handler, *arguments)
            try:
                await asyncio.wait({call}, timeout=limit)
            finally:
                # Also if the attempt is cancelled.
                if not call.done():
                    self._overrunning[key] = call
                    self._threads.overrun(call)
            if not call.done():
                raise HandlerTimeout(f"still running after {limit:g} s")
            returned, raised = call.result()
            if isinstance(raised, Exception):
                raise raised
            if raised is not None:
                raise HandlerExited(f"raised {type(raised).__name__}") from raised
        if not inspect.isawaitable(returned):
            return
        try:
            with self._deadline:
                await returned
        except DeadlineExceeded as error:
            raise HandlerTimeout(f"cancelled after {self._deadline.seconds:g} s") from error
        except (Exception, KeyboardInterrupt, GeneratorExit, AlreadyHandled):
            raise
        except BaseException as error:
            task = asyncio.current_task()
            # Else the handler awaited a task that was cancelled.
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0:
                raise
            raise HandlerExited(f"raised {type(error).__name__}") from error


class DaemonThreadPool:
    """Unlike ``concurrent.futures``, it does not keep the process alive for a handler that never returns, and another
    thread takes the place of one whose call is past its limit. Then its account gets no more than its share."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[tuple[ThreadCall, partial[object]] | None] = queue.SimpleQueue()
        self._waiting: dict[asyncio.Future[ThreadCall], tuple[str, partial[object]]] = {}
        self._running: dict[ThreadCall, str] = {}
        self._overran: dict[ThreadCall, str] = {}
        """The accounts of calls, of those that run and of those among them that are past their limit."""
        self._threads, self._logged_at = 0, float("-inf")

    async def start(
        self, account: str, seconds: float, function: Callable[..., object], *arguments: object
    ) -> ThreadCall:
        """Start a call once there is a thread for the account. HandlerTimeout if there is none for so many seconds."""
        loop, context = asyncio.get_running_loop(), contextvars.copy_context()
        started: asyncio.Future[ThreadCall] = loop.create_future()
        self._waiting[started] = account, partial(context.run, function, *arguments)
        self._admit()
        try:
            if not started.done():
                await asyncio.wait({started}, timeout=seconds)
        finally:
            self._waiting.pop(started, None)
        if started.done():
            return started.result()
        whose, overran = "all", list(self._overran.values())
        if account in overran:
            whose, overran = "the account's", [one for one in overran if one == account]
        text = f"{whose} threads are taken for {seconds:g} s, {len(overran)} of them by handlers that did not return"
        if loop.time() - self._logged_at >= _LOG_SECONDS:
            self._logged_at = loop.time()
            log.error("no thread for a handler of account %s: %s", account, text)
        raise HandlerTimeout(text)

    def overrun(self, call: ThreadCall) -> None:
        """A call is past its limit."""
        self._overran[call] = self._running[call]
        self._admit()

    def close(self) -> None:
        for _ in range(self._threads):
            self._calls.put(None)

    def _admit(self) -> None:
        """Start the calls that there is a place for, always one of the account that has the fewest."""
        while self._waiting and len(self._running) - min(len(self._overran), OVERRUNNING) < THREADS:
            running, overran = Counter(self._running.values()), set(self._overran.values())
            of = {one: account for one, (account, _) in self._waiting.items()}
            may = [one for one, account in of.items() if account not in overran or running[account] < SHARE]
            if not may:
                return
            started, loop = min(may, key=lambda one: running[of[one]]), asyncio.get_running_loop()
            account, run = self._waiting.pop(started)
            self._running[call := loop.create_future()] = account
            if len(self._running) > self._threads:
                self._threads += 1
                name = f"fotahook-handler-{self._threads}"
                threading.Thread(target=self._work, args=(loop,), name=name, daemon=True).start()
            started.set_result(call)
            self._calls.put((call, run))

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        while (given := self._calls.get()) is not None:
            call, run = given
            returned, error = None, None
            try:
                returned = run()
            except BaseException as raised:
                error = raised
            try:
                loop.call_soon_threadsafe(self._finish, call, (returned, error))
            except RuntimeError:
                log.warning("%r ended after the listener had stopped", run.args[0])

    def _finish(self, call: ThreadCall, returned: Returned) -> None:
        del self._running[call]
        self._overran.pop(call, None)
        call.set_result(returned)
        self._admit()

"""Calling handlers: within a time limit, and so that nothing a handler does can stop the listener."""

import asyncio
import contextvars
import inspect
import logging
import queue
import threading
import traceback
from collections.abc import Callable
from typing import Final

import msgspec

from fotahook.contract.messages import CallbackMessage, parse_message
from fotahook.delivery import Deadline, Outcome
from fotahook.store.records import Delivery, Lease

from .handlers import Context, Router, Rule

log = logging.getLogger("fotahook.listener")

THREADS: Final = 32
"""Plain functions that run at once. The next wait for a free thread, and their time limits begin when they have it."""
_EXCERPT_LIMIT: Final = 4000


class Overran(Exception):
    """The handler did not return within its time limit."""


class Stopped(Exception):
    """The handler raised what is meant to end a program or a task; to the listener it only failed."""


class Result(msgspec.Struct, frozen=True):
    """What a function in a thread came to; an error travels as a value, since not every one may be set on a future."""

    value: object = None
    error: BaseException | None = None


class Caller:
    """Shows messages to the handlers of a router. Belongs to one event loop; ``deliver`` is for its dispatcher."""

    def __init__(self, router: Router, *, timeout: float) -> None:
        self._router = router
        self._timeout = timeout
        self._deadline = Deadline(timeout)
        self._threads = Threads(THREADS)
        self._overrunning: dict[tuple[str, Rule], asyncio.Future[Result]] = {}

    async def deliver(self, lease: Lease, delivery: Delivery) -> Outcome:
        """Let every handler that wants it see a message, in the order of their registration.

        All of them are called, even after one failed; the message counts as handled when none did, and is otherwise
        shown to all of them again later.
        """
        message = parse_message(delivery.body)
        context = Context(
            id=delivery.message,
            attempt=delivery.attempts + delivery.strikes + 1,
            received_at=delivery.accepted_at,
        )
        failures = [
            failure
            for rule in self._router.wanting(message)
            if (failure := await self._call(rule, message, context)) is not None
        ]
        if not failures:
            return Outcome(code="delivered")
        return Outcome(code=failures[0].code, excerpt="\n".join(failure.excerpt for failure in failures))

    def close(self) -> None:
        """Let the threads end when they have nothing more to do."""
        self._threads.close()

    async def _call(self, rule: Rule, message: CallbackMessage, context: Context) -> Outcome | None:
        arguments = (message, context) if rule.wants_context else (message,)
        try:
            if rule.is_async:
                await self._limited(rule.handler(*arguments))
            else:
                await self._limited(await self._call_in_thread(rule, arguments, context.id))
        except Exception as error:
            log.exception("handler %s failed on message %s", rule.name, context.id)
            return Outcome(
                code="handler_timeout" if isinstance(error, Overran) else "handler_error",
                excerpt=_excerpt(rule, error),
            )
        return None

    async def _limited(self, returned: object) -> None:
        """Wait for what a handler returned, if that is something to wait for."""
        if not inspect.isawaitable(returned):
            return
        own: TimeoutError | None = None
        try:
            with self._deadline:
                try:
                    await returned
                except TimeoutError as error:
                    own = error
        except TimeoutError as error:
            raise Overran(f"it was ended after {self._timeout:g} s") from error
        except BaseException as error:
            if isinstance(error, Exception | KeyboardInterrupt | GeneratorExit) or _is_own_cancellation(error):
                raise
            raise Stopped(f"it raised {type(error).__name__}") from error
        if own is not None:
            raise own

    async def _call_in_thread(self, rule: Rule, arguments: tuple[object, ...], message_id: str) -> object:
        """What a plain handler returned.

        A thread cannot be ended from outside. So where an earlier attempt at the same message overran and still runs,
        its end is waited for once more, and counts, instead of a second call beside it.
        """
        place = (message_id, rule)
        running = self._overrunning.pop(place, None) or await self._threads.start(rule.handler, *arguments)
        await asyncio.wait({running}, timeout=self._timeout)
        if not running.done():
            self._overrunning[place] = running
            raise Overran(f"it still runs after {self._timeout:g} s")
        result = running.result()
        if result.error is None:
            return result.value
        if isinstance(result.error, Exception):
            raise result.error
        raise Stopped(f"it raised {type(result.error).__name__}") from result.error


class Threads:
    """Up to `limit` threads, started as they are needed.

    They are daemons: a handler that never returns must not keep the process from ending, as it would in a thread of
    ``concurrent.futures``.
    """

    def __init__(self, limit: int) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._free = asyncio.Semaphore(limit)
        self._busy = 0
        self._started = 0

    async def start(self, function: Callable[..., object], *arguments: object) -> asyncio.Future[Result]:
        """Begin a call, as soon as a thread is free for it; the future has its result and is not to be cancelled."""
        await self._free.acquire()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        context = contextvars.copy_context()

        def call() -> None:
            try:
                result = Result(context.run(function, *arguments))
            except BaseException as error:
                result = Result(error=error)
            try:
                loop.call_soon_threadsafe(self._finish, future, result)
            except RuntimeError:
                log.warning("%r ended after the listener had stopped", function)

        self._busy += 1
        if self._busy > self._started:
            self._started += 1
            threading.Thread(target=self._work, name=f"fotahook-handler-{self._started}", daemon=True).start()
        self._calls.put(call)
        return future

    def close(self) -> None:
        """End each thread when it has nothing more to do."""
        for _ in range(self._started):
            self._calls.put(None)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()

    def _finish(self, future: asyncio.Future[Result], result: Result) -> None:
        self._busy -= 1
        self._free.release()
        future.set_result(result)


def _is_own_cancellation(error: BaseException) -> bool:
    """Whether somebody cancels the current task; otherwise a handler let out the cancellation of a task of its own."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0


def _excerpt(rule: Rule, error: Exception) -> str:
    text = "".join(traceback.format_exception(error))[-_EXCERPT_LIMIT:]
    # An exception's text may hold anything, also what no inbox can store.
    return f"{rule.name}\n{text}".replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()

"""Calling handlers: within a time limit, and so that nothing a handler raises can stop the listener."""

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
from fotahook.delivery import Deadline, DeadlineExceeded, Outcome
from fotahook.store.records import Delivery, Lease

from .handlers import Context, Route, Router

log = logging.getLogger("fotahook.listener")

THREADS: Final = 32
"""Plain handlers that run at once. Others wait for a free thread; their time limit starts when they have one."""
_EXCERPT_LIMIT: Final = 4000


class HandlerTimeout(Exception):
    """The handler did not return within its time limit."""


class HandlerExited(Exception):
    """The handler raised something that ends a program or a task, such as SystemExit. It counts as a failure."""


class CallResult(msgspec.Struct, frozen=True):
    """The result of a call in a thread. An error is a value here because a future cannot hold every exception."""

    value: object = None
    error: BaseException | None = None


class Invoker:
    """Calls the handlers of a router. Belongs to one event loop; its dispatcher uses ``deliver``."""

    def __init__(self, router: Router, *, timeout: float) -> None:
        self._router = router
        self._timeout = timeout
        self._deadline = Deadline(timeout)
        self._threads = DaemonThreadPool(THREADS)
        self._overrunning: dict[tuple[str, Route], asyncio.Future[CallResult]] = {}

    async def deliver(self, lease: Lease, delivery: Delivery) -> Outcome:
        """Call every handler of a message, in the order of their registration, even after one of them failed.

        The message is handled if none failed. Otherwise a later attempt calls all of them again.
        """
        message = parse_message(delivery.body)
        context = Context(
            id=delivery.message,
            attempt=delivery.attempts + delivery.strikes + 1,
            received_at=delivery.accepted_at,
        )
        failures = [
            failure
            for route in self._router.matching(message)
            if (failure := await self._call(route, message, context)) is not None
        ]
        if not failures:
            return Outcome(code="delivered")
        return Outcome(code=failures[0].code, excerpt="\n".join(failure.excerpt for failure in failures))

    def close(self) -> None:
        """Let the threads end after their current calls."""
        self._threads.close()

    async def _call(self, route: Route, message: CallbackMessage, context: Context) -> Outcome | None:
        arguments = (message, context) if route.wants_context else (message,)
        try:
            if route.is_async:
                await self._await(route.handler(*arguments))
            else:
                await self._await(await self._call_in_thread(route, arguments, context.id))
        except Exception as error:
            log.exception("handler %s failed on message %s", route.name, context.id)
            code = "handler_timeout" if isinstance(error, HandlerTimeout) else "handler_error"
            return Outcome(code=code, excerpt=_excerpt(route, error))
        return None

    async def _await(self, returned: object) -> None:
        """Await what a handler returned, if it is awaitable, within the time limit."""
        if not inspect.isawaitable(returned):
            return
        try:
            with self._deadline:
                await returned
        except DeadlineExceeded as error:
            raise HandlerTimeout(f"cancelled after {self._timeout:g} s") from error
        except (Exception, KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:
            if _is_own_cancellation(error):
                raise
            raise HandlerExited(f"raised {type(error).__name__}") from error

    async def _call_in_thread(self, route: Route, arguments: tuple[object, ...], message_id: str) -> object:
        """What a plain handler returned.

        A thread cannot be stopped from outside. If the call of an earlier attempt at the same message still runs, this
        attempt waits for that call and takes its result instead of starting a second one beside it.
        """
        key = (message_id, route)
        running = self._overrunning.pop(key, None) or await self._threads.submit(route.handler, *arguments)
        await asyncio.wait({running}, timeout=self._timeout)
        if not running.done():
            self._overrunning[key] = running
            raise HandlerTimeout(f"still running after {self._timeout:g} s")
        result = running.result()
        if result.error is None:
            return result.value
        if isinstance(result.error, Exception):
            raise result.error
        raise HandlerExited(f"raised {type(result.error).__name__}") from result.error


class DaemonThreadPool:
    """Up to `limit` threads, started as they are needed.

    Unlike the threads of ``concurrent.futures``, daemon threads do not keep the process alive for a handler that never
    returns.
    """

    def __init__(self, limit: int) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._free = asyncio.Semaphore(limit)
        self._busy = 0
        self._started = 0

    async def submit(self, function: Callable[..., object], *arguments: object) -> asyncio.Future[CallResult]:
        """Start a call once a thread is free. The caller must not cancel the future that it returns."""
        await self._free.acquire()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[CallResult] = loop.create_future()
        context = contextvars.copy_context()

        def call() -> None:
            try:
                result = CallResult(context.run(function, *arguments))
            except BaseException as error:
                result = CallResult(error=error)
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
        """End each thread after its current call."""
        for _ in range(self._started):
            self._calls.put(None)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()

    def _finish(self, future: asyncio.Future[CallResult], result: CallResult) -> None:
        self._busy -= 1
        self._free.release()
        future.set_result(result)


def _is_own_cancellation(error: BaseException) -> bool:
    """Whether the current task itself is being cancelled; otherwise the handler awaited a task that was cancelled."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0


def _excerpt(route: Route, error: Exception) -> str:
    text = "".join(traceback.format_exception(error))[-_EXCERPT_LIMIT:]
    # The text of an exception may have characters that stores cannot hold.
    return f"{route.name}\n{text}".replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()

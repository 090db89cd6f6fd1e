"""WSGI: puts messages into a listener's inbox and answers. Its handlers run in ``fotahook listen MODULE:NAME``.

A WSGI server may end or freeze its processes between any two requests, which is no place for handlers.
"""

import asyncio
import concurrent.futures
import functools
import os
import threading
import weakref
from collections.abc import Callable, Coroutine, Iterable, Iterator
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, TypeVar

from fotahook.store import Store
from fotahook.store.health import StoreHealth
from fotahook.store.records import Accepted, NewMessage, StoreError, StoreUnavailable

from .. import responses
from ..app import Listener
from ..inbox import open_inbox, pulse_of
from ..intake import BODY_LIMIT
from ..requests import CUT_OFF, HEALTH_PATH, TOO_LONG, announced_too_long
from ..responses import Answer
from ..verification import Rejected

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

T = TypeVar("T")

CLOSE_SECONDS: Final = 15.0
STOPPING: Final = "the listener is stopping"


class WsgiListener:
    """A WSGI app that receives for a listener: a message answered with 200 is on disk. Good for any number of threads.

    The inbox is opened by the first message, in each process anew: a server may fork after it loaded the app.
    """

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._lock = threading.Lock()
        self._intake: Intake | None = None
        self._left_behind: list[Intake] = []
        # Python forgets none of these calls, and must not keep every listener for their sake.
        os.register_at_fork(after_in_child=functools.partial(_begin_anew, weakref.ref(self)))

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        answer = self._respond(environ)
        status = HTTPStatus(answer.status)
        start_response(f"{status.value} {status.phrase}", answer.all_headers())
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [answer.body]

    def close(self) -> None:
        """Let go of the inbox; the next message opens it again."""
        with self._lock:
            intake, self._intake = self._intake, None
        if intake is not None:
            intake.close()

    def begin_anew(self) -> None:
        """After a fork: threads stayed behind, and what one of them held is held for ever."""
        self._lock = threading.Lock()
        if self._intake is not None:
            # Kept, for nothing of it may be closed here: SQLite forbids it, and the loop's selector is the parent's.
            self._left_behind.append(self._intake)
            self._intake = None
        self._listener.reception.begin_anew()

    def _respond(self, environ: "WSGIEnvironment") -> Answer:
        reception = self._listener.reception
        # PEP 3333: bytes as latin-1.
        path = environ.get("PATH_INFO", "").encode("latin-1").decode("utf-8", "replace").rstrip("/")
        method: str = environ["REQUEST_METHOD"]
        if path == HEALTH_PATH:
            return reception.health(self._trouble()) if method in ("GET", "HEAD") else responses.GET_ONLY
        if (elsewhere := reception.elsewhere(method, path)) is not None:
            return elsewhere
        peer: str | None = environ.get("REMOTE_ADDR")
        headers: dict[str, str] = {}
        try:
            headers = reception.admit(_headers(environ), peer)
            message = reception.take(headers, _read_body(environ))
            reception.warn_if_open()
            return reception.stored(self._accept(message))
        except (Rejected, StoreError) as error:
            return reception.refuse(error, peer, headers)

    def _trouble(self) -> StoreError | None:
        intake = self._intake
        return None if intake is None else intake.trouble()

    def _accept(self, message: NewMessage) -> Accepted:
        with self._lock:
            if self._intake is None:
                self._intake = Intake(self._listener.inbox, self._listener.reception.clock)
            intake = self._intake
        return intake.accept(message)


def _begin_anew(adapter: "weakref.ref[WsgiListener]") -> None:
    if (alive := adapter()) is not None:
        alive.begin_anew()


class Intake:
    """An open inbox in an event loop of its own, so that the messages of many threads share their commits."""

    def __init__(self, url: str, clock: Callable[[], float]) -> None:
        self._url = url
        self._clock = clock
        self._store: Store | None = None
        self._pulse: StoreHealth | None = None
        self._opening = asyncio.Lock()
        self._asked: set[asyncio.Task[object]] = set()
        self._ending = asyncio.Event()
        # What is asked of a loop after its last turn is never answered.
        self._asking = threading.Lock()
        self._ended = False
        # With a factory: without one the runner would make its loop the current one of the thread that is here.
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._loop = self._runner.get_loop()
        self._thread = threading.Thread(target=self._run, name="fotahook inbox", daemon=True)
        self._thread.start()

    def accept(self, message: NewMessage) -> Accepted:
        """Store a message; on return it is on disk. StoreError if it is not."""
        return self._ask(lambda: self._accept(message))

    def trouble(self) -> StoreError | None:
        """Why nothing can be stored; None if it can, or if the inbox is not open yet."""
        try:
            return self._ask(self._trouble)
        except StoreUnavailable as error:
            return error

    def close(self) -> None:
        """Finish what was asked for, refuse what is asked from now on, and end the thread."""
        with self._asking:
            self._ended = True
            self._loop.call_soon_threadsafe(self._ending.set)
        # Once for what was asked, once for the store.
        self._thread.join(2 * CLOSE_SECONDS)

    def _ask(self, work: Callable[[], Coroutine[object, object, T]]) -> T:
        """What came of it in the loop, which ends nothing without an answer: what takes too long is cancelled."""
        with self._asking:
            if self._ended:
                raise StoreUnavailable(STOPPING)
            asked = asyncio.run_coroutine_threadsafe(self._counted(work()), self._loop)
        try:
            return asked.result()
        except concurrent.futures.CancelledError as error:
            raise StoreUnavailable(STOPPING) from error

    async def _counted(self, work: Coroutine[object, object, T]) -> T:
        task = asyncio.current_task()
        assert task is not None  # run_coroutine_threadsafe makes one
        self._asked.add(task)
        try:
            return await work
        finally:
            self._asked.discard(task)

    def _run(self) -> None:
        with self._runner as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        await self._ending.wait()
        if self._asked:
            _, late = await asyncio.wait(self._asked, timeout=CLOSE_SECONDS)
            for task in late:
                task.cancel()
        if self._store is not None:
            await self._store.close()

    async def _accept(self, message: NewMessage) -> Accepted:
        async with self._opening:
            if self._store is None:
                try:
                    self._store = await open_inbox(self._url, self._clock)
                except (ValueError, ImportError) as error:
                    raise StoreUnavailable(str(error)) from error
                self._pulse = pulse_of(self._store)
        (accepted,) = await self._store.accept([message])
        return accepted

    async def _trouble(self) -> StoreError | None:
        return None if self._pulse is None else await self._pulse.error()


def _headers(environ: "WSGIEnvironment") -> Iterator[tuple[bytes, bytes]]:
    for name, value in environ.items():
        if name.startswith("HTTP_"):
            yield name[5:].replace("_", "-").lower().encode("latin-1"), value.encode("latin-1")


def _read_body(environ: "WSGIEnvironment") -> bytes:
    announced: str = environ.get("CONTENT_LENGTH") or ""
    if announced_too_long(announced):
        raise Rejected(413, TOO_LONG)
    read: Callable[[int], bytes] = environ["wsgi.input"].read
    if announced.isascii() and announced.isdigit():
        length = int(announced)
        body = read(length)
        if len(body) < length:
            raise Rejected(400, CUT_OFF)
        return body
    if not environ.get("wsgi.input_terminated"):
        # Reading might go on into the next request.
        raise Rejected(400, "the body is empty, or has no Content-Length, without which its end is not known here")
    return read(BODY_LIMIT + 1)

"""A WSGI adapter: stores messages in a listener's inbox. Its handlers run in ``fotahook listen MODULE:NAME``.

A WSGI server may stop or suspend its processes between any two requests, so handlers cannot run there.
"""

import asyncio
import concurrent.futures
import os
import threading
import weakref
from collections.abc import Callable, Coroutine, Iterable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, TypeVar

from fotahook.contract.errors import WebhookRejected
from fotahook.store.records import Accepted, NewMessage, StoreError, StoreUnavailable
from fotahook.store.sqlite.store import run_to_end

from ..app import BODY_CUT_OFF, Listener
from ..inbox import Inbox
from ..intake import BODY_LIMIT

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

T = TypeVar("T")

CLOSE_SECONDS: Final = 15.0
STOPPING: Final = "the listener is stopping"


class WsgiListener:
    """A WSGI app that receives for a listener: a message answered with 200 is on disk. Thread-safe.

    The first message opens the inbox, separately in each process, because a server may fork after it loaded the app.
    """

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._lock = threading.Lock()
        self._inbox: InboxThread | None = None
        self._of_parents: list[InboxThread] = []
        # Python keeps these callbacks for good; the weak reference lets the adapter go.
        after_fork = weakref.WeakMethod(self.after_fork)
        os.register_at_fork(after_in_child=lambda: (call := after_fork()) and call())

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        # PEP 3333 has the bytes of the path decoded as latin-1.
        path = environ.get("PATH_INFO", "").encode("latin-1").decode("utf-8", "replace").rstrip("/")
        method: str = environ["REQUEST_METHOD"]

        async def read_body(headers: Mapping[str, str], peer: str | None) -> bytes:
            length: str = environ.get("CONTENT_LENGTH") or ""
            read: Callable[[int], bytes] = environ["wsgi.input"].read
            if length.isascii() and length.isdigit():
                # Long numbers are refused, but not leading zeros, of which int() takes only so many.
                size = int(length.lstrip("0") or "0")
                if len(body := read(size)) < size:
                    raise WebhookRejected(400, BODY_CUT_OFF)
                return body
            if not environ.get("wsgi.input_terminated"):
                # Reading on might take bytes of the next request.
                raise WebhookRejected(400, "the body is empty, or has no Content-Length to say where it ends")
            return read(BODY_LIMIT + 1)

        given = (
            (name.removeprefix("HTTP_").replace("_", "-").lower().encode("latin-1"), value.encode("latin-1"))
            for name, value in environ.items()
            if name.startswith("HTTP_") or name == "CONTENT_LENGTH"
        )
        request = (method, path, environ.get("REMOTE_ADDR"), given, read_body)
        response = run_to_end(self._listener.request_handler.respond(*request, self._accept, self._check))
        status = HTTPStatus(response.status)
        headers = [(name.decode(), value.decode()) for name, value in response.headers]
        start_response(f"{status.value} {status.phrase}", headers)
        return [] if method == "HEAD" else [response.body]

    async def _accept(self, message: NewMessage) -> Accepted:
        with self._lock:
            if self._inbox is None:
                self._inbox = InboxThread(self._listener.receiving_inbox())
            inbox = self._inbox
        return inbox.call(lambda inbox: inbox.accept(message))

    async def _check(self) -> StoreError | None:
        inbox = self._inbox
        try:
            return None if inbox is None else inbox.call(Inbox.check)
        except StoreUnavailable as error:
            return error

    def close(self) -> None:
        """Close the inbox; the next message opens it again."""
        with self._lock:
            inbox, self._inbox = self._inbox, None
        if inbox is not None:
            inbox.close()

    def after_fork(self) -> None:
        """Start afresh in the child process: it has no threads of its parent, but may have locks that they held."""
        self._lock = threading.Lock()
        if self._inbox is not None:
            # Kept open: SQLite forbids closing it here, and the loop's selector is shared with the parent.
            self._of_parents.append(self._inbox)
            self._inbox = None
        self._listener.request_handler.after_fork()


class InboxThread:
    """An inbox in a thread with its own event loop, so that the messages of many threads share commits."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        # Guards `_closed`: work that is scheduled after the inbox is closed would open it again.
        self._lock = threading.Lock()
        self._closed = False
        self._closing = asyncio.Event()
        self._pending: set[concurrent.futures.Future[Any]] = set()
        # Unlike a loop that is only stopped, a runner ends the tasks that are left.
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._loop = self._runner.get_loop()
        self._thread = threading.Thread(target=self._run, name="fotahook inbox", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Complete pending calls, refuse further ones, and end the thread."""
        with self._lock:
            self._closed = True
        self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join(2 * CLOSE_SECONDS)

    def call(self, work: Callable[[Inbox], Coroutine[object, object, T]]) -> T:
        """What `work` returns in the loop, which always completes or cancels it. StoreUnavailable once it is closed."""
        with self._lock:
            if self._closed:
                raise StoreUnavailable(STOPPING)
            call = asyncio.run_coroutine_threadsafe(work(self._inbox), self._loop)
            self._pending.add(call)
        try:
            return call.result()
        except concurrent.futures.CancelledError as error:
            raise StoreUnavailable(STOPPING) from error
        finally:
            self._pending.discard(call)

    def _run(self) -> None:
        with self._runner:
            self._runner.run(self._serve())

    async def _serve(self) -> None:
        await self._closing.wait()
        if calls := [asyncio.wrap_future(call) for call in tuple(self._pending)]:
            _, late = await asyncio.wait(calls, timeout=CLOSE_SECONDS)
            for call in late:
                call.cancel()
        await self._inbox.close()

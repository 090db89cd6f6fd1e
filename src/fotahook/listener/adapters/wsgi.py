"""WSGI: puts messages into a listener's inbox and answers. Its handlers run in ``fotahook listen MODULE:NAME``.

A WSGI server may end or freeze its processes between any two requests, which is no place for handlers.
"""

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from fotahook.store import Store
from fotahook.store.base import Accepted, NewMessage, StoreError, StoreUnavailable
from fotahook.store.pulse import Pulse

from .. import answers
from ..answers import Answer
from ..app import Listener
from ..inbox import open_inbox, pulse_of
from ..proof import Rejected
from ..receive import BODY_LIMIT
from ..reception import CUT_OFF, HEALTH_PATH, TOO_LONG, announced_too_long

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

log = logging.getLogger("fotahook.listener")

CLOSE_SECONDS: Final = 15.0


class WsgiListener:
    """A WSGI app that receives for a listener: a message answered with 200 is on disk. Good for any number of threads.

    The inbox is opened by the first message, in each process anew.
    """

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._lock = threading.Lock()
        self._intake: Intake | None = None

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        answer = self._respond(environ)
        status = HTTPStatus(answer.status)
        start_response(f"{status.value} {status.phrase}", answer.all_headers())
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [answer.body]

    def close(self) -> None:
        """Let go of the inbox; the next message opens it again."""
        with self._lock:
            intake, self._intake = self._intake, None
        if intake is not None and intake.is_ours:
            intake.close()

    def _respond(self, environ: "WSGIEnvironment") -> Answer:
        reception = self._listener.reception
        # PEP 3333: bytes as latin-1.
        path = environ.get("PATH_INFO", "").encode("latin-1").decode("utf-8", "replace").rstrip("/")
        method: str = environ["REQUEST_METHOD"]
        if path == HEALTH_PATH:
            return reception.health(self._trouble()) if method in ("GET", "HEAD") else answers.GET_ONLY
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
        with self._lock:
            intake = self._intake
        return intake.trouble() if intake is not None and intake.is_ours else None

    def _accept(self, message: NewMessage) -> Accepted:
        with self._lock:
            # A server may fork after it loaded the app: threads stay behind.
            if self._intake is None or not self._intake.is_ours:
                self._intake = Intake(self._listener.inbox, self._listener.reception.clock)
            intake = self._intake
        return intake.accept(message)


class Intake:
    """An open inbox in an event loop of its own, so that the messages of many threads share their commits."""

    def __init__(self, url: str, clock: Callable[[], float]) -> None:
        self._url = url
        self._clock = clock
        self._pid = os.getpid()
        self._store: Store | None = None
        self._pulse: Pulse | None = None
        self._loop = asyncio.new_event_loop()
        self._opening = asyncio.Lock()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fotahook inbox", daemon=True)
        self._thread.start()

    @property
    def is_ours(self) -> bool:
        """Whether it was made in this process."""
        return self._pid == os.getpid()

    def accept(self, message: NewMessage) -> Accepted:
        """Store a message; on return it is on disk. StoreError if it is not."""
        return asyncio.run_coroutine_threadsafe(self._accept(message), self._loop).result()

    def trouble(self) -> StoreError | None:
        """Why nothing can be stored; None if it can, or if the inbox is not open yet."""
        return asyncio.run_coroutine_threadsafe(self._trouble(), self._loop).result()

    def close(self) -> None:
        """Finish what is being written, and end the thread."""
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(CLOSE_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CLOSE_SECONDS)
        self._loop.close()

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
        return None if self._pulse is None else await self._pulse.trouble()

    async def _close(self) -> None:
        if self._store is not None:
            await self._store.close()


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

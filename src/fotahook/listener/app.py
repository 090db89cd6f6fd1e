"""The listener: an ASGI app that answers 2xx only for messages that are on disk, and shows them to handlers."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Final

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from fotahook.delivery import Rules
from fotahook.store.base import StoreError, StoreFull

from .handlers import HandlerT, Router
from .inbox import Inbox
from .receive import BODY_LIMIT, Proof, Rejected, receive, single_headers

log = logging.getLogger("fotahook.listener")

HANDLER_SECONDS: Final = 30.0
BODY_SECONDS: Final = 30.0
SCHEDULE: Final = Rules().schedule
HEALTH_PATH: Final = "/healthz"


class Listener:
    """Receives callback messages into a durable inbox and drives handlers from there. An ASGI app.

    A message answered with 200 is on disk. Each one is shown to every handler that wants it at least once; repetitions
    of a message (same ``webhook-id``, or without one the same bytes within the same hour) are dropped. A handler that
    raises is tried again later.
    """

    def __init__(
        self,
        inbox: str = "sqlite:///inbox.db",
        *,
        secrets: Iterable[str] = (),
        public_keys: Iterable[str] = (),
        path: str = "/",
        handler_timeout: float = HANDLER_SECONDS,
        body_timeout: float = BODY_SECONDS,
        schedule: Sequence[float] = SCHEDULE,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`secrets` (``whsec_…``) and `public_keys` (``whpk_…``): one of them must have signed each message.

        ThingSpace itself signs nothing, so with none of either given every message is taken, and a warning is logged.
        `path` is where messages are received, within the path that the listener is mounted at. `handler_timeout` and
        `body_timeout` are in seconds. `schedule` has the pause in seconds before each attempt at one message; after
        the last of them it is dead. ValueError for a key that cannot be read, and for any other impossible value.
        """
        if handler_timeout <= 0:
            raise ValueError("handler_timeout is a number of seconds above 0")
        if not schedule or min(schedule) < 0:
            raise ValueError("schedule has a pause of 0 seconds or more for each attempt, and at least one")
        self._path = _checked_path(path)
        self._proof = Proof.of(secrets, public_keys)
        self._body_timeout = body_timeout
        self._clock = clock
        self._router = Router()
        self._inbox = Inbox(inbox, self._router, handler_timeout=handler_timeout, schedule=schedule, clock=clock)
        self._warned = False

    @property
    def inbox(self) -> str:
        """The URL of the inbox."""
        return self._inbox.url

    @property
    def path(self) -> str:
        """Where messages are received."""
        return self._path

    def configure(
        self,
        *,
        inbox: str | None = None,
        secrets: Iterable[str] = (),
        public_keys: Iterable[str] = (),
        path: str | None = None,
    ) -> None:
        """Replace what the constructor was given; keys replace keys only if there are any.

        ValueError as from the constructor, with nothing replaced; RuntimeError once the inbox is open.
        """
        if self._inbox.in_use:
            raise RuntimeError("the listener is running: configure it before its first message")
        proof = Proof.of(secrets, public_keys)
        self._path = self._path if path is None else _checked_path(path)
        self._inbox.url = inbox or self._inbox.url
        self._proof = proof if proof.wanted else self._proof

    def on(
        self, kind: str | None = None, *, status: str | None = None, account: str | None = None
    ) -> Callable[[HandlerT], HandlerT]:
        """Register a handler for messages of a kind, that name a status, of an account; what is not given is any."""
        if callable(kind):
            raise TypeError("write @listener.on(…) with its parentheses, or @listener.on_any")

        def register(handler: HandlerT) -> HandlerT:
            return self._router.add(handler, kind, status, account)

        return register

    def on_any(self, handler: HandlerT) -> HandlerT:
        """Register a handler for every message."""
        return self._router.add(handler, None, None, None)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Listener"]:
        """Open the inbox and drive the handlers; on leaving, let those in hand end and close it.

        What the app's lifespan does; for hosts that send none. StoreError says what is wrong with the inbox.
        """
        await self._open()
        try:
            yield self
        finally:
            await self._inbox.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            response = await self._respond(Request(scope, receive))
            await response(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000, "reason": "messages are POSTed"})
        else:
            raise ValueError(f"the listener speaks HTTP, not {scope['type']}")

    async def _respond(self, request: Request) -> Response:
        path = _path_within(request.scope)
        if path == HEALTH_PATH:
            return self._answer_health(request.method)
        if path.rstrip("/") != self._path.rstrip("/"):
            # The path may be all that keeps others out, so it is not told.
            return _problem(404, "NOT_FOUND", "nothing is received here")
        if request.method != "POST":
            return _problem(405, "METHOD_NOT_ALLOWED", "messages are POSTed", {"Allow": "POST"})
        try:
            return await self._take(request)
        except Rejected as error:
            log.warning("refused a message with %d: %s", error.status, error)
            return _problem(error.status, "MESSAGE_REFUSED", str(error), _farewell(request))
        except StoreFull as error:
            log.error("the inbox is full: %s", error)
            return _problem(507, "INBOX_FULL", "there is no room left for messages")
        except StoreError as error:
            log.error("the inbox is away: %s", error)
            return _problem(503, "INBOX_AWAY", "messages cannot be stored now", {"Retry-After": "5"})

    async def _take(self, request: Request) -> Response:
        headers = single_headers(request.headers.raw)
        body = await self._read_body(request)
        message = receive(headers, body, proof=self._proof, now=self._clock())
        await self._open()
        accepted = await self._inbox.accept(message)
        if accepted.conflict:
            # These bytes are not on disk, and never will be: only an error is a true answer.
            raise Rejected(409, "this webhook-id came earlier with another message")
        return JSONResponse({"id": accepted.id, "duplicate": accepted.duplicate})

    async def _read_body(self, request: Request) -> bytes:
        too_long = Rejected(413, f"the body has more than {BODY_LIMIT} bytes")
        announced = request.headers.get("content-length", "")
        if announced.isascii() and announced.isdigit() and int(announced[:20]) > BODY_LIMIT:
            raise too_long
        body = bytearray()
        try:
            async with asyncio.timeout(self._body_timeout):
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > BODY_LIMIT:
                        raise too_long
        except TimeoutError as error:
            raise Rejected(408, f"the body did not arrive within {self._body_timeout:g} s") from error
        except ClientDisconnect as error:
            raise Rejected(400, "the sender hung up in the middle of the body") from error
        return bytes(body)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self._open()
        except (StoreError, ValueError) as error:
            await send({"type": "lifespan.startup.failed", "message": f"the listener cannot start: {error}"})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._inbox.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _open(self) -> None:
        if not (self._warned or self._proof.wanted):
            self._warned = True
            log.warning("no key is configured: anybody who reaches this listener can send it messages")
        await self._inbox.open()

    def _answer_health(self, method: str) -> Response:
        if method not in ("GET", "HEAD"):
            return _problem(405, "METHOD_NOT_ALLOWED", "health is read with GET", {"Allow": "GET, HEAD"})
        if self._inbox.abandoned:
            return _problem(503, "NOT_HANDLING", "messages are stored but no longer handled: see the log, then restart")
        return JSONResponse({"status": "ok"})


def _checked_path(path: str) -> str:
    if not path.startswith("/"):
        raise ValueError(f"a path begins with /, unlike {path!r}")
    if path.rstrip("/") == HEALTH_PATH:
        raise ValueError(f"{HEALTH_PATH} is taken: it tells whether the listener is well")
    return path


def _path_within(scope: Scope) -> str:
    """The path below the one that the app is mounted at, which hosts leave in `path` and name in `root_path`."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "").rstrip("/")
    if root and (path == root or path.startswith(f"{root}/")):
        return path[len(root) :] or "/"
    return path


def _farewell(request: Request) -> dict[str, str]:
    """Headers of a refusal: what was not read of the body must not be read as the next request."""
    return {"Connection": "close"} if request.scope.get("http_version", "").startswith("1") else {}


def _problem(status: int, code: str, text: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"errorCode": code, "errorMessage": text}, status, headers)

"""The listener: an ASGI app that answers 2xx only for messages that are on disk, and shows them to handlers."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Final

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from fotahook.contract.signing import parse_public_key, parse_secret
from fotahook.delivery import Dispatcher, Rules, Timings
from fotahook.store import Store, open_store
from fotahook.store.base import StoreError, StoreFull

from .handlers import HandlerT, Router
from .receive import BODY_LIMIT, Proof, Rejected, receive

log = logging.getLogger("fotahook.listener")

HANDLER_SECONDS: Final = 30.0
BODY_SECONDS: Final = 30.0


class Listener:
    """Receives callback messages into a durable inbox and drives handlers from there. An ASGI app.

    A message answered with 200 is on disk. Each one is shown to every handler that wants it at least once; repetitions
    of a message (same ``webhook-id``, or the same bytes within an hour) are dropped. A handler that raises is tried
    again later, by the delivery schedule.
    """

    def __init__(
        self,
        inbox: str = "sqlite:///inbox.db",
        *,
        secrets: Iterable[str] = (),
        public_keys: Iterable[str] = (),
        path: str = "/",
        handler_timeout: float = HANDLER_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`secrets` (``whsec_…``) and `public_keys` (``whpk_…``): one of them must have signed each message.

        ThingSpace itself signs nothing, so with none of either given every message is taken, and a warning is logged.
        `handler_timeout` is in seconds. ValueError for a key that cannot be read.
        """
        self._inbox = inbox
        self._path = path
        self._proof = Proof(
            secrets=tuple(parse_secret(text) for text in secrets),
            public_keys=tuple(parse_public_key(text) for text in public_keys),
        )
        self._clock = clock
        self._handler_timeout = handler_timeout
        self._router = Router(timeout=handler_timeout)
        self._store: Store | None = None
        self._dispatching: asyncio.Task[None] | None = None
        self._opening = asyncio.Lock()

    def configure(
        self,
        *,
        inbox: str | None = None,
        secrets: Iterable[str] = (),
        public_keys: Iterable[str] = (),
        path: str | None = None,
    ) -> None:
        """Replace what the constructor was given, before the first request; keys replace keys only if there are any."""
        self._inbox = inbox or self._inbox
        self._path = path or self._path
        proof = Proof(
            secrets=tuple(parse_secret(text) for text in secrets),
            public_keys=tuple(parse_public_key(text) for text in public_keys),
        )
        self._proof = proof if proof.wanted else self._proof

    @property
    def path(self) -> str:
        """The path at which messages are received."""
        return self._path

    @property
    def inbox(self) -> str:
        """The URL of the store that messages are kept in."""
        return self._inbox

    def on(
        self, kind: str | None = None, *, status: str | None = None, account: str | None = None
    ) -> Callable[[HandlerT], HandlerT]:
        """Register a handler for messages of a kind, that name a status, of an account; what is not given is any."""

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
            await self._close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            response = await self._respond(Request(scope, receive))
            await response(scope, receive, send)
        else:
            raise ValueError(f"the listener speaks HTTP, not {scope['type']}")

    async def _respond(self, request: Request) -> Response:
        path = request.scope["path"].removeprefix(request.scope.get("root_path", "")) or "/"
        if path == "/healthz":
            return _answer_health(self._dispatching)
        if path != self._path:
            return _problem(404, "NOT_FOUND", f"messages are received at {self._path}")
        if request.method != "POST":
            return _problem(405, "METHOD_NOT_ALLOWED", "messages are POSTed", {"Allow": "POST"})
        try:
            return await self._take(request)
        except Rejected as error:
            log.warning("refused a message with %d: %s", error.status, error)
            return _problem(error.status, "MESSAGE_REFUSED", str(error))
        except StoreFull as error:
            return _problem(507, "INBOX_FULL", str(error))
        except StoreError as error:
            log.error("the inbox is away: %s", error)
            return _problem(503, "INBOX_AWAY", str(error), {"Retry-After": "5"})

    async def _take(self, request: Request) -> Response:
        body = await _read_body(request)
        headers = {name.lower(): value for name, value in request.headers.items()}
        message = receive(headers, body, proof=self._proof, now=self._clock())
        store = await self._open()
        (accepted,) = await store.accept([message])
        if accepted.conflict:
            log.warning("message %s came again with other bytes; the first ones are kept", message.idempotency_key)
        return JSONResponse({"id": accepted.id, "duplicate": accepted.duplicate})

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self._open()
        except Exception as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _open(self) -> Store:
        # A host without a lifespan opens the inbox with its first message; several may come at once.
        async with self._opening:
            if self._store is None:
                if not self._proof.wanted:
                    log.warning("no key is configured: anybody who reaches this listener can send it messages")
                self._store = await open_store(self._inbox, clock=self._clock)
                self._dispatcher = Dispatcher(
                    self._store,
                    self._router.deliver,
                    rules=Rules(),
                    timings=Timings(lease=2 * self._handler_timeout + 10, attempt=self._handler_timeout + 1),
                    clock=self._clock,
                )
                self._dispatching = asyncio.create_task(self._dispatcher.run(), name="fotahook listener")
                self._dispatching.add_done_callback(_tell_of_end)
            return self._store

    async def _close(self) -> None:
        async with self._opening:
            if self._store is None or self._dispatching is None:
                return
            self._dispatcher.stop()
            await asyncio.gather(self._dispatching, return_exceptions=True)
            await self._store.close()
            self._store = self._dispatching = None


async def _read_body(request: Request) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > BODY_LIMIT:
                    raise Rejected(413, f"the body has more than {BODY_LIMIT} bytes")
    except TimeoutError as error:
        raise Rejected(408, f"the body did not arrive within {BODY_SECONDS:.0f} s") from error
    except ClientDisconnect as error:
        raise Rejected(400, "the sender hung up in the middle of the body") from error
    return bytes(body)


def _answer_health(dispatching: asyncio.Task[None] | None) -> Response:
    if dispatching is not None and dispatching.done():
        return _problem(503, "NOT_HANDLING", "messages are stored but no longer handled: see the log, then restart")
    return JSONResponse({"status": "ok"})


def _problem(status: int, code: str, text: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"errorCode": code, "errorMessage": text}, status, headers)


def _tell_of_end(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.critical("messages are stored but no longer handled", exc_info=error)

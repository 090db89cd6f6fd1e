"""The listener: an ASGI app that answers 2xx only for messages that are on disk, and shows them to handlers."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Final, Literal

from starlette.types import Receive, Scope, Send

from fotahook.delivery import Deadline, Deliver, Rules
from fotahook.store import Store
from fotahook.store.records import Retention, StoreError

from . import responses, validation
from .dead_letters import Quarantined, quarantined
from .forwards import Forwarding, Forwards
from .handlers import HandlerT, Router
from .inbox import Inbox
from .intake import BODY_LIMIT, DEDUPE_WINDOW
from .requests import CUT_OFF, HEALTH_PATH, TOO_LONG, Reception, announced_too_long, checked_window
from .responses import Answer
from .verification import Proof, Rejected

log = logging.getLogger("fotahook.listener")

HANDLER_SECONDS: Final = 30.0
BODY_SECONDS: Final = 30.0
KEEP_DAYS: Final = 30.0
SCHEDULE: Final = Rules().schedule
_DAY: Final = 86400.0


class Listener:
    """Receives callback messages into a durable inbox and drives handlers from there. An ASGI app.

    A message answered with 200 is on disk. Each one is shown to every handler that wants it at least once; repetitions
    of a message (same ``webhook-id``, or without one the same bytes within `dedupe_window`) are dropped. A handler that
    raises is tried again later.
    """

    def __init__(
        self,
        inbox: str = "sqlite:///inbox.db",
        *,
        secrets: Iterable[str] = (),
        public_keys: Iterable[str] = (),
        sources: Iterable[str] | None = None,
        trusted_proxies: Iterable[str] = (),
        basic: tuple[str, str] | None = None,
        path: str = "/",
        forwarding: Forwarding | None = None,
        handler_timeout: float = HANDLER_SECONDS,
        body_timeout: float = BODY_SECONDS,
        schedule: Sequence[float] = SCHEDULE,
        dedupe_window: float = DEDUPE_WINDOW,
        keep_days: float = KEEP_DAYS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """All that is given of these must prove the sender; with none of them a warning is logged.

        `secrets` (``whsec_…``) and `public_keys` (``whpk_…``): one of them must have signed each message. `sources`:
        networks (CIDR) that messages may come from, such as ``THINGSPACE_SOURCES``; behind a proxy, `trusted_proxies`
        are those whose ``X-Forwarded-For`` is believed. `basic`: the user name and password that were registered, which
        V1 messages repeat.

        `path` is where messages are received, as it is written in a URL, within the path that the listener is mounted
        at. `handler_timeout` and `body_timeout` are in seconds. `schedule` has the pause in seconds before each attempt
        at one message; after the last of them it is dead. A message without a ``webhook-id`` whose bytes came for the
        same account up to `dedupe_window` seconds ago is a repetition. The bytes of messages that are done with are
        kept for `keep_days`.
        ValueError for a key or a network that cannot be read, and for any other impossible value; TypeError for what is
        not even of the right type.
        """
        proof = Proof.of(
            secrets=secrets,
            public_keys=public_keys,
            sources=() if sources is None else sources,
            trusted_proxies=trusted_proxies,
            basic=basic,
        )
        self._body_timeout = validation.seconds("body_timeout", body_timeout)
        self._deadline: tuple[asyncio.AbstractEventLoop, Deadline] | None = None
        self._router = Router()
        self._forwards = Forwards(forwarding or Forwarding())
        self._reception = Reception(path, proof, router=self._router, forwards=self._forwards, clock=clock)
        self._reception.dedupe_window = checked_window(dedupe_window)
        self._inbox = Inbox(
            validation.store_url("inbox", inbox),
            self._router,
            self._forwards,
            handler_timeout=validation.seconds("handler_timeout", handler_timeout),
            schedule=validation.pauses("schedule", schedule),
            retention=Retention(seconds=validation.span("keep_days", keep_days, "days") * _DAY),
            clock=clock,
        )

    @property
    def inbox(self) -> str:
        """The URL of the inbox."""
        return self._inbox.url

    @property
    def path(self) -> str:
        """Where messages are received."""
        return self._reception.path

    @property
    def body_timeout(self) -> float:
        """Seconds for the body of a message to arrive."""
        return self._body_timeout

    @property
    def reception(self) -> Reception:
        """What decides about requests; for adapters."""
        return self._reception

    @property
    def forwarding(self) -> Forwarding:
        """How forwards are sent."""
        return self._forwards.forwarding

    def configure(
        self,
        *,
        inbox: str | None = None,
        proof: Proof | None = None,
        path: str | None = None,
        forwarding: Forwarding | None = None,
        dedupe_window: float | None = None,
        body_timeout: float | None = None,
    ) -> None:
        """Replace what the constructor was given; of a proof, each part that is set.

        ValueError and TypeError as from the constructor, with nothing replaced; RuntimeError once the inbox is open.
        """
        self._check_idle()
        reception = self._reception
        url = self._inbox.url if inbox is None else validation.store_url("inbox", inbox)
        window = reception.dedupe_window if dedupe_window is None else checked_window(dedupe_window)
        timeout = self._body_timeout if body_timeout is None else validation.seconds("body_timeout", body_timeout)
        if path is not None:
            reception.path = path
        reception.proof = reception.proof if proof is None else reception.proof.replaced_by(proof)
        reception.dedupe_window = window
        self._body_timeout, self._deadline = timeout, None
        self._inbox.url = url
        self._forwards.forwarding = forwarding or self._forwards.forwarding

    def on(
        self, kind: str | None = None, *, status: str | None = None, account: str | None = None
    ) -> Callable[[HandlerT], HandlerT]:
        """Register a handler for messages of a kind, that name a status, of an account; what is not given is any."""
        if callable(kind):
            raise TypeError("write @listener.on(…) with its parentheses, or @listener.on_any")
        for name, wanted in (("kind", kind), ("status", status), ("account", account)):
            if wanted is not None:
                validation.text(name, wanted)

        def register(handler: HandlerT) -> HandlerT:
            return self._router.add(handler, kind, status, account)

        return register

    def on_any(self, handler: HandlerT) -> HandlerT:
        """Register a handler for every message."""
        return self._router.add(handler, None, None, None)

    def forward(self, url: str, types: Iterable[str] | None = None, accounts: Iterable[str] | None = None) -> None:
        """Send the messages on to another receiver as well: those of some kinds, of some accounts, or all.

        Each receiver is served by itself, with the retries, signatures and history of deliveries: one that is down
        holds up nothing else. ValueError for a URL that cannot be one, TypeError for what is no text; RuntimeError
        once the inbox is open.
        """
        self._check_idle()
        self._forwards.add(url, types, accounts)

    def forward_key(self) -> str | None:
        """The ``whpk_…`` that verifies what is forwarded; made with the inbox's secret key. None without forwards."""
        return self._forwards.public_key(self.inbox)

    async def quarantined(self, account: str, *, limit: int = 50) -> list[Quarantined]:
        """Up to `limit` of an account's messages whose every attempt failed, newest first, with what failed last."""
        return await quarantined(await self._inbox.store(), account, limit)

    async def redeliver(self, message_id: str) -> bool:
        """Show a message to all its handlers, and send it to its forwards, once more: as from its first attempt.

        False where that cannot be: it is not known, it is still waiting for one of them, or its bytes are removed.
        """
        return (await (await self._inbox.store()).redeliver(message_id)).refused is None

    async def redeliver_all(
        self,
        account: str,
        state: Literal["dead", "delivered"] = "dead",
        *,
        since: float = 0.0,
        until: float = float("inf"),
        dry_run: bool = False,
    ) -> int:
        """Redeliver all of an account's messages that are in a state and were received in a span; how many.

        `since` and `until` in Unix seconds. They are redelivered bit by bit. `dry_run` only counts them.
        """
        store = await self._inbox.store()
        return await store.redeliver_all(account, state, since=since, until=until, dry_run=dry_run)

    def wrap(self, store: Callable[[Store], Store], deliver: Callable[[Deliver], Deliver]) -> None:
        """Put something around the inbox's store and its deliverer when they are opened; for fault points."""
        self._check_idle()
        self._inbox.wrap(store, deliver)

    def _check_idle(self) -> None:
        if self._inbox.in_use:
            raise RuntimeError("the listener is running: configure it before its first message")

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Listener"]:
        """Open the inbox and drive the handlers and forwards; on leaving, let those in hand end and close it.

        What the app's lifespan does; for hosts that send none. StoreError says what is wrong with the inbox.
        """
        await self._open()
        try:
            yield self
        finally:
            await self._inbox.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            answer = await self._respond(scope, receive)
            await send({"type": "http.response.start", "status": answer.status, "headers": answer.raw_headers()})
            await send({"type": "http.response.body", "body": answer.body})
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000, "reason": "messages are POSTed"})
        else:
            raise ValueError(f"the listener speaks HTTP, not {scope['type']}")

    async def _respond(self, scope: Scope, receive: Receive) -> Answer:
        method, path = scope["method"], _path_within(scope).rstrip("/")
        if path == HEALTH_PATH:
            return await self._answer_health(method)
        if (elsewhere := self._reception.elsewhere(method, path)) is not None:
            return elsewhere
        peer: str | None = (scope.get("client") or (None,))[0]
        headers: dict[str, str] = {}
        try:
            headers = self._reception.admit(scope["headers"], peer)
            body = await self._read_body(headers.get("content-length", ""), receive)
            message = self._reception.take(headers, body)
            self._reception.warn_if_open()
            return self._reception.stored(await self._inbox.accept(message))
        except (Rejected, StoreError) as error:
            return self._reception.refuse(error, peer, headers, _farewell(scope))

    async def _read_body(self, length: str, receive: Receive) -> bytes:
        if announced_too_long(length):
            raise Rejected(413, TOO_LONG)
        chunks: list[bytes] = []
        left = BODY_LIMIT
        try:
            with self._body_deadline():
                while True:
                    event = await receive()
                    if event["type"] == "http.disconnect":
                        # Whether the sender hung up or the server had enough of it is not told.
                        raise Rejected(400, CUT_OFF)
                    chunks.append(event.get("body", b""))
                    left -= len(chunks[-1])
                    if left < 0:
                        raise Rejected(413, TOO_LONG)
                    if not event.get("more_body", False):
                        return b"".join(chunks)
        except TimeoutError as error:
            raise Rejected(408, f"the body did not arrive within {self._body_timeout:g} s") from error

    def _body_deadline(self) -> Deadline:
        """The limit for bodies in this event loop: its one timer belongs to the loop, the listener may outlive that."""
        loop = asyncio.get_running_loop()
        if self._deadline is None or self._deadline[0] is not loop:
            self._deadline = loop, Deadline(self._body_timeout)
        return self._deadline[1]

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self._open()
        except (StoreError, ValueError, ImportError) as error:
            await send({"type": "lifespan.startup.failed", "message": f"the listener cannot start: {error}"})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._inbox.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _open(self) -> None:
        self._reception.warn_if_open()
        await self._inbox.open()

    async def _answer_health(self, method: str) -> Answer:
        if method not in ("GET", "HEAD"):
            return responses.GET_ONLY
        if self._inbox.abandoned:
            return responses.NOT_HANDLING
        return self._reception.health(await self._inbox.trouble())


def _path_within(scope: Scope) -> str:
    """The path below the one that the app is mounted at, which hosts leave in `path` and name in `root_path`."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "").rstrip("/")
    if root and (path == root or path.startswith(f"{root}/")):
        return path[len(root) :] or "/"
    return path


def _farewell(scope: Scope) -> tuple[tuple[str, str], ...]:
    """Headers of a refusal: what was not read of the body must not be read as the next request."""
    return (("connection", "close"),) if scope.get("http_version", "").startswith("1") else ()

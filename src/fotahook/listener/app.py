"""The listener: an ASGI app that answers 200 only to messages that are on disk, and delivers them to handlers."""

import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import msgspec

from fotahook.contract.addresses import address_key
from fotahook.contract.budget import Budget
from fotahook.contract.errors import WebhookRejected
from fotahook.delivery import Deliver
from fotahook.store import Store
from fotahook.store.batcher import LoopTurns
from fotahook.store.ledger import LedgerDevice
from fotahook.store.records import MessageFilter, StoreError

from . import ledger, validation
from .forwards import Forwards
from .handlers import HandlerT, Router
from .inbox import DeadLetter, Inbox
from .intake import BODY_LIMIT, BODY_TOO_LONG, DEDUPE_WINDOW, SMALL_BODY, Basic, Verification
from .ledger import Ledger, Reconciler
from .registration import OVERLAP_SECONDS, former_paths
from .requests import NOT_FOUND, RequestHandler, Response
from .settings import ACCEPT_SECONDS, FORWARDING, SCHEDULE, ForwardSettings, ReportClient, Settings
from .watch import SenderReport, Watch

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

BODY_MEMORY: Final = 64 * 1024 * 1024
"""For all bodies that are received at the same time; one sender gets half of it at most."""
BODY_CUT_OFF: Final = "the body ended before it was complete"
Share: TypeAlias = contextlib.AbstractContextManager[Callable[[int], bool]]


class Listener:
    """An ASGI app that stores callback messages in a durable inbox and calls handlers from there.

    A message answered with 200 is on disk. Every handler that matches it gets it at least once; one that raises is
    retried. A repetition is dropped: the same ``webhook-id``, or without one the same content in `dedupe_window`. A
    message must pass every check that is set up. Without any, a warning is logged.

    `secrets` (``whsec_…``), `public_keys` (``whpk_…``): one of these keys must have signed the message. `sources`:
    networks (CIDR) that messages may come from, or ``thingspace`` for ``THINGSPACE_SOURCES``. `trusted_proxies`:
    networks of proxies whose ``X-Forwarded-For`` is trusted. `basic`: user name and password of the registration,
    which V1 messages repeat; or several such pairs, while they are changed.

    `path`: where messages are received, as written in a URL, below the path at which the listener is mounted.
    `handler_timeout`, `body_timeout`: seconds. `accept_timeout`: seconds for which an inbox that is away is tried
    before a message is answered with 503. `schedule`: the delay in seconds before each attempt at a message, which
    is dead after the last one. `dedupe_window`: seconds in which equal messages for the same account without a
    ``webhook-id`` count as one. `keep_days`: how long the bytes of handled and dead messages are kept.

    `reconcile`: a client with which ThingSpace's reports are read `every` so many seconds; what they say and no
    message did reaches handlers as messages with the `source` ``report``. `alarm_url`: where alarms are posted,
    signed as forwards are. Alarms besides those of the ledger: `silence`, seconds without a message;
    `repair_limit`, statuses repaired in one round; `certificate`, a PEM file that ends within 21 days.

    ValueError for an invalid value, TypeError for one of the wrong type.
    """

    def __init__(
        self,
        inbox: str = "sqlite:///inbox.db",
        *,
        secrets: Iterable[str] = (),
        public_keys: Iterable[str] = (),
        sources: Iterable[str] | None = None,
        trusted_proxies: Iterable[str] = (),
        basic: Basic = None,
        path: str = "/",
        forwarding: ForwardSettings = FORWARDING,
        handler_timeout: float = 30.0,
        body_timeout: float = 30.0,
        accept_timeout: float = ACCEPT_SECONDS,
        schedule: Sequence[float] = SCHEDULE,
        dedupe_window: float = DEDUPE_WINDOW,
        keep_days: float = 30.0,
        reconcile: ReportClient | None = None,
        every: float = 3600.0,
        alarm_url: str | None = None,
        silence: float | None = None,
        repair_limit: int | None = None,
        certificate: Path | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        given = {name: value for name, value in locals().items() if name in Settings.__struct_fields__}
        verification = Verification.parse(
            secrets=secrets, public_keys=public_keys, sources=sources, trusted_proxies=trusted_proxies, basic=basic
        )
        # An alarm URL becomes a forward.
        self.settings = Settings(**given | {"alarm_url": None}, verification=verification)
        self._bodies, self._turns = Budget(BODY_MEMORY), LoopTurns()
        self._router, self._forwards = Router(), Forwards(self.settings)
        self.request_handler = RequestHandler(self.settings, self._router, self._forwards)
        self._watch = Watch(self.settings, self.request_handler.consumers, self.request_handler.counts)
        self._inbox = Inbox(self.settings, self._router, self._forwards, self._watch)
        self.configure(alarm_url=alarm_url)

    def metrics(self) -> str:
        """Metrics in Prometheus' text format, which GET /metrics returns too, to this machine alone."""
        return "".join(
            f"# TYPE {name} {'counter' if name.endswith('_total') else 'gauge'}\n{name} {value:g}\n"
            for name, value in self._watch.metrics.items()
        )

    def sender(self) -> SenderReport:
        """What the sender did in the last day."""
        return self.request_handler.counts.report()

    def report_callback(self, replaced: bool) -> None:
        """Tell the listener whether somebody replaced the callback that leads to it, which is an alarm."""
        self._watch.callback_replaced = replaced

    async def reconcile(self, client: ReportClient, account: str, campaign_id: str | None = None) -> int:
        """Compare a campaign with ThingSpace's report once, or all of an account that are not over for a week.

        Returns how much came into the inbox. FotahookError as from the client; called again, it goes on from there.
        """
        store, choose = await self._inbox.store(), self.request_handler.consumers
        reconciler = Reconciler(store, client, choose, self.settings.clock)
        return await (reconciler.everything(account) if not campaign_id else reconciler.campaign(account, campaign_id))

    def configure(self, *, verification: Verification | None = None, **changes: object) -> None:
        """Replace those `settings` that are not None, of a verification each part that is set; all or nothing."""
        self._check_not_running()
        changes = {name: value for name, value in changes.items() if value is not None}
        if verification is not None:
            changes["verification"] = self.settings.verification.updated(verification)
        settings = msgspec.structs.replace(self.settings, **changes)
        if settings.alarm_url is not None and settings.alarm_url != self.settings.alarm_url:
            # Of no type: nothing but alarms goes there.
            self._watch.alarm_consumer = self._forwards.add(settings.alarm_url, (), None)
        for part in (self, self.request_handler, self._forwards, self._watch, self._inbox):
            part.settings = settings

    def on(
        self,
        kind: str | None = None,
        *,
        status: str | None = None,
        account: str | None = None,
        failed: bool | None = None,
    ) -> Callable[[HandlerT], HandlerT]:
        """Register a handler for messages of a kind, with a status, of an account; None matches everything.

        `failed`: for messages that report a failure of any device or of the campaign, in whatever spelling.
        """
        if callable(kind):
            raise TypeError("write @listener.on(…) with its parentheses, or @listener.on_any")
        for name, value in (("kind", kind), ("status", status), ("account", account)):
            validation.text(name, value or "")
        return lambda handler: self._router.add(handler, kind, status, account, failed)

    def on_any(self, handler: HandlerT) -> HandlerT:
        """Register a handler for every message."""
        return self._router.add(handler, None, None, None)

    def forward(self, url: str, types: Iterable[str] | None = None, accounts: Iterable[str] | None = None) -> None:
        """Send messages on to another receiver: those of some types and accounts, or all of them.

        Each receiver has its own retries, signatures and history, so one that is down does not delay the others.
        ValueError for an invalid URL, TypeError for anything but strings, RuntimeError once the inbox is open.
        """
        self._check_not_running()
        self._forwards.add(url, types, accounts)

    def forward_key(self, account: str | None = None) -> str | None:
        """The ``whpk_…`` key that verifies forwarded messages, or those of one account. None without forwards."""
        return self._forwards.public_key(account)

    async def store(self) -> Store:
        """The open inbox, for programs that show it. StoreError if it cannot be opened."""
        return await self._inbox.store()

    async def dead_letters(self, account: str, *, limit: int = 50) -> list[DeadLetter]:
        """Up to `limit` messages of an account that failed on every attempt, newest first, with their last failure."""
        store, found, before = await self._inbox.store(), list[DeadLetter](), None
        while True:
            dead = MessageFilter(state="dead")
            page = await store.messages(account, dead, before=before, limit=limit - len(found))
            for listed in page.messages:
                message, attempts = await store.message(listed.id), await store.attempts(listed.id)
                assert message is not None  # rows are never deleted, so that repetitions stay known
                # There is one: a message dies of a failed attempt, and attempts are kept.
                last = [attempt for attempt in attempts if attempt.outcome != "delivered"][-1]
                failure = last.excerpt or last.error_code or last.outcome
                facts = (message.id, message.account, message.type, message.accepted_at, message.body)
                found.append(DeadLetter(*facts, attempts=len(attempts), failure=failure))
            if (before := page.next) is None or len(found) == limit:
                return found

    async def redeliver(self, message_id: str) -> bool:
        """Deliver a message to its handlers and forwards again, starting from the first attempt.

        False if that is not possible: the message is unknown, is still pending, or its bytes are removed.
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
        """Redeliver an account's messages in a state that were received from `since` until `until` (Unix seconds).

        Returns how many there are; with `dry_run`, they are only counted.
        """
        store = await self._inbox.store()
        return await store.redeliver_all(account, state, since=since, until=until, dry_run=dry_run)

    async def move(self, account: str, previous: str | None, url: str, *, overlap: float = OVERLAP_SECONDS) -> None:
        """Accept messages at the path of `previous` too, for `overlap` seconds: call this before `url` replaces it.

        ThingSpace goes on sending to a URL that was replaced. The inbox keeps the change, so that after a restart the
        same call with the URL that is registered then, `url` itself, accepts the path for the rest of the time.
        ``listener.sender().events`` counts what came there.
        """
        store = await self._inbox.store()
        self.request_handler.former_paths = await former_paths(store, account, previous, url, overlap)

    async def expect(
        self, account: str, campaign_id: str, devices: Iterable[str], until: float | str | None = None
    ) -> None:
        """Enter devices that are to report in a campaign until a time: Unix seconds, or a day as ``YYYY-MM-DD``."""
        await ledger.expect(await self._inbox.store(), account, campaign_id, devices, until)

    async def ledger(self, account: str, campaign_id: str) -> Ledger:
        """How many devices of a campaign have reported a result, and how many have not; all 0 for an unknown one."""
        return await ledger.read_ledger(await self._inbox.store(), account, campaign_id, self.settings.clock())

    async def ledger_devices(
        self, account: str, campaign_id: str, *, after: str = "", limit: int = 1000
    ) -> list[LedgerDevice]:
        """The devices of a campaign with ids above `after`, in order, each with its last status."""
        return await ledger.read_devices(await self._inbox.store(), account, campaign_id, after, limit)

    def receiving_inbox(self) -> Inbox:
        """An inbox for an adapter that only stores messages; its handlers run elsewhere."""
        return dataclasses.replace(self._inbox, delivers=False)

    def wrap(self, store: Callable[[Store], Store], deliver: Callable[[Deliver], Deliver]) -> None:
        """Wrap the inbox's store and its deliverer when they are opened: for fault injection and tests."""
        self._check_not_running()
        self._inbox.wrap_store, self._inbox.wrap_deliver = store, deliver

    def _check_not_running(self) -> None:
        if self._inbox.opening is not None:
            raise RuntimeError("the listener is running: configure it before its first message")

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Listener"]:
        """Open the inbox and deliver its messages; on exit, wait for running attempts and close it. StoreError.

        The app's lifespan does the same; use this where the host sends no lifespan events.
        """
        await self._inbox.open()
        try:
            self.request_handler.warn_if_unverified()
            yield self
        finally:
            await self._inbox.close()

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        if scope["type"] == "http":
            response = await self._respond(scope, receive)
            await send({"type": "http.response.start", "status": response.status, "headers": response.headers})
            await send({"type": "http.response.body", "body": response.body})
        elif scope["type"] == "lifespan":
            await receive()
            async with contextlib.AsyncExitStack() as stack:
                try:
                    await stack.enter_async_context(self.running())
                except (StoreError, ValueError, ImportError) as error:
                    await send({"type": "lifespan.startup.failed", "message": f"the listener cannot start: {error}"})
                    return
                await send({"type": "lifespan.startup.complete"})
                await receive()
            await send({"type": "lifespan.shutdown.complete"})
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000, "reason": "send messages with POST"})
        else:
            raise ValueError(f"the listener speaks HTTP, not {scope['type']}")

    async def _respond(self, scope: "Scope", receive: "Receive") -> Response:
        method, path, root = scope["method"], scope["path"], scope.get("root_path", "").rstrip("/")
        # Hosts leave the mount point in `path` and repeat it in `root_path`.
        path = (path.removeprefix(root) if f"{path}/".startswith(f"{root}/") else path).rstrip("/")
        peer: str | None = (scope.get("client") or (None,))[0]
        if path == "/metrics" and method == "GET":
            # For this machine alone: neither strangers nor a proxy's clients read them.
            proxied = any(name in (b"x-forwarded-for", b"forwarded", b"via") for name, _ in scope["headers"])
            if peer not in ("127.0.0.1", "::1") or proxied:
                return NOT_FOUND
            return Response(200, self.metrics().encode(), content_type=b"text/plain; version=0.0.4")
        # The rest of a body that was not read must not be read as the next request.
        failed = ((b"connection", b"close"),) if scope.get("http_version", "").startswith("1") else ()
        held: list[Share] = []
        read_body = partial(self._read_body, receive, held)
        try:
            return await self.request_handler.respond(
                method, path, peer, scope["headers"], read_body, self._inbox.accept, self._inbox.check, *failed
            )
        finally:
            for share in held:
                share.__exit__(None, None, None)

    async def _read_body(
        self, receive: "Receive", held: list[Share], headers: Mapping[str, str], peer: str | None
    ) -> bytes:
        """The body of a request, whose share of the memory is `held` if it is long."""
        chunks: list[bytes] = []
        size, taken, sender = 0, 0, ""
        take: Callable[[int], bool] | None = None
        deadline = self.settings.body_deadline
        try:
            with deadline:
                while True:
                    event = await receive()
                    if event["type"] == "http.disconnect":
                        # ASGI does not say whether the sender or the server closed the connection.
                        raise WebhookRejected(400, BODY_CUT_OFF)
                    chunks.append(chunk := event.get("body", b""))
                    size += len(chunk)
                    if size > BODY_LIMIT:
                        raise WebhookRejected(413, BODY_TOO_LONG)
                    if size > SMALL_BODY:
                        if take is None:
                            sender = address_key(self.request_handler.sender(peer, headers))
                            held.append(share := self._bodies.share(sender))
                            take = share.__enter__()
                        if not take(size - taken):
                            raise WebhookRejected(503, "too many messages arrive at once; send it again")
                        taken = size
                    if not event.get("more_body", False):
                        break
        except TimeoutError as error:
            raise WebhookRejected(408, f"the body did not arrive within {deadline.seconds:g} s") from error
        if take is not None:
            await self._turns.wait(sender)
        return b"".join(chunks)

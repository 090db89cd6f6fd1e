"""The inside of the sandbox, for its event loop: a whole service, as many times anew as its tests ask for."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
from starlette.types import Receive, Scope, Send

from fotahook.contract.addresses import EVERYWHERE
from fotahook.contract.urls import account_refusal, url_refusal
from fotahook.delivery import Dispatcher, Outcome, Timings, run_maintenance
from fotahook.delivery.policy import DAY
from fotahook.service import DEV_CLIENT, DEV_USER, PasswordCost, Settings, build_app, provision_dev
from fotahook.store import Store, open_store
from fotahook.store.records import Delivery, Lease, Retention

from .clock import VirtualClock
from .fault_injection import Answer, Delay, Distrust, Drop, Duplicate, Faults, Trouble
from .http_server import answer, drop, troubled
from .receiver import Receiver
from .untrusted_receiver import distrusted

if TYPE_CHECKING:
    from fotahook.delivery.sender import Sender

if find_spec("aiohttp") is None:
    # Told when a sandbox is made, though it is not loaded before something is sent.
    raise ModuleNotFoundError("No module named 'aiohttp'", name="aiohttp")

RECEIVER_PATH: Final = "/sandbox/receiver"
_OWN_PATHS: Final = "/sandbox/"
_DROP_PATH: Final = "/sandbox/drop"
_ANSWER_PATH: Final = "/sandbox/answer/"

_LEASE_SECONDS: Final = 100 * 365 * DAY
"""No advance of the clock may end a lease: there is nobody else from whom it protects."""
_KEEP_SECONDS: Final = 30 * DAY
_POLL_SECONDS: Final = 0.002
_PASSWORD_COST: Final = PasswordCost(memory_kib=8, passes=1)
"""The password is known to everybody, and a test need not wait."""
_FORGET_SECONDS: Final = 1.0
"""For so long the service trusts its memory of a token."""


class Delivered(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt that the sandbox made: what it sent where, and what came of it (`delivered`, or an error code)."""

    id: str
    account: str
    url: str | None
    body: bytes
    attempt: int
    outcome: str
    status: int | None


class Engine:
    """One service after the other in one store's file; all that they have in common is the secret key."""

    def __init__(self, file: Path, base_url: str, secret_key: bytes, attempt_seconds: float, faults: Faults) -> None:
        self._file = file
        self._base_url = base_url
        self._key = secret_key
        self._attempt_seconds = attempt_seconds
        self._faults = faults
        self.clock = VirtualClock()
        self.receiver = Receiver(base_url + RECEIVER_PATH)
        self.delivered: list[Delivered] = []
        self._life = contextlib.AsyncExitStack()
        self._calls: set[asyncio.Task[None]] = set()
        self._changing = asyncio.Lock()
        self._kept = contextlib.AsyncExitStack()
        self._distrusted_url: str | None = None
        self._sender: Sender | None = None
        self._loading = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The first service, with whatever the file holds already; on leaving, the end of the last one."""
        async with self._kept:
            await self._begin()
            try:
                yield
            finally:
                await self._life.aclose()

    async def reset(self) -> None:
        """Another service in an empty file, by the true time, with no fault to come."""
        async with self._changing:
            await self._life.aclose()
            _remove(self._file)
            self.clock = VirtualClock()
            self._faults.clear()
            self.receiver.clear()
            self.delivered.clear()
            await self._begin()

    async def _begin(self) -> None:
        self.store = await open_store(f"sqlite:///{self._file}", clock=self._wall)
        self._life.push_async_callback(self.store.close)
        try:
            await provision_dev(self.store, clock=self._wall, cost=_PASSWORD_COST)
        except BaseException:
            await self._life.aclose()
            raise
        closing = asyncio.Event()
        self._app = build_app(self.store, self._settings(), closing=closing)
        self._dispatcher = self._new_dispatcher(self.store)
        keeping = run_maintenance(self.store, Retention(seconds=_KEEP_SECONDS))
        for work in (self._dispatcher.run(), keeping):
            self._life.push_async_callback(_end, asyncio.create_task(work))
        self._life.push_async_callback(self._end_calls)
        self._life.callback(closing.set)

    async def _end_calls(self) -> None:
        """Whoever is not answered yet asked a service that is no more."""
        for call in self._calls:
            call.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)

    def _settings(self) -> Settings:
        return Settings(
            secret_key=self._key,
            allow_http=True,
            allowed_networks=EVERYWHERE,
            password_cost=_PASSWORD_COST,
            clock=self._wall,
        )

    def _new_dispatcher(self, store: Store) -> Dispatcher:
        return Dispatcher(
            store,
            self._deliver,
            timings=Timings(lease=_LEASE_SECONDS, attempt=self._attempt_seconds),
            clock=self._wall,
            monotonic=lambda: self.clock.monotonic(),
            # The longest wait each time, so that a test can say how far to advance.
            spread=lambda: 1.0,
        )

    def _wall(self) -> float:
        return self.clock.wall()

    # What it serves

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if path == RECEIVER_PATH:
            await self.receiver(scope, receive, send)
        elif path == _DROP_PATH:
            await troubled(self._app, Drop())(scope, receive, send)
        elif path.startswith(_ANSWER_PATH):
            status, _, retry_after = path.removeprefix(_ANSWER_PATH).partition("/")
            met = Answer(int(status), float(retry_after) if retry_after else None)
            await troubled(self._app, met)(scope, receive, send)
        elif path.startswith(_OWN_PATHS):
            await answer(send, 404)
        else:
            await self._serve_call(scope, receive, send)

    async def _serve_call(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._changing:
            app = troubled(self._app, self._faults.calls.take(scope["path"]))
            call = asyncio.ensure_future(app(scope, receive, send))
            self._calls.add(call)
        try:
            await asyncio.wait((call,))
        finally:
            self._calls.remove(call)
            call.cancel()
        if call.cancelled():
            await drop(scope, receive)
        else:
            call.result()

    # What it sends

    async def _deliver(self, lease: Lease, delivery: Delivery) -> Outcome:
        trouble = self._faults.deliveries.take(delivery.account)
        if isinstance(trouble, Delay):
            await asyncio.sleep(trouble.seconds)
        outcome = await self._attempt(lease, delivery, await self._instead(trouble))
        if isinstance(trouble, Duplicate):
            await self._attempt(lease, delivery, None)
        return outcome

    async def _instead(self, trouble: Trouble | None) -> str | None:
        """Where an attempt goes that has this trouble; None for where it would go anyway."""
        match trouble:
            case Drop():
                return self._base_url + _DROP_PATH
            case Answer(status, None):
                return f"{self._base_url}{_ANSWER_PATH}{status}"
            case Answer(status, retry_after):
                return f"{self._base_url}{_ANSWER_PATH}{status}/{retry_after}"
            case Distrust():
                if self._distrusted_url is None:
                    self._distrusted_url = (await self._kept.enter_async_context(distrusted())).url
                return self._distrusted_url
        return None

    async def _attempt(self, lease: Lease, delivery: Delivery, instead: str | None) -> Outcome:
        sent = lease if instead is None else msgspec.structs.replace(lease, url=instead)
        sender = await self._ready_sender()
        outcome = msgspec.structs.replace(await sender.deliver(sent, delivery), url=lease.url)
        self.delivered.append(_delivered(delivery, outcome))
        return outcome

    async def _ready_sender(self) -> "Sender":
        """What sends, from the first delivery on: its HTTP client takes as long to load as all the rest."""
        async with self._loading:
            if self._sender is None:
                module = await asyncio.to_thread(import_module, "fotahook.delivery.sender")
                settings = module.SenderSettings(
                    secret_key=self._key, timeout=self._attempt_seconds, allowed_networks=EVERYWHERE
                )
                sender: Sender = module.Sender(settings, clock=self._wall, monotonic=time.monotonic)
                self._sender = await self._kept.enter_async_context(sender)
            return self._sender

    # What tests ask for

    async def register(self, account: str, url: str) -> None:
        """Make the URL the account's callback; ValueError if it can be none, or the account is none."""
        refusal = account_refusal(account) or url_refusal(url, allow_http=True, allowed=EVERYWHERE)
        if refusal is not None:
            raise ValueError(refusal)
        await self.store.register(account, url, actor="sandbox")

    async def advance(self, seconds: float) -> None:
        """Move the clock on, and see what is due by it."""
        self.clock.advance(seconds)
        self._dispatcher.wake()

    async def expire(self, kind: str) -> None:
        """End every token or session of the development client and user."""
        owner = DEV_CLIENT[0] if kind == "token" else DEV_USER[0]
        await self.store.drop_credentials(kind, [one.id for one in await self.store.credentials(kind, owner)])
        await self.advance(_FORGET_SECONDS)

    async def wait_delivered(self, message_id: str, timeout: float) -> None:
        """Return once it is delivered; TimeoutError tells where it stands, LookupError if it does not exist."""
        until = time.monotonic() + timeout
        while True:
            message = await self.store.message(message_id)
            if message is None:
                raise LookupError(f"there is no message {message_id}")
            state = message.deliveries[0].state
            if state == "delivered":
                return
            if state == "dead" or time.monotonic() > until:
                raise TimeoutError(f"message {message_id} is {state}: {self._last_outcome(message_id)}")
            await asyncio.sleep(_POLL_SECONDS)

    async def drain(self, timeout: float) -> None:
        """Return once nothing is left that could be sent, the clock moved on through every wait."""
        until = time.monotonic() + timeout
        while (due_in := await self.store.due_in()) is not None:
            # A lane in hand is due again when its lease ends.
            if 0 < due_in < _LEASE_SECONDS / 2:
                await self.advance(due_in)
            if time.monotonic() > until:
                raise TimeoutError(f"after {timeout:g} s there is still something to send; the last: {self._last()}")
            await asyncio.sleep(_POLL_SECONDS)

    def _last(self) -> str:
        return f"{self.delivered[-1].id}: {self.delivered[-1].outcome}" if self.delivered else "nothing was tried"

    def _last_outcome(self, message_id: str) -> str:
        outcomes = [one.outcome for one in self.delivered if one.id == message_id]
        return outcomes[-1] if outcomes else "it was never tried; is a callback registered?"


def _remove(file: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        Path(f"{file}{suffix}").unlink(missing_ok=True)


async def _end(task: asyncio.Task[None]) -> None:
    """Abandon it; if it failed by itself, tell of it."""
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def _delivered(delivery: Delivery, outcome: Outcome) -> Delivered:
    return Delivered(
        id=delivery.message,
        account=delivery.account,
        url=outcome.url,
        body=delivery.body,
        attempt=delivery.attempts + delivery.strikes + 1,
        outcome=outcome.code,
        status=outcome.status,
    )

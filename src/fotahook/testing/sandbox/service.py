"""The service behind a sandbox, inside its event loop; a reset starts a new service in an empty store."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from fotahook.contract.addresses import EVERYWHERE
from fotahook.delivery import Dispatcher, Outcome, Rules, Timings, run_maintenance
from fotahook.delivery.outcomes import DELIVERED
from fotahook.delivery.policy import DAY
from fotahook.delivery.sender import Sender, SenderSettings
from fotahook.service import Settings, build_app
from fotahook.service.credentials import PasswordCost, provision_dev
from fotahook.store import open_store
from fotahook.store.records import Delivery, Lease, Retention

from ..simulator import thingspace
from ..simulator.faults import Delay, Drop, Duplicate, ErrorResponse, Fault, Faults, UntrustedCertificate
from .servers import Receiver, UntrustedReceiver, drop_connection, serving, untrusted_receiver, with_fault

_OWN_PATHS: Final = "/sandbox/"
LEASE_SECONDS: Final = 100 * 365 * DAY
"""No advance of the clock ends a lease: no other dispatcher could take it over."""
_PASSWORD_COST: Final = PasswordCost(memory_kib=8, passes=1)
_THINGSPACE_RULES: Final = Rules(schedule=(0.0,), slow_start=False, refusals=1_000_000_000)
"""The sender of the profile makes both attempts itself."""


class Delivered(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt of the sandbox: what it sent to which URL, and its outcome (`delivered`, or an error code)."""

    id: str
    account: str
    url: str | None
    body: bytes
    attempt: int
    outcome: str
    status: int | None


class SandboxService:
    """A service with its dispatcher, as an ASGI app. Every service that it starts has the same secret key."""

    faults: Faults
    base_url: str
    _secret_key: bytes
    _attempt_seconds: float
    _thingspace_seed: int | str | None
    _ahead = 0.0
    "The seconds by which tests have advanced the clock."

    @asynccontextmanager
    async def _running(self, file: Path, bound: socket.socket) -> AsyncIterator[None]:
        """Serve on a listening socket, with the store as it is, until the block ends."""
        self._file, self._ahead = file, 0.0
        self._delivered: list[Delivered] = []
        self._credentials: dict[tuple[str, int], thingspace.Basic] = {}
        "What registrations, by account and revision, ask ThingSpace to repeat."
        self._calls: set[asyncio.Task[None]] = set()
        self._faults_by_path: dict[str, Fault] = {}
        self._untrusted: UntrustedReceiver | None = None
        self._resetting, self._until_reset, self._until_end = asyncio.Lock(), AsyncExitStack(), AsyncExitStack()
        self.receiver = Receiver(f"{self.base_url}{_OWN_PATHS}receiver")
        "A receiver, at `receiver.url`, that answers 200 and keeps every request."
        timeout, key = self._attempt_seconds, self._secret_key
        settings = SenderSettings(secret_key=key, timeout=timeout, allowed_networks=EVERYWHERE)
        async with self._until_end, Sender(settings, clock=self.now, monotonic=time.monotonic) as self._sender:
            try:
                await self._start()
                async with serving(self, bound):
                    yield
            finally:
                await self._until_reset.aclose()

    async def _start(self) -> None:
        self._advanced, self._wakes = asyncio.Event(), list[float]()
        self._store = await open_store(f"sqlite:///{self._file}", clock=self.now)
        self._until_reset.push_async_callback(self._store.close)
        await provision_dev(self._store, clock=self.now, cost=_PASSWORD_COST)
        closing, key, cost = asyncio.Event(), self._secret_key, _PASSWORD_COST
        settings = Settings(
            secret_key=key, allow_http=True, allowed_networks=EVERYWHERE, password_cost=cost, clock=self.now
        )
        self._app = build_app(self._store, settings, closing=closing)
        self._dispatcher = Dispatcher(
            self._store,
            self._deliver if self._thingspace_seed is None else self._deliver_as_thingspace,
            rules=Rules() if self._thingspace_seed is None else _THINGSPACE_RULES,
            timings=Timings(lease=LEASE_SECONDS, attempt=self._attempt_seconds),
            clock=self.now,
            monotonic=lambda: time.monotonic() + self._ahead,
            # Without jitter, the longest backoff each time: a test can say how far to advance.
            jitter=lambda: 1.0,
        )
        kept, longest_wait = Retention(seconds=30 * DAY), self._dispatcher.longest_wait
        for work in (self._dispatcher.run(), run_maintenance(self._store, kept, longest_wait=longest_wait)):
            self._until_reset.push_async_callback(_cancel, asyncio.create_task(work))
        self._until_reset.push_async_callback(self._end_calls)
        self._until_reset.callback(closing.set)

    async def _end_calls(self) -> None:
        for call in self._calls:
            call.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if path == f"{_OWN_PATHS}receiver":
            await self.receiver(scope, receive, send)
        elif path in self._faults_by_path:
            await with_fault(self._faults_by_path[path], self._app, scope, receive, send)
        elif path.startswith(_OWN_PATHS):
            await Response(status_code=404)(scope, receive, send)
        else:
            await self._serve_call(scope, receive, send)

    async def _serve_call(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._resetting:
            fault = self.faults.calls.take(scope["path"])
            call = asyncio.ensure_future(with_fault(fault, self._app, scope, receive, send))
            self._calls.add(call)
        try:
            await asyncio.wait((call,))
        finally:
            self._calls.remove(call)
            call.cancel()
        if call.cancelled():
            await drop_connection(scope, receive)
        else:
            call.result()

    async def _deliver(self, lease: Lease, delivery: Delivery) -> Outcome:
        one, keys, number = delivery, lease.signing_keys, delivery.attempts + delivery.strikes + 1

        def send(url: str) -> Awaitable[Outcome]:
            return self._sender.send_signed(url, one.account, keys, one.message, one.body, number)

        return await self._attempt(delivery, lease.url or "", delivery.body, number, send)

    async def _deliver_as_thingspace(self, lease: Lease, delivery: Delivery) -> Outcome:
        """Both attempts at a message; one that failed is lost, and so is one that nobody was registered for."""
        registrations = []
        for one in reversed(await self._store.callback_history(delivery.account, 50)):
            basic = self._credentials.get((delivery.account, one.revision))
            registrations.append(thingspace.Registration(one.at.timestamp(), one.revision, one.url, basic))
        seed = self._thingspace_seed or ""
        planned = thingspace.plan(seed, delivery.body, registrations, sent_at=delivery.accepted_at)
        if planned is None:
            return _LOST

        async def post(count: int) -> Outcome:
            headers, body = planned.request(delivery.body, count)
            send = partial(self._sender.send, headers=headers, body=body)
            return await self._attempt(delivery, planned.url, body, count, send)

        first = asyncio.ensure_future(post(1))
        try:
            # In real time, as the receiver's: the second copy of a message without an answer.
            await asyncio.wait({first}, timeout=thingspace.ANSWER_SECONDS)
            if first.done() and first.result().code == DELIVERED:
                return first.result()
            if first.done():
                await self._sleep(planned.wait)
            second = await post(2)
            outcomes = await first, second
        finally:
            first.cancel()
        return next((one for one in outcomes if one.code == DELIVERED), msgspec.structs.replace(_LOST, url=planned.url))

    async def _attempt(
        self, delivery: Delivery, url: str, body: bytes, number: int, send: Callable[[str], Awaitable[Outcome]]
    ) -> Outcome:
        """Send a delivery to its receiver, or to another URL in its place, as the fault of this attempt says."""
        fault, to = self.faults.deliveries.take(delivery.account), url
        match fault:
            case Delay():
                await asyncio.sleep(fault.seconds)
            case Drop() | ErrorResponse():
                path = f"{_OWN_PATHS}fault/{len(self._faults_by_path)}"
                self._faults_by_path[path], to = fault, self.base_url + path
            case UntrustedCertificate():
                if self._untrusted is None:
                    self._untrusted = await self._until_end.enter_async_context(untrusted_receiver())
                to = self._untrusted.url
        outcomes = [await send(to) for _ in range(2 if isinstance(fault, Duplicate) else 1)]
        made = partial(Delivered, id=delivery.message, account=delivery.account, url=url, body=body, attempt=number)
        self._delivered += [made(outcome=each.code, status=each.status) for each in outcomes]
        return msgspec.structs.replace(outcomes[0], url=url)

    async def _sleep(self, seconds: float) -> None:
        """Wait by the virtual clock."""
        until = self.now() + seconds
        self._wakes.append(until)
        while (left := until - self.now()) > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._advanced.wait(), left)
        self._wakes.remove(until)

    def _advance(self, seconds: float) -> None:
        """Advance the clock and deliver what is due then."""
        self._ahead += seconds
        self._advanced.set()
        self._advanced = asyncio.Event()
        self._dispatcher.wake()

    def now(self) -> float:
        """Unix seconds by the sandbox's clock."""
        return time.time() + self._ahead


_LOST: Final = Outcome(code="http_lost", excerpt="lost, as ThingSpace loses it")


async def _cancel(task: asyncio.Task[None]) -> None:
    """Cancel a task. Raises the error of one that failed before."""
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task

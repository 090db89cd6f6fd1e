"""The service behind a sandbox, inside its event loop; a reset starts a new service in an empty store."""

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from fotahook.contract.addresses import EVERYWHERE
from fotahook.contract.urls import account_refusal, url_refusal
from fotahook.delivery import Dispatcher, Outcome, Rules, Timings, run_maintenance
from fotahook.delivery.outcomes import DELIVERED
from fotahook.delivery.policy import DAY
from fotahook.delivery.sender import Sender, SenderSettings
from fotahook.service import Settings, build_app
from fotahook.service.credentials import DEV_CLIENT, DEV_USER, PasswordCost, provision_dev
from fotahook.store import open_store
from fotahook.store.records import Delivery, Lease, Retention

from ..simulator import thingspace
from ..simulator.fault_script import Delay, Drop, Duplicate, ErrorResponse, Fault, UntrustedCertificate
from .fault_injection import Faults
from .http_server import drop_connection, untrusted_receiver, with_fault
from .receiver import Receiver

_OWN_PATHS: Final = "/sandbox/"
_RECEIVER_PATH: Final = "/sandbox/receiver"

_LEASE_SECONDS: Final = 100 * 365 * DAY
"""No advance of the clock ends a lease: no other dispatcher could take it over."""
_RETENTION: Final = Retention(seconds=30 * DAY)
_POLL_SECONDS: Final = 0.002
_PASSWORD_COST: Final = PasswordCost(memory_kib=8, passes=1)
"""The password is public, and tests should not wait for its hash."""
_THINGSPACE_RULES: Final = Rules(schedule=(0.0,), slow_start=False, refusals=1_000_000_000)
"""The sender of the profile makes both attempts itself."""
_REGISTRATIONS: Final = 50
_TOKEN_CACHE_SECONDS: Final = 1.0
"""For this long the service trusts a token without asking the store."""


class Delivered(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt of the sandbox: what it sent to which URL, and its outcome (`delivered`, or an error code)."""

    id: str
    account: str
    url: str | None
    body: bytes
    attempt: int
    outcome: str
    status: int | None


@dataclass(eq=False, repr=False)
class SandboxService:
    """A service with its dispatcher, as an ASGI app. Every service that it starts has the same secret key."""

    file: Path
    base_url: str
    secret_key: bytes
    attempt_seconds: float
    faults: Faults
    thingspace_seed: int | str | None
    delivered: list[Delivered] = field(default_factory=list, init=False)
    _credentials: dict[tuple[str, int], thingspace.Basic] = field(default_factory=dict, init=False)
    """What registrations, by account and revision, ask ThingSpace to repeat."""
    _sleepers: dict[asyncio.Event, float] = field(default_factory=dict, init=False)
    """Until when something waits by the virtual clock."""
    _ahead: float = field(default=0.0, init=False)
    """The seconds by which tests have advanced the clock."""
    _calls: set[asyncio.Task[None]] = field(default_factory=set, init=False)
    _faults_by_path: dict[str, Fault] = field(default_factory=dict, init=False)
    _resetting: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)
    _until_reset: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack, init=False)
    _until_end: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack, init=False)
    _untrusted_url: str | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.receiver = Receiver(self.base_url + _RECEIVER_PATH)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start the service on the store as it is; stop the current service on leaving."""
        settings = SenderSettings(secret_key=self.secret_key, timeout=self.attempt_seconds, allowed_networks=EVERYWHERE)
        async with self._until_end, Sender(settings, clock=self.now, monotonic=time.monotonic) as self._sender:
            try:
                await self._start()
                yield
            finally:
                await self._until_reset.aclose()

    async def reset(self) -> None:
        """Start a new service in an empty store, with the clock at the real time and no faults."""
        async with self._resetting:
            await self._until_reset.aclose()
            _remove(self.file)
            self._ahead = 0.0
            self.faults.clear()
            self._credentials.clear()
            self.receiver.clear()
            self.delivered.clear()
            await self._start()

    async def _start(self) -> None:
        self.store = await open_store(f"sqlite:///{self.file}", clock=self.now)
        self._until_reset.push_async_callback(self.store.close)
        await provision_dev(self.store, clock=self.now, cost=_PASSWORD_COST)
        settings = Settings(
            secret_key=self.secret_key,
            allow_http=True,
            allowed_networks=EVERYWHERE,
            password_cost=_PASSWORD_COST,
            clock=self.now,
        )
        closing = asyncio.Event()
        self._app = build_app(self.store, settings, closing=closing)
        self._dispatcher = Dispatcher(
            self.store,
            self._deliver if self.thingspace_seed is None else self._deliver_as_thingspace,
            rules=Rules() if self.thingspace_seed is None else _THINGSPACE_RULES,
            timings=Timings(lease=_LEASE_SECONDS, attempt=self.attempt_seconds),
            clock=self.now,
            monotonic=lambda: time.monotonic() + self._ahead,
            # Without jitter, the longest backoff each time: a test can say how far to advance.
            jitter=lambda: 1.0,
        )
        maintenance = run_maintenance(self.store, _RETENTION, longest_wait=self._dispatcher.longest_wait)
        for work in (self._dispatcher.run(), maintenance):
            self._until_reset.push_async_callback(_cancel, asyncio.create_task(work))
        self._until_reset.push_async_callback(self._end_calls)
        self._until_reset.callback(closing.set)

    async def _end_calls(self) -> None:
        """End the calls that the service, which is about to stop, has not answered yet."""
        for call in self._calls:
            call.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)

    # Requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if path == _RECEIVER_PATH:
            await self.receiver(scope, receive, send)
        elif path in self._faults_by_path:
            await with_fault(self._app, self._faults_by_path[path])(scope, receive, send)
        elif path.startswith(_OWN_PATHS):
            await Response(status_code=404)(scope, receive, send)
        else:
            await self._serve_call(scope, receive, send)

    async def _serve_call(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._resetting:
            app = with_fault(self._app, self.faults.calls.take(scope["path"]))
            call = asyncio.ensure_future(app(scope, receive, send))
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

    # Deliveries

    async def _deliver(self, lease: Lease, delivery: Delivery) -> Outcome:
        def send(url: str) -> Awaitable[Outcome]:
            return self._sender.deliver(msgspec.structs.replace(lease, url=url), delivery)

        number = delivery.attempts + delivery.strikes + 1
        return await self._attempt(delivery, lease.url or "", delivery.body, number, send)

    async def _deliver_as_thingspace(self, lease: Lease, delivery: Delivery) -> Outcome:
        """Both attempts at a message. A message that failed is lost, and so is one that nobody was registered for."""
        account, seed = delivery.account, self.thingspace_seed or ""
        registrations = [
            thingspace.Registration(
                one.at.timestamp(), one.revision, one.url, self._credentials.get((account, one.revision))
            )
            for one in reversed(await self.store.callback_history(account, _REGISTRATIONS))
        ]
        planned = thingspace.plan(seed, delivery.body, registrations, sent_at=delivery.accepted_at)
        if planned is None:
            return _LOST

        async def post(count: int) -> Outcome:
            headers, body = planned.request(delivery.body, count)
            return await self._attempt(
                delivery, planned.url, body, count, lambda url: self._sender.send(url, headers, body)
            )

        first = asyncio.ensure_future(post(1))
        try:
            # In real time, as the receiver's: the second copy of a message without an answer.
            await asyncio.wait({first}, timeout=thingspace.ANSWER_SECONDS)
            if not first.done():
                second = await post(2)
                outcome = await first
                outcome = outcome if outcome.code == DELIVERED else second
            elif (outcome := first.result()).code != DELIVERED:
                await self._sleep(planned.wait)
                outcome = await post(2)
        finally:
            first.cancel()
        return outcome if outcome.code == DELIVERED else msgspec.structs.replace(_LOST, url=planned.url)

    async def _attempt(
        self, delivery: Delivery, url: str, body: bytes, number: int, send: Callable[[str], Awaitable[Outcome]]
    ) -> Outcome:
        """Send a delivery to its receiver, or to another URL in its place, as the fault of this attempt says."""
        fault = self.faults.deliveries.take(delivery.account)
        if isinstance(fault, Delay):
            await asyncio.sleep(fault.seconds)
        to = await self._faulty_url(fault) or url
        outcomes = [await send(to) for _ in range(2 if isinstance(fault, Duplicate) else 1)]
        self.delivered += [
            Delivered(
                id=delivery.message,
                account=delivery.account,
                url=url,
                body=body,
                attempt=number,
                outcome=outcome.code,
                status=outcome.status,
            )
            for outcome in outcomes
        ]
        return msgspec.structs.replace(outcomes[0], url=url)

    async def _sleep(self, seconds: float) -> None:
        """Wait by the virtual clock."""
        advanced, until = asyncio.Event(), self.now() + seconds
        self._sleepers[advanced] = until
        try:
            while (left := until - self.now()) > 0:
                advanced.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(advanced.wait(), left)
        finally:
            del self._sleepers[advanced]

    async def _faulty_url(self, fault: Fault | None) -> str | None:
        """The URL that behaves as the fault says, to send to instead of the receiver; None if the receiver gets it."""
        match fault:
            case Drop() | ErrorResponse():
                path = f"{_OWN_PATHS}fault/{len(self._faults_by_path)}"
                self._faults_by_path[path] = fault
                return self.base_url + path
            case UntrustedCertificate():
                if self._untrusted_url is None:
                    self._untrusted_url = (await self._until_end.enter_async_context(untrusted_receiver())).url
                return self._untrusted_url
        return None

    # What the sandbox offers to tests

    def now(self) -> float:
        """Unix seconds by the virtual clock."""
        return time.time() + self._ahead

    async def register(self, account: str, url: str, basic: thingspace.Basic | None) -> None:
        """Make the URL the account's callback. Raises ValueError for an invalid account or URL."""
        refusal = account_refusal(account) or url_refusal(url, allow_http=True, allowed=EVERYWHERE)
        if refusal is not None:
            raise ValueError(refusal)
        callback = await self.store.register(account, url, actor="sandbox")
        if basic is not None:
            self._credentials[account, callback.revision] = basic

    async def advance(self, seconds: float) -> None:
        """Advance the clock and deliver what is due then. Raises ValueError for a negative or infinite number."""
        if not 0 <= seconds < math.inf:
            raise ValueError(f"a clock advances by 0 or more seconds, not by {seconds!r}")
        self._ahead += seconds
        for sleeper in self._sleepers:
            sleeper.set()
        self._dispatcher.wake()

    async def expire(self, kind: str) -> None:
        """End every token or session of the development client and user."""
        owner = DEV_CLIENT[0] if kind == "token" else DEV_USER[0]
        await self.store.drop_credentials(kind, [one.id for one in await self.store.credentials(kind, owner)])
        await self.advance(_TOKEN_CACHE_SECONDS)

    async def wait_delivered(self, message_id: str, timeout: float) -> None:
        """Return once the message is delivered. Raises TimeoutError with its state, or LookupError if there is none."""
        deadline = time.monotonic() + timeout
        while True:
            message = await self.store.message(message_id)
            if message is None:
                raise LookupError(f"there is no message {message_id}")
            state = message.deliveries[0].state
            if state == "delivered":
                return
            if state == "dead" or time.monotonic() > deadline:
                outcomes = [one.outcome for one in self.delivered if one.id == message_id]
                last = outcomes[-1] if outcomes else "there was no attempt; is a callback registered?"
                raise TimeoutError(f"message {message_id} is {state}: {last}")
            await asyncio.sleep(_POLL_SECONDS)

    async def drain(self, timeout: float) -> None:
        """Advance the clock through every wait until nothing is left to send."""
        deadline = time.monotonic() + timeout
        while (due_in := await self.store.due_in()) is not None:
            # A lane with attempts under way is due again when its lease ends.
            waits = [*(until - self.now() for until in self._sleepers.values()), due_in]
            if 0 < (wait := min(waits)) < _LEASE_SECONDS / 2:
                await self.advance(wait)
            if time.monotonic() > deadline:
                last = f"{self.delivered[-1].id}: {self.delivered[-1].outcome}" if self.delivered else "none"
                raise TimeoutError(f"after {timeout:g} s there is still something to send; the last attempt: {last}")
            await asyncio.sleep(_POLL_SECONDS)


_LOST: Final = Outcome(code="http_lost", excerpt="lost, as ThingSpace loses it")
"""Settles a message for good: the code is none of an endpoint."""


def _remove(file: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        Path(f"{file}{suffix}").unlink(missing_ok=True)


async def _cancel(task: asyncio.Task[None]) -> None:
    """Cancel a task. Raises the error of one that failed before."""
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task

"""The whole service in a thread of the test's process: real HTTP, a real store, real deliveries, a virtual clock."""

import asyncio
import math
import socket
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial, wraps
from pathlib import Path
from typing import Any, Concatenate, Final, Literal, ParamSpec, Protocol, Self, TypeVar

import msgspec
from anyio.from_thread import BlockingPortal, start_blocking_portal

from fotahook.client import Client, OperatorClient
from fotahook.client._runtime import Runtime
from fotahook.contract import signing
from fotahook.contract.addresses import EVERYWHERE, account_refusal, url_refusal
from fotahook.contract.auth import SessionCredentials, ThingspaceOauthCredentials
from fotahook.contract.keys import account_signing_seed, generate_secret_key, parse_secret_key, signing_seed
from fotahook.delivery.outcomes import DELIVERED
from fotahook.service.credentials import DEV_CLIENT, DEV_USER
from fotahook.store import sqlite_path

from ..simulator.campaign import Simulation
from ..simulator.faults import Fault, Faults, FaultScript, read_fault_script, run_script
from .service import LEASE_SECONDS, Delivered, SandboxService
from .targets import POLL_SECONDS, POST_SECONDS, Advance, RateLimiter, Result, ServiceTarget

P = ParamSpec("P")
T = TypeVar("T")

_OFFICIAL_PATHS: Final = {"SOFTWARE_MANAGEMENT_V2": "/api/fota/v2", "OAUTH_SERVER": "/api/ts/v1", "THINGSPACE": "/api"}


class OfficialConfiguration(Protocol):
    """The official SDK's class ``Configuration``: for each environment the URLs of its servers."""

    environments: MutableMapping[Any, MutableMapping[Any, str]]


class ScriptResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of ``Sandbox.run``. `outcomes` counts attempts; `faults_left` is the number of unused faults."""

    sent: int
    delivered: int
    undelivered: int
    outcomes: Mapping[str, int]
    faults_left: int


class _Loop(asyncio.SelectorEventLoop):
    """Keeps the real time even while a test freezes time: what waits would never go on again."""

    time = staticmethod(time.monotonic)  # not looked up again


def _blocking(work: Callable[Concatenate["Sandbox", P], Awaitable[T]]) -> Callable[Concatenate["Sandbox", P], T]:
    """A method that runs in the sandbox's thread while its caller waits."""

    @wraps(work)
    def blocking(sandbox: "Sandbox", /, *args: P.args, **options: P.kwargs) -> T:
        return sandbox._call(partial(work, sandbox, *args, **options))

    return blocking


class Sandbox(SandboxService):
    """A service in development mode on a free port, as a context manager. It leaves nothing but a `store` you named.

    Client dev / dev-secret, user dev / dev-password; callbacks may be registered at http:// and at loopback addresses.
    Its methods block: in a coroutine, call them with ``asyncio.to_thread``.
    """

    def __init__(
        self,
        port: int = 0,
        store: str | None = None,
        *,
        timeout: float = 15.0,
        profile: Literal["fotahook", "thingspace"] = "fotahook",
        seed: int | str = 7,
    ) -> None:
        """`store` is a file to use, `sqlite:///FILE`; by default it is a temporary file.

        `timeout` limits an attempt, in real seconds. With the `profile` ``thingspace`` messages are sent as ThingSpace
        sends them, the same with the same `seed`: one retry, then never again (docs/testing.md). Raises ValueError for
        another profile, and for another store: only SQLite can use a virtual clock.
        """
        if profile not in ("fotahook", "thingspace"):
            raise ValueError(f"there is no profile {profile!r}; choose fotahook or thingspace")
        if store is not None and store.startswith("postgresql:"):
            raise ValueError("a sandbox keeps its store in a file, sqlite:///FILE; PostgreSQL has no virtual clock")
        self.faults = Faults(self._expire)
        self._thingspace_seed, self._attempt_seconds = seed if profile == "thingspace" else None, timeout
        self._port, self._named_file = port, None if store is None else Path(sqlite_path(store))
        self._secret_key = parse_secret_key(generate_secret_key())
        self._portal: BlockingPortal | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="fotahook-sandbox-"))
            bound = stack.enter_context(socket.create_server(("127.0.0.1", self._port)))
            self.base_url = f"http://127.0.0.1:{bound.getsockname()[1]}"
            file = self._named_file or Path(folder, "sandbox.db")
            portal = stack.enter_context(start_blocking_portal(backend_options={"loop_factory": _Loop}))
            stack.enter_context(portal.wrap_async_context_manager(self._running(file, bound)))
            self._portal = portal
            stack.callback(setattr, self, "_portal", None)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def client(self) -> Client:
        """The SDK for this sandbox, with credentials and the sandbox's clock. The caller closes it."""
        return Client._with_runtime(
            Runtime(now=self.now),
            base_url=self.base_url,
            thingspace_oauth_credentials=ThingspaceOauthCredentials(*DEV_CLIENT),
            vz_m2m_token_credentials=SessionCredentials(*DEV_USER),
            proxy="",
        )

    def operator(self) -> OperatorClient:
        """The client of fotahook's own API for this sandbox. The caller closes it."""
        return OperatorClient(self.base_url, *DEV_CLIENT, proxy="")

    def point_official_sdk(self, configuration: OfficialConfiguration) -> None:
        """Point the official SDK, by its class ``Configuration``, to the sandbox in every environment.

        This affects every client of that SDK until the sandbox is reset or left: it cannot be pointed anywhere else.
        """
        for servers in configuration.environments.values():
            for server in [server for server in servers if server.name in _OFFICIAL_PATHS]:
                self._until_reset.callback(servers.__setitem__, server, servers[server])
                servers[server] = self.base_url + _OFFICIAL_PATHS[server.name]

    @property
    def public_key(self) -> str:
        """The key that verifies the sandbox's signatures: ``Listener(public_keys=[sandbox.public_key])``."""
        return signing.format_public_key(signing_seed(self._secret_key))

    def account_key(self, account: str) -> str:
        """The key that verifies only this account's signatures: ``Listener(public_keys=[f"{account}={key}"])``."""
        return signing.format_public_key(account_signing_seed(self._secret_key, account))

    @_blocking
    async def register(self, account: str, url: str | None = None, *, basic: tuple[str, str] | None = None) -> None:
        """Register a URL, by default the sandbox's receiver, as the account's callback. Raises ValueError.

        `basic`: the user name and password that messages of the profile ``thingspace`` repeat, as V1's do.
        """
        url = url or self.receiver.url
        if refusal := account_refusal(account) or url_refusal(url, allow_http=True, allowed=EVERYWHERE):
            raise ValueError(refusal)
        callback = await self._store.register(account, url, actor="sandbox")
        if basic is not None:
            self._credentials[account, callback.revision] = basic

    def publish(self, account: str, message: bytes | Mapping[str, object], ordering_key: str | None = None) -> str:
        """Publish a message for delivery and return its id."""
        return self._operator.publish(account, message, ordering_key=ordering_key).id

    @_blocking
    async def deliveries(self, account: str | None = None) -> list[Delivered]:
        """Every attempt so far, of one account or of all, in the order in which they ended."""
        return [one for one in self._delivered if account in (None, one.account)]

    @_blocking
    async def wait_delivered(self, message_id: str, timeout: float = 30) -> None:
        """Return once a message is delivered. Raises TimeoutError with its state, or LookupError if it does not exist.

        `timeout` is in real seconds; a message that waits for its next attempt needs `advance` or `drain`.
        """
        deadline = time.monotonic() + timeout
        while True:
            message = await self._store.message(message_id)
            if message is None:
                raise LookupError(f"there is no message {message_id}")
            state = message.deliveries[0].state
            if state == "delivered":
                return
            if state == "dead" or time.monotonic() > deadline:
                outcomes = [one.outcome for one in self._delivered if one.id == message_id]
                last = outcomes[-1] if outcomes else "there was no attempt; is a callback registered?"
                raise TimeoutError(f"message {message_id} is {state}: {last}")
            await asyncio.sleep(0.002)

    @_blocking
    async def drain(self, timeout: float = 30) -> None:
        """Advance the clock through every wait until nothing is left to send.

        Then every message is delivered or dead, or its account is held or paused. Raises TimeoutError after `timeout`
        real seconds.
        """
        deadline = time.monotonic() + timeout
        while (due_in := await self._store.due_in()) is not None:
            # A lane with attempts under way is due again when its lease ends.
            wait = min([due_in, *(until - self.now() for until in self._wakes)])
            if 0 < wait < LEASE_SECONDS / 2:
                self._advance(wait)
            if time.monotonic() > deadline:
                last = f"{self._delivered[-1].id}: {self._delivered[-1].outcome}" if self._delivered else "none"
                raise TimeoutError(f"after {timeout:g} s there is still something to send; the last attempt: {last}")
            await asyncio.sleep(0.002)

    def run(self, script: FaultScript | str | Path, campaign: Simulation | None = None) -> ScriptResult:
        """Publish a campaign and inject the faults of a script, or of a script's file. Waits pass at once.

        Before each step, and at the end, everything is delivered that can be. The default `campaign` has 100 devices
        of account 0000123456-00001. Raises LookupError if the account has no callback, and ScriptInvalid.
        """
        # What was published before does not count.
        self.drain()
        campaign = campaign or Simulation("0000123456-00001", devices=100)
        if self._call(self._store.callback, campaign.account) is None:
            raise LookupError(f"account {campaign.account} has no callback: register one, sandbox.receiver.url perhaps")
        script = script if isinstance(script, FaultScript) else read_fault_script(script)
        before = len(self.deliveries())
        limiter, account = RateLimiter(0, sleep=self.advance), campaign.account
        target = SandboxTarget(limiter, lambda _: self.drain(120), account, self._operator, sandbox=self)
        sent = run_script(campaign, script, target)
        attempts = self.deliveries()[before:]
        delivered = len({one.id for one in attempts if one.outcome == DELIVERED})
        outcomes, lost = Counter(one.outcome for one in attempts), sent - delivered
        return ScriptResult(
            sent=sent, delivered=delivered, undelivered=lost, outcomes=outcomes, faults_left=self.faults.left
        )

    @_blocking
    async def advance(self, seconds: float) -> None:
        """Advance the sandbox's clock, which tokens, sessions, backoffs, schedules and times to live go by."""
        if not 0 <= seconds < math.inf:
            raise ValueError(f"a clock advances by 0 or more seconds, not by {seconds!r}")
        self._advance(seconds)

    @_blocking
    async def reset(self) -> None:
        """Drop callbacks, messages, history, tokens, faults and received requests, and set the clock to the real time.

        The URL and the public key stay. Calls and attempts under way end without a response. Tokens of earlier clients
        are invalid: create new clients. A `store` that you named is emptied.
        """
        async with self._resetting:
            await self._until_reset.aclose()
            for suffix in ("", "-wal", "-shm"):
                await asyncio.to_thread(Path(f"{self._file}{suffix}").unlink, missing_ok=True)
            self._ahead = 0.0
            for kept in (self.faults, self._credentials, self.receiver, self._delivered):
                kept.clear()
            await self._start()

    @_blocking
    async def _expire(self, kind: str) -> None:
        owner = DEV_CLIENT[0] if kind == "token" else DEV_USER[0]
        await self._store.drop_credentials(kind, [one.id for one in await self._store.credentials(kind, owner)])
        # For so long the service trusts a token without asking the store.
        self._advance(1.0)

    @cached_property
    def _operator(self) -> OperatorClient:
        """Created for the first message, until the reset: it loads the SDK's transport."""
        self._until_reset.callback(self.__dict__.pop, "_operator")
        return self._until_reset.enter_context(self.operator())

    def _call(self, work: Callable[..., Awaitable[T]], *args: object) -> T:
        if self._portal is None:
            raise RuntimeError("the sandbox is not running: use it in a with statement")
        result: T = self._portal.call(work, *args)
        return result


@dataclass
class SandboxTarget(ServiceTarget):
    """A sandbox. With the profile of ThingSpace it sends to the listener at `url`, which has replaced `former_url`."""

    sandbox: Sandbox = field(kw_only=True)
    former_url: str | None = None
    url: str | None = None

    def inject(self, fault: Fault) -> None:
        self.sandbox.faults.deliveries.add(fault)

    def finish(self) -> Result:
        while (backlog := self.operator.account(self.account).backlog).pending:
            if self.is_held():
                # What came while nothing was registered waits in the sandbox: it is dropped now.
                self.sandbox.register(self.account, self.url)
            time.sleep(POLL_SECONDS)
        posts = self.sandbox.deliveries()
        counts = {"posted": len(posts), "dropped": self.sent - len({one.id for one in posts})}
        if self.former_url is not None:
            counts["postedToFormer"] = sum(one.url == self.former_url for one in posts)
        lost = f"{backlog.dead} of {self.sent} messages are lost, as ThingSpace loses them" if backlog.dead else None
        return Result(counts=counts | Counter(one.outcome for one in posts), lost=lost)


@contextmanager
def thingspace_target(
    account: str, former_url: str | None, url: str, seed: str, rate: float, advance: Advance
) -> Iterator[SandboxTarget]:
    """A target that posts to a listener as ThingSpace does. Clients of its sandbox may change the callback."""
    with Sandbox(timeout=POST_SECONDS, profile="thingspace", seed=seed) as sandbox, sandbox.operator() as operator:
        for registered in filter(None, (former_url, url)):
            sandbox.register(account, registered)
        target = SandboxTarget(RateLimiter(rate), advance, account, operator, sandbox=sandbox)
        target.note = f"to change the callback meanwhile: fotahook callbacks … --base-url {sandbox.base_url} --local"
        target.url, target.former_url = url, former_url
        yield target

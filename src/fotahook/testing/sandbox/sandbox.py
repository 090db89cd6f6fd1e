"""The whole service in a thread of the test's process: real HTTP, a real store, real deliveries, a virtual clock."""

import asyncio
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping, MutableMapping
from concurrent.futures import Future
from contextlib import ExitStack
from functools import cached_property
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Protocol, Self, TypeVar

import msgspec

from fotahook.client import Client, OperatorClient
from fotahook.client._runtime import Runtime
from fotahook.contract import signing
from fotahook.contract.auth import SessionCredentials, ThingspaceOauthCredentials
from fotahook.contract.keys import account_signing_seed, generate_secret_key, parse_secret_key, signing_seed
from fotahook.contract.operator import BatchMessage, Refused
from fotahook.service.credentials import DEV_CLIENT, DEV_USER
from fotahook.store import sqlite_path

from ..simulator.campaign import CampaignMessage, Simulation
from ..simulator.fault_script import Fault, FaultScript, read_fault_script, run_script
from .fault_injection import Faults
from .http_server import serving
from .receiver import Receiver
from .service import Delivered, SandboxService

T = TypeVar("T")

_ACCOUNT: Final = "0000123456-00001"
_BATCH: Final = 500
_DRAIN_SECONDS: Final = 120.0
"""For one batch of a script. Only a sandbox that hangs takes so long."""

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


def _run(main: Coroutine[object, object, None]) -> None:
    with asyncio.Runner(loop_factory=_Loop) as runner:
        runner.run(main)


class Sandbox:
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
        self._thingspace_seed = seed if profile == "thingspace" else None
        self._port = port
        self._file = None if store is None else _file_of(store)
        self._attempt_seconds = timeout
        self._key = parse_secret_key(generate_secret_key())
        self._entered: SandboxService | None = None
        self._stack = ExitStack()
        self.faults = Faults(lambda kind: self._call(self._service.expire, kind))

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="fotahook-sandbox-"))
            bound = stack.enter_context(socket.create_server(("127.0.0.1", self._port)))
            self.base_url = f"http://127.0.0.1:{bound.getsockname()[1]}"
            file = self._file or Path(folder, "sandbox.db")
            service = SandboxService(
                file, self.base_url, self._key, self._attempt_seconds, self.faults, self._thingspace_seed
            )
            self._started: Future[None] = Future()
            # Not anyio's portal, whose import alone would take a tenth of the time until the sandbox is ready.
            thread = threading.Thread(target=_run, args=(self._serve(service, bound),), name="fotahook sandbox")
            thread.start()
            stack.callback(thread.join)
            self._started.result()
            stack.callback(lambda: self._loop.call_soon_threadsafe(self._stopped.set))
            self._entered = service
            self._until_reset = stack.enter_context(ExitStack())
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered = None
        self._stack.close()

    # Clients

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
        return signing.format_public_key(signing_seed(self._key))

    def account_key(self, account: str) -> str:
        """The key that verifies only this account's signatures: ``Listener(public_keys=[f"{account}={key}"])``."""
        return signing.format_public_key(account_signing_seed(self._key, account))

    # Messages

    @property
    def receiver(self) -> Receiver:
        """A receiver, at `receiver.url`, that answers 200 and keeps every request."""
        return self._service.receiver

    def register(self, account: str, url: str | None = None, *, basic: tuple[str, str] | None = None) -> None:
        """Register a URL, by default the sandbox's receiver, as the account's callback. Raises ValueError.

        `basic`: the user name and password that messages of the profile ``thingspace`` repeat, as V1's do.
        """
        self._call(self._service.register, account, url or self.receiver.url, basic)

    def publish(self, account: str, message: bytes | Mapping[str, object], ordering_key: str | None = None) -> str:
        """Publish a message for delivery and return its id."""
        return self._operator.publish(account, message, ordering_key=ordering_key).id

    def deliveries(self, account: str | None = None) -> list[Delivered]:
        """Every attempt so far, of one account or of all, in the order in which they ended."""
        return [one for one in tuple(self._service.delivered) if account in (None, one.account)]

    def wait_delivered(self, message_id: str, timeout: float = 30) -> None:
        """Return once a message is delivered. Raises TimeoutError with its state, or LookupError if it does not exist.

        `timeout` is in real seconds; a message that waits for its next attempt needs `advance` or `drain`.
        """
        self._call(self._service.wait_delivered, message_id, timeout)

    def drain(self, timeout: float = 30) -> None:
        """Advance the clock through every wait until nothing is left to send.

        Then every message is delivered or dead, or its account is held or paused. Raises TimeoutError after `timeout`
        real seconds.
        """
        self._call(self._service.drain, timeout)

    def run(self, script: FaultScript | str | Path, campaign: Simulation | None = None) -> ScriptResult:
        """Publish a campaign and inject the faults of a script, or of a script's file. Waits pass at once.

        Before each step, and at the end, everything is delivered that can be. The default `campaign` has 100 devices
        of account 0000123456-00001. Raises LookupError if the account has no callback, and ScriptInvalid.
        """
        campaign = campaign or Simulation(_ACCOUNT, devices=100)
        if self._call(self._service.store.callback, campaign.account) is None:
            raise LookupError(f"account {campaign.account} has no callback: register one, sandbox.receiver.url perhaps")
        script = script if isinstance(script, FaultScript) else read_fault_script(script)
        target = _ScriptTarget(self, self._operator, campaign.account)
        before = len(self.deliveries())
        sent = run_script(campaign, script, target)
        attempts = self.deliveries()[before:]
        delivered = len({one.id for one in attempts if one.outcome == "delivered"} & target.published)
        return ScriptResult(
            sent=sent,
            delivered=delivered,
            undelivered=sent - delivered,
            outcomes=dict(Counter(one.outcome for one in attempts)),
            faults_left=self.faults.left,
        )

    # Time and reset

    def advance(self, seconds: float) -> None:
        """Advance the sandbox's clock, which tokens, sessions, backoffs, schedules and times to live go by."""
        self._call(self._service.advance, seconds)

    def now(self) -> float:
        """Unix seconds by the sandbox's clock."""
        return self._service.now()

    def reset(self) -> None:
        """Drop callbacks, messages, history, tokens, faults and received requests, and set the clock to the real time.

        The URL and the public key stay. Calls and attempts under way end without a response. Tokens of earlier clients
        are invalid: create new clients. A `store` that you named is emptied.
        """
        self._call(self._service.reset)
        self._until_reset.close()

    @cached_property
    def _operator(self) -> OperatorClient:
        """Created for the first message, until the reset: it loads the SDK's transport."""
        self._until_reset.callback(self.__dict__.pop, "_operator")
        return self._until_reset.enter_context(self.operator())

    @property
    def _service(self) -> SandboxService:
        if self._entered is None:
            raise RuntimeError("the sandbox is not running: use it in a with statement")
        return self._entered

    def _call(self, work: Callable[..., Coroutine[Any, Any, T]], *args: object) -> T:
        """Run a method of the service in its thread."""
        return asyncio.run_coroutine_threadsafe(work(*args), self._loop).result()

    async def _serve(self, service: SandboxService, bound: socket.socket) -> None:
        self._loop, self._stopped = asyncio.get_running_loop(), asyncio.Event()
        try:
            async with service.running(), serving(service, bound):
                self._started.set_result(None)
                await self._stopped.wait()
        except BaseException as error:
            if self._started.done():
                raise
            self._started.set_exception(error)


class _ScriptTarget:
    """Publishes to a sandbox and drains it after each batch."""

    def __init__(self, sandbox: Sandbox, operator: OperatorClient, account: str) -> None:
        self._sandbox = sandbox
        self._operator = operator
        self._account = account
        self.published: set[str] = set()

    def send(self, messages: Iterable[CampaignMessage]) -> int:
        stream, sent = iter(messages), 0
        while batch := [
            BatchMessage(self._account, message.body, ordering_key=message.device) for message in islice(stream, _BATCH)
        ]:
            for result in self._operator.publish_batch(batch):
                if isinstance(result, Refused):
                    raise ValueError(f"a message of the campaign was refused: {result.error_message}")
                self.published.add(result.id)
            sent += len(batch)
            self._sandbox.drain(_DRAIN_SECONDS)
        return sent

    def pause(self, seconds: float) -> None:
        self._sandbox.advance(seconds)

    def inject(self, fault: Fault) -> None:
        self._sandbox.faults.deliveries.add(fault)


def _file_of(store: str) -> Path:
    if store.startswith("postgresql:"):
        raise ValueError("a sandbox keeps its store in a file, sqlite:///FILE: PostgreSQL cannot use a virtual clock")
    return Path(sqlite_path(store))

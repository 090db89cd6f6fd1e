"""The whole service in a thread of the test's own process: real HTTP, a real store, real deliveries, time to order."""

import asyncio
import socket
import tempfile
import threading
from collections.abc import Coroutine, Mapping, MutableMapping
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Protocol, Self, TypeVar

from fotahook.client import Client, OperatorClient
from fotahook.client._effects import Runtime
from fotahook.contract import signing
from fotahook.contract.auth import SessionCredentials, ThingspaceOauthCredentials
from fotahook.contract.keys import generate_secret_key, parse_secret_key, signing_seed
from fotahook.service import DEV_CLIENT, DEV_USER
from fotahook.store import sqlite_path

from ..simulator.fault_script import FaultScript, read_fault_script
from ..simulator.script_in_sandbox import Rehearsed, rehearse
from ..simulator.simulation import Simulation
from .fault_injection import Faults
from .http_server import serving
from .receiver import Receiver
from .service import Delivered, Engine

T = TypeVar("T")

ATTEMPT_SECONDS: Final = 15.0
_ACCOUNT: Final = "0000123456-00001"

_OFFICIAL_PATHS: Final = {"SOFTWARE_MANAGEMENT_V2": "/api/fota/v2", "OAUTH_SERVER": "/api/ts/v1", "THINGSPACE": "/api"}


class OfficialServer(Protocol):
    """One of the official SDK's servers."""

    @property
    def name(self) -> str: ...


class OfficialConfiguration(Protocol):
    """The official SDK's class ``Configuration``: for each environment the URLs of its servers."""

    environments: MutableMapping[Any, MutableMapping[Any, str]]


class Sandbox:
    """A service in development mode on a free port. A context manager; nothing outlives it but a `store` you named.

    Client dev / dev-secret, user dev / dev-password; callbacks may be registered at http:// and at loopback addresses.
    The methods are for threads: in a coroutine, call them by ``asyncio.to_thread``.
    """

    def __init__(self, port: int = 0, store: str | None = None, *, timeout: float = ATTEMPT_SECONDS) -> None:
        """`store` is a file to use, `sqlite:///FILE`; without one it is made in a temporary folder.

        `timeout` is the real seconds that an attempt may take. ValueError for any other store: only SQLite goes by a
        clock that can be moved on.
        """
        self._port = port
        self._named = None if store is None else _file_of(store)
        self._attempt_seconds = timeout
        self._key = parse_secret_key(generate_secret_key())
        self._entered: Engine | None = None
        self._leaving = ExitStack()
        self.faults = Faults(lambda kind: self._call(self._engine.expire(kind)))

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="fotahook-sandbox-"))
            self._bound = stack.enter_context(socket.create_server(("127.0.0.1", self._port)))
            self.base_url = f"http://127.0.0.1:{self._bound.getsockname()[1]}"
            file = self._named or Path(folder, "sandbox.db")
            engine = Engine(file, self.base_url, self._key, self._attempt_seconds, self.faults)
            self._started: Future[None] = Future()
            self._thread = threading.Thread(target=self._run, args=(engine,), name="fotahook sandbox")
            self._thread.start()
            stack.callback(self._stop)
            self._started.result()
            self._entered = engine
            self._operator = self._new_operator()
            stack.callback(lambda: self._operator.close())
            self._pointed = stack.enter_context(ExitStack())
            self._leaving = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered = None
        self._leaving.close()

    # Who talks to it

    def client(self) -> Client:
        """The SDK, pointed here, with credentials, and by the sandbox's clock; the caller closes it."""
        return Client._with_runtime(
            Runtime(now=self.now),
            base_url=self.base_url,
            thingspace_oauth_credentials=ThingspaceOauthCredentials(*DEV_CLIENT),
            vz_m2m_token_credentials=SessionCredentials(*DEV_USER),
            proxy="",
        )

    def point_official_sdk(self, configuration: OfficialConfiguration) -> None:
        """Let the official SDK, whose ``Configuration`` this is, take the sandbox for ThingSpace in every environment.

        Until the sandbox is reset or left, whatever client of that SDK is made. It has no other way to another server.
        """
        for servers in configuration.environments.values():
            for server in [server for server in servers if server.name in _OFFICIAL_PATHS]:
                self._pointed.callback(servers.__setitem__, server, servers[server])
                servers[server] = self.base_url + _OFFICIAL_PATHS[server.name]

    @property
    def public_key(self) -> str:
        """What a listener checks the sandbox's signatures with: ``Listener(public_keys=[sandbox.public_key])``."""
        return signing.format_public_key(signing_seed(self._key))

    # Messages

    @property
    def receiver(self) -> Receiver:
        """A receiver at hand, at `receiver.url`: it answers 200 and remembers everything that comes."""
        return self._engine.receiver

    def register(self, account: str, url: str | None = None) -> None:
        """Make a URL the account's callback, or the sandbox's own receiver; ValueError if it can be none."""
        self._call(self._engine.register(account, url or self.receiver.url))

    def publish(self, account: str, message: bytes | Mapping[str, object], ordering_key: str | None = None) -> str:
        """Hand a message over for delivery; its id."""
        return self._operator.publish(account, message, ordering_key=ordering_key).id

    def deliveries(self, account: str | None = None) -> list[Delivered]:
        """Every attempt made so far, of one account or of all, in the order in which they ended."""
        return [one for one in tuple(self._engine.delivered) if account in (None, one.account)]

    def wait_delivered(self, message_id: str, timeout: float = 30) -> None:
        """Return once a message is delivered; TimeoutError tells where it stands, LookupError if it does not exist.

        `timeout` is real seconds; a message that waits for its next attempt needs `advance` or `drain`.
        """
        self._call(self._engine.wait_delivered(message_id, timeout))

    def drain(self, timeout: float = 30) -> None:
        """Return once nothing is left that could be sent: the clock moves on through every wait, to the end.

        Messages are delivered or dead then, or their account is held or paused. TimeoutError after `timeout` real
        seconds.
        """
        self._call(self._engine.drain(timeout))

    def run(self, script: FaultScript | str | Path, campaign: Simulation | None = None) -> Rehearsed:
        """Publish a campaign and let go wrong what a fault script, or the file of one, says; what came of it.

        Without a `campaign` it is one of 100 devices, of account 0000123456-00001. All waits pass at once. LookupError
        if the account has no callback, ScriptInvalid for what is no script.
        """
        campaign = campaign or Simulation(_ACCOUNT, devices=100)
        if self._call(self._engine.store.callback(campaign.account)) is None:
            raise LookupError(f"account {campaign.account} has no callback: register one, sandbox.receiver.url perhaps")
        read = script if isinstance(script, FaultScript) else read_fault_script(script)
        return rehearse(self, self._operator, read, campaign)

    # Time, and beginning anew

    def advance(self, seconds: float) -> None:
        """Be so much later: tokens, sessions, backoffs, schedules and times to live go by the sandbox's clock."""
        self._call(self._engine.advance(seconds))

    def now(self) -> float:
        """Unix seconds by the sandbox's clock."""
        return self._engine.clock.wall()

    def reset(self) -> None:
        """Forget everything: callbacks, messages, history, tokens, faults, what was received; the clock is right again.

        The URL and the public key stay. Calls and attempts under way end unanswered. Clients made earlier hold tokens
        that have ended: make new ones. A `store` that was named is emptied.
        """
        self._call(self._engine.reset())
        self._pointed.close()
        self._operator.close()
        self._operator = self._new_operator()

    # The thread

    def _new_operator(self) -> OperatorClient:
        return OperatorClient(self.base_url, *DEV_CLIENT, proxy="")

    @property
    def _engine(self) -> Engine:
        if self._entered is None:
            raise RuntimeError("the sandbox is not running: use it in a with statement")
        return self._entered

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _stop(self) -> None:
        if self._started.exception() is None:
            self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join()

    def _run(self, engine: Engine) -> None:
        try:
            asyncio.run(self._serve(engine))
        except BaseException as error:
            if self._started.done():
                raise
            self._started.set_exception(error)

    async def _serve(self, engine: Engine) -> None:
        self._loop, self._stopped = asyncio.get_running_loop(), asyncio.Event()
        async with engine.running(), serving(engine, self._bound):
            self._started.set_result(None)
            await self._stopped.wait()


def _file_of(store: str) -> Path:
    if store.startswith("postgresql:"):
        raise ValueError("a sandbox keeps its store in a file, sqlite:///FILE: PostgreSQL's clock cannot be moved on")
    return Path(sqlite_path(store))

"""The whole service in a thread of the test's own process: real HTTP, a real store, real deliveries."""

import asyncio
import socket
import tempfile
import threading
import time
from collections.abc import Coroutine, Mapping
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import msgspec
import uvicorn

from fotahook.client import Client, OperatorClient
from fotahook.contract.addresses import EVERYWHERE
from fotahook.contract.auth import SessionCredentials, ThingspaceOauthCredentials
from fotahook.contract.keys import generate_secret_key, parse_secret_key
from fotahook.delivery import Dispatcher, Outcome
from fotahook.delivery.sender import Sender, SenderSettings
from fotahook.service import DEV_CLIENT, DEV_USER, Settings, build_app, provision_dev
from fotahook.store import Store, open_store
from fotahook.store.base import Delivery, Lease

T = TypeVar("T")

_POLL_SECONDS: Final = 0.005


class Delivered(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt that the sandbox made: what it sent where, and what came of it (`delivered`, or an error code)."""

    id: str
    account: str
    url: str | None
    body: bytes
    outcome: str
    status: int | None


class Sandbox:
    """A service in development mode on a free port. A context manager; nothing outlives it but a `store` you named.

    Client dev / dev-secret, user dev / dev-password; callbacks may be registered at http:// and at loopback addresses.
    """

    def __init__(self, port: int = 0, store: str | None = None) -> None:
        """`store` is the URL of a store to use, `sqlite:///FILE`; without one, it is made in a temporary folder."""
        self._port = port
        self._store_url = store
        self._deliveries: list[Delivered] = []

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="fotahook-sandbox-"))
            self._bound = stack.enter_context(socket.create_server(("127.0.0.1", self._port)))
            self.base_url = f"http://127.0.0.1:{self._bound.getsockname()[1]}"
            self._started: Future[None] = Future()
            url = self._store_url or f"sqlite:///{Path(folder, 'sandbox.db')}"
            self._thread = threading.Thread(target=self._run, args=(url,), name="fotahook sandbox")
            self._thread.start()
            stack.callback(self._stop)
            self._started.result()
            self._operator = stack.enter_context(OperatorClient(self.base_url, *DEV_CLIENT, proxy=""))
            self._leaving = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leaving.close()

    def client(self) -> Client:
        """The SDK, pointed here and with credentials; the caller closes it."""
        return Client(
            base_url=self.base_url,
            thingspace_oauth_credentials=ThingspaceOauthCredentials(*DEV_CLIENT),
            vz_m2m_token_credentials=SessionCredentials(*DEV_USER),
            proxy="",
        )

    def publish(self, account: str, message: bytes | Mapping[str, object], ordering_key: str | None = None) -> str:
        """Hand a message over for delivery; its id."""
        return self._operator.publish(account, message, ordering_key=ordering_key).id

    def deliveries(self, account: str | None = None) -> list[Delivered]:
        """Every attempt made so far, of one account or of all, in the order in which they ended."""
        return [one for one in tuple(self._deliveries) if account in (None, one.account)]

    def wait_delivered(self, message_id: str, timeout: float = 5) -> None:
        """Return once a message is delivered; TimeoutError tells where it stands, LookupError if it does not exist."""
        self._call(self._wait_delivered(message_id, timeout))

    async def _wait_delivered(self, message_id: str, timeout: float) -> None:
        until = time.monotonic() + timeout
        while True:
            message = await self._store.message(message_id)
            if message is None:
                raise LookupError(f"there is no message {message_id}")
            place = message.placements[0]
            if place.state == "delivered":
                return
            if place.state == "dead" or time.monotonic() > until:
                raise TimeoutError(f"message {message_id} is {place.state}: {self._last_outcome(message_id)}")
            await asyncio.sleep(_POLL_SECONDS)

    def _last_outcome(self, message_id: str) -> str:
        outcomes = [one.outcome for one in self._deliveries if one.id == message_id]
        return outcomes[-1] if outcomes else "it was never tried; is a callback registered?"

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _stop(self) -> None:
        if self._started.exception() is None:
            self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join()

    def _run(self, url: str) -> None:
        try:
            asyncio.run(self._serve(url))
        except BaseException as error:
            if self._started.done():
                raise
            self._started.set_exception(error)

    async def _serve(self, url: str) -> None:
        self._loop, self._stopped = asyncio.get_running_loop(), asyncio.Event()
        key = parse_secret_key(generate_secret_key())
        self._store = await open_store(url)
        try:
            await provision_dev(self._store)
            settings = SenderSettings(secret_key=key, allowed_networks=EVERYWHERE)
            async with Sender(settings, clock=time.time, monotonic=time.monotonic) as sender:
                await self._host(self._store, key, sender)
        finally:
            await self._store.close()

    async def _host(self, store: Store, key: bytes, sender: Sender) -> None:
        async def deliver(lease: Lease, delivery: Delivery) -> Outcome:
            outcome = await sender.deliver(lease, delivery)
            self._deliveries.append(_delivered(delivery, outcome))
            return outcome

        app = build_app(store, Settings(secret_key=key, allow_http=True, allowed_networks=EVERYWHERE))
        dispatcher = Dispatcher(store, deliver)
        async with asyncio.TaskGroup() as tasks:
            server = uvicorn.Server(uvicorn.Config(app, ws="none", lifespan="off", log_config=None, access_log=False))
            serving = tasks.create_task(server.serve([self._bound]))
            tasks.create_task(dispatcher.run())
            # The socket has listened from the start: who connects now waits until the server takes over.
            self._started.set_result(None)
            await self._stopped.wait()
            server.should_exit = True
            await serving
            dispatcher.stop()


def _delivered(delivery: Delivery, outcome: Outcome) -> Delivered:
    return Delivered(
        id=delivery.message,
        account=delivery.account,
        url=outcome.url,
        body=delivery.body,
        outcome=outcome.code,
        status=outcome.status,
    )

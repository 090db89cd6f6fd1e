"""Named states of the world for delivery: a real store with a virtual clock, and lanes served to their end."""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from fotahook.delivery import Deliver, Dispatcher, Outcome, Rules
from fotahook.delivery.lane import LaneWorker
from fotahook.store import open_store
from fotahook.store.base import Store
from fotahook.store.records import Delivery, Health, Lease, Limits, NewMessage, StoreUnavailable
from tests.sqlite import put_empty_store
from tests.store.conftest import ACCOUNT, ENGINES, URL, VirtualClock, engine, store_url

__all__ = ["engine", "store_url"]  # fixtures

DELIVERED = Outcome(code="delivered", status=200)


def failed(code: str = "http_500", status: int | None = None, retry_after: float | None = None) -> Outcome:
    if status is None and code.startswith("http_"):
        status = int(code.removeprefix("http_"))
    return Outcome(code=code, status=status, retry_after=retry_after)


def a_delivery(**changes: object) -> Delivery:
    facts: dict[str, object] = {
        "lane": 1,
        "seq": 1,
        "message": "m",
        "account": ACCOUNT,
        "type": None,
        "ordering_key": None,
        "body": b"{}",
        "accepted_at": 0.0,
        "attempts": 0,
        "strikes": 0,
        "age": 0.0,
    }
    return Delivery(**facts | changes)  # type: ignore[arg-type]


def a_lease(**changes: object) -> Lease:
    facts: dict[str, object] = {
        "lane": 1,
        "token": 1,
        "account": ACCOUNT,
        "consumer": "",
        "open": True,
        "url": URL,
        "revision": 1,
        "signing_keys": (),
        "limits": Limits(),
        "health": Health(),
    }
    return Lease(**facts | changes)  # type: ignore[arg-type]


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "engine" in metafunc.fixturenames and metafunc.module.__name__.endswith(".test_dispatcher"):
        metafunc.parametrize("engine", ENGINES)


@pytest.fixture
async def store(engine: str, store_url: str, clock: VirtualClock) -> AsyncIterator[Store]:
    if engine == "sqlite":
        put_empty_store(Path(store_url.removeprefix("sqlite:///")))
    store = await open_store(store_url, clock=clock)
    await store.register(ACCOUNT, URL, actor="test")
    yield store
    await store.close()


Accept = Callable[..., Awaitable[list[str]]]


@pytest.fixture
def accept(store: Store) -> Accept:
    async def accept_bodies(*bodies: bytes, key: str | None = None, account: str = ACCOUNT) -> list[str]:
        messages = [NewMessage(account=account, body=body, ordering_key=key) for body in bodies]
        return [accepted.id for accepted in await store.accept(messages)]

    return accept_bodies


class Receiver:
    """Answers attempts with the outcomes that a test sets, and keeps the deliveries in order."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []
        self.urls: list[str | None] = []
        self.answers: dict[bytes, Outcome] = {}
        self.default = DELIVERED
        self.running = 0
        self.most_running = 0

    async def deliver(self, lease: Lease, delivery: Delivery) -> Outcome:
        self.seen.append(delivery.body)
        self.urls.append(lease.url)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        # Lets the lane start whatever else it may have in flight beside this one.
        for _ in range(3):
            await asyncio.sleep(0)
        self.running -= 1
        return self.answers.get(delivery.body, self.default)


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


Serve = Callable[..., Awaitable[int]]


@pytest.fixture
def serve(store: Store, receiver: Receiver, clock: VirtualClock) -> Serve:
    """Lease whatever is due and serve it to its end; how many lanes that were."""

    async def serve_what_is_due(deliver: Deliver = receiver.deliver, *, rules: Rules | None = None) -> int:
        asked_at = clock()
        leases = await store.lease(100, 30)
        for lease in leases:
            await a_server(lease, asked_at, store, deliver, clock, rules=rules).run()
        return len(leases)

    return serve_what_is_due


class Server(LaneWorker):
    @property
    def dispatcher(self) -> Dispatcher:
        assert isinstance(self._runtime, Dispatcher)
        return self._runtime

    async def run(self) -> None:
        """Serve to the end. Cancelling it ends what is in flight."""
        try:
            await asyncio.shield(self.begin())
        finally:
            self.end()
            await asyncio.wait([self.ended])


def a_server(
    lease: Lease,
    leased_at: float,
    store: Store,
    deliver: Deliver,
    clock: VirtualClock,
    *,
    rules: Rules | None = None,
    others_wait: bool = False,
    monotonic: VirtualClock | None = None,
) -> Server:
    return Server(lease, leased_at, a_dispatcher(store, deliver, clock, others_wait, monotonic), rules or Rules())


def a_dispatcher(
    store: Store,
    deliver: Deliver,
    clock: VirtualClock,
    others_wait: bool = False,
    monotonic: VirtualClock | None = None,
    *,
    jitter: Callable[[], float] = lambda: 1.0,
) -> Dispatcher:
    """One that trusts its clock, and serves only the lanes that are made for it."""
    monotonic = monotonic or clock
    lanes = 0 if others_wait else 100
    dispatcher = Dispatcher(store, deliver, lanes=lanes, in_flight=100, clock=clock, monotonic=monotonic, jitter=jitter)
    dispatcher.watch._jumped_at = -math.inf
    dispatcher.on_recovered = lambda lease: None  # type: ignore[method-assign]
    return dispatcher


class Flaky:
    """A store that is away for some calls of one verb; everything else is the real one's."""

    def __init__(self, store: Store, verb: str, times: int) -> None:
        self._store, self._verb, self.times = store, verb, times

    def __getattr__(self, name: str) -> object:
        real = getattr(self._store, name)
        if name != self._verb:
            return real

        async def maybe(*args: object, **options: object) -> object:
            self.times -= 1
            if self.times >= 0:
                raise StoreUnavailable("away on purpose")
            return await real(*args, **options)

        return maybe

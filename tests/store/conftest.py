"""Fixtures of the conformance suite: a store is whatever passes it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Final

import pytest

from fotahook.store import open_store
from fotahook.store.base import Store
from fotahook.store.records import Accepted, Attempt, Delivery, Health, LaneVerdict, Lease, NewMessage, Settlement
from tests.deadlines import DEADLINE
from tests.postgres import START, ClockFile, Server, a_schema
from tests.sqlite import put_empty_store

ENGINES: Final = ("sqlite", "postgres")
ACCOUNT = "0000123456-00001"
URL = "https://receiver.example/callbacks"


class VirtualClock:
    """A clock that stands still until a test moves it. `show_to` connects another place that has its time."""

    def __init__(self, now: float = START) -> None:
        self.now = now
        self._show: Callable[[float], None] = lambda now: None

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds
        self._show(self.now)

    def show_to(self, show: Callable[[float], None]) -> None:
        self._show = show
        show(self.now)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    on_all_engines = (".test_clock_steps", ".test_conformance", ".test_ledger", ".test_reports")
    if "engine" in metafunc.fixturenames and metafunc.module.__name__.endswith(on_all_engines):
        metafunc.parametrize("engine", ENGINES)


@pytest.fixture
def engine() -> str:
    """The engine for tests that do not run on all of them."""
    return "sqlite"


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
async def store_url(
    engine: str, tmp_path: Path, clock: VirtualClock, request: pytest.FixtureRequest
) -> AsyncIterator[str]:
    if engine == "sqlite":
        yield f"sqlite:///{tmp_path}/store.db"
        return
    server: Server = request.getfixturevalue("postgres_server")
    file = ClockFile(server)
    clock.show_to(file.show)
    async with a_schema(server, file) as url:
        yield url


@pytest.fixture
async def store(engine: str, store_url: str, clock: VirtualClock) -> AsyncIterator[Store]:
    if engine == "sqlite":
        put_empty_store(Path(store_url.removeprefix("sqlite:///")))
    store = await open_store(store_url, clock=clock)
    yield store
    await store.close()


@pytest.fixture
async def registered(store: Store) -> Store:
    """A store in which the account has a callback."""
    await store.register(ACCOUNT, URL, actor="test")
    return store


Accept = Callable[..., Awaitable[list[Accepted]]]


@pytest.fixture
def accept(store: Store) -> Accept:
    async def accept_bodies(
        *bodies: bytes, account: str = ACCOUNT, key: str | None = None, consumers: tuple[str, ...] = ("",)
    ) -> list[Accepted]:
        messages = [NewMessage(account=account, body=body, ordering_key=key, consumers=consumers) for body in bodies]
        return await store.accept(messages)

    return accept_bodies


async def hint(store: Store) -> None:
    """Return at the next hint of work. Without one this fails, long before the wait itself would end."""
    async with asyncio.timeout(DEADLINE):
        await store.wait(100 * DEADLINE)


async def quiet(store: Store) -> None:
    """Wait until the hints sent so far have arrived: none comes for a while."""
    while True:
        began = asyncio.get_running_loop().time()
        await store.wait(0.2)
        if asyncio.get_running_loop().time() - began >= 0.2:
            return


async def lease_one(store: Store, seconds: float = 30) -> Lease:
    (lease,) = await store.lease(10, seconds)
    return lease


def settled(delivery: Delivery, state: str = "delivered", *, delay: float = 0, attempts: int = 1) -> Settlement:
    attempt = Attempt(started_at=1.0, url=URL, outcome=state, status=200, phases={"total": 1.5}, excerpt="ok")
    return Settlement(
        delivery=delivery,
        state=state,  # type: ignore[arg-type]  # the tests name the states as plain text
        attempts=attempts,
        strikes=0,
        delay=delay,
        attempt=attempt,
    )


WELL = LaneVerdict(health=Health())

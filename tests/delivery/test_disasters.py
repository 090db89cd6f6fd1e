"""Full disks, locked and vanished files, clocks that jump, callers that go away: errors say why, nothing is lost."""

import asyncio
import base64
import contextlib
import random
import resource
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from starlette.types import ASGIApp

from fotahook.contract.addresses import EVERYWHERE
from fotahook.delivery import Dispatcher, Outcome
from fotahook.service import Settings, build_app
from fotahook.service.credentials import DEV_CLIENT, provision_dev
from fotahook.store import SqliteStore
from fotahook.store.message_verbs import MessageIds
from fotahook.store.records import Delivery, Lease, NewMessage, StoreFull, StoreUnavailable
from tests.deadlines import DEADLINE
from tests.service.conftest import MESSAGES, TOKEN, ask
from tests.service.serving import SECRET_KEY
from tests.store.conftest import ACCOUNT, URL, VirtualClock

from .conftest import DELIVERED

A_MEGABYTE = 2**20
HOUR = 3600.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
async def store(path: Path, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SqliteStore]:
    # Whoever is refused tries again: here without waiting long.
    monkeypatch.setattr("fotahook.store.sqlite.connection.BUSY_SECONDS", 0.01)
    monkeypatch.setattr("fotahook.delivery.lane.RETRY_SECONDS", 0.01)
    monkeypatch.setattr("fotahook.delivery.dispatcher.POLL_SECONDS", 0.01)
    store = await SqliteStore.open(path, clock=clock)
    await store.register(ACCOUNT, URL, actor="test")
    yield store
    await store.close()


def a_message(size: int = 2, **also: str) -> NewMessage:
    return NewMessage(account=ACCOUNT, body=b"x" * size, **also)  # type: ignore[arg-type]


async def accept(store: SqliteStore, number: int = 1) -> set[str]:
    return {accepted.id for accepted in await store.accept([a_message() for _ in range(number)])}


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not await true():  # noqa: ASYNC110  # what is waited for happens in threads and in the file
            await asyncio.sleep(0.005)


async def until_settled(store: SqliteStore) -> None:
    """Wait until nothing is pending."""

    async def nothing_pending() -> bool:
        return not any(lane.pending for lane in await store.lanes(ACCOUNT))

    await until(nothing_pending)


class Receiver:
    """Accepts everything."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()

    async def __call__(self, lease: Lease, delivery: Delivery) -> Outcome:
        self.seen[delivery.message] += 1
        await asyncio.sleep(0)
        return DELIVERED


class Gate(Receiver):
    """Keeps eight attempts running until it is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.running = 0
        self.tokens: set[int] = set()
        self.full = asyncio.Event()
        self.opened = asyncio.Event()

    async def has_let_through(self) -> bool:
        return len(self.seen) >= 7 + 8

    async def __call__(self, lease: Lease, delivery: Delivery) -> Outcome:
        self.tokens.add(lease.token)
        # A lane starts with one at a time: the first seven open its window.
        if len(self.seen) >= 7 and not self.opened.is_set():
            self.running += 1
            if self.running == 8:
                self.full.set()
            await self.opened.wait()
        return await super().__call__(lease, delivery)


@asynccontextmanager
async def dispatching(store: SqliteStore, receiver: Receiver, clock: VirtualClock) -> AsyncIterator[None]:
    dispatcher = Dispatcher(store, receiver, clock=clock)
    running = asyncio.create_task(dispatcher.run())
    try:
        async with asyncio.timeout(DEADLINE):
            yield
        dispatcher.stop()
        await running
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


# What befalls the store


@asynccontextmanager
async def full_disk(store: SqliteStore, path: Path) -> AsyncIterator[type[Exception]]:
    """No page can be had that is not there already."""

    def limit(db: sqlite3.Connection, pages: int) -> None:
        db.execute(f"pragma max_page_count = {pages}").fetchone()

    used = (await store._writer.run(lambda db: db.execute("pragma page_count").fetchone()))["page_count"]
    await store._writer.run(lambda db: limit(db, used))
    yield StoreFull
    await store._writer.run(lambda db: limit(db, 2**30))


@asynccontextmanager
async def file_size_limit(store: SqliteStore, path: Path) -> AsyncIterator[type[Exception]]:
    """The system refuses to let any file of this process grow: a quota, or a disk that fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    largest = max(file.stat().st_size for file in path.parent.iterdir())
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, before[1]))
    try:
        yield StoreUnavailable
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@asynccontextmanager
async def locked_file(store: SqliteStore, path: Path) -> AsyncIterator[type[Exception]]:
    """Another process is in the middle of a transaction."""
    script = "import sqlite3, sys; db = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
    script += "db.execute('begin immediate'); print('locked', flush=True); sys.stdin.read()"
    with subprocess.Popen(  # noqa: ASYNC220  # its start takes no time
        [sys.executable, "-c", script, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None
            await asyncio.to_thread(process.stdout.readline)
            yield StoreUnavailable
        finally:
            process.kill()


@asynccontextmanager
async def read_only(store: SqliteStore, path: Path) -> AsyncIterator[type[Exception]]:
    """SQLite may only read, as where a file system was remounted after an error."""
    await store._workers["read"].run(lambda db: None)
    switch = store._writer._connection.execute
    await asyncio.to_thread(switch, "pragma query_only = 1")
    yield StoreUnavailable
    await asyncio.to_thread(switch, "pragma query_only = 0")


@asynccontextmanager
async def removed_file(store: SqliteStore, path: Path) -> AsyncIterator[type[Exception]]:
    """Somebody moves the file away, and back again."""
    away = path.with_name("elsewhere")
    path.rename(away)
    yield StoreUnavailable
    away.rename(path)


DISASTERS = {
    disaster.__name__: disaster for disaster in (full_disk, file_size_limit, locked_file, read_only, removed_file)
}


@pytest.mark.parametrize("name", DISASTERS)
async def test_while_it_lasts_accepts_are_refused_with_a_reason_and_nothing_is_lost_after(
    name: str, store: SqliteStore, path: Path, clock: VirtualClock
) -> None:
    receiver = Receiver()
    ids = await accept(store, 20)
    async with DISASTERS[name](store, path) as error:
        with pytest.raises(error, match=r".{20}"):
            await store.accept([a_message(8 * A_MEGABYTE, idempotency_key="k")])
        assert [lane.pending for lane in await store.lanes(ACCOUNT)] == [20]
    (again,) = await store.accept([a_message(8 * A_MEGABYTE, idempotency_key="k")])
    assert not again.duplicate
    async with dispatching(store, receiver, clock):
        await until_settled(store)
    assert receiver.seen == dict.fromkeys(ids | {again.id}, 1)


@pytest.mark.parametrize("name", DISASTERS)
async def test_what_was_being_delivered_meanwhile_is_settled_once_it_is_over(
    name: str, store: SqliteStore, path: Path, clock: VirtualClock
) -> None:
    gate = Gate()
    ids = await accept(store, 50)
    async with dispatching(store, gate, clock):
        await gate.full.wait()
        async with DISASTERS[name](store, path):
            gate.opened.set()
            await until(gate.has_let_through)
        await until_settled(store)
    assert gate.seen == dict.fromkeys(ids, 1)


# Over HTTP


async def token(app: ASGIApp) -> str:
    basic = base64.b64encode(":".join(DEV_CLIENT).encode()).decode()
    answer = await ask(app, "POST", TOKEN, b"grant_type=client_credentials", {"Authorization": f"Basic {basic}"})
    return str(answer.json["access_token"])


@pytest.mark.parametrize(
    ("name", "status", "code"),
    [("full_disk", 507, "STORE_FULL"), ("locked_file", 503, "STORE_UNAVAILABLE"), ("removed_file", 503, None)],
)
async def test_the_service_says_what_is_wrong_and_takes_the_same_request_afterwards(
    name: str, status: int, code: str | None, store: SqliteStore, path: Path, clock: VirtualClock
) -> None:
    await provision_dev(store)
    settings = Settings(secret_key=SECRET_KEY, allow_http=True, allowed_networks=EVERYWHERE, clock=clock)
    app = build_app(store, settings)
    body = msgspec.json.encode({"type": "upgradeProgress", "filler": "x" * 200_000})
    headers = {"Authorization": f"Bearer {await token(app)}", "Idempotency-Key": "k"}
    async with DISASTERS[name](store, path):
        refused = await ask(app, "POST", MESSAGES, body, headers)
        assert refused.error == (status, code or "STORE_UNAVAILABLE")
        # A full store kept nothing; an unavailable one may have, so its error only names the next step.
        texts = {507: "nothing was saved", 503: "send the same request again, with the same keys"}
        assert texts[status] in refused.json["errorMessage"]
        assert refused.header("retry-after") == ("1" if status == 503 else None)
    accepted = await ask(app, "POST", MESSAGES, body, headers)
    assert (accepted.status, accepted.json["duplicate"]) == (202, False)
    receiver = Receiver()
    async with dispatching(store, receiver, clock):
        await until_settled(store)
    assert receiver.seen == {accepted.json["id"]: 1}


# Clocks


async def test_a_clock_stepped_back_an_hour_loses_nothing_and_repeats_nothing(
    store: SqliteStore, clock: VirtualClock
) -> None:
    gate = Gate()
    early = await accept(store, 50)
    async with dispatching(store, gate, clock):
        await gate.full.wait()
        clock.advance(-HOUR)
        late = await accept(store, 50)
        gate.opened.set()

        async def late_ones_are_through() -> bool:
            return late <= gate.seen.keys()

        async def what_was_sent_is_settled() -> bool:
            return [lane.pending for lane in await store.lanes(ACCOUNT)] == [100 - len(gate.seen)]

        await until(late_ones_are_through)
        # By the clock that comes next the lease has ended: running attempts would then be sent once more.
        await until(what_was_sent_is_settled)
        # What was accepted before the step is due when the clock has caught up.
        clock.advance(HOUR)
        await until_settled(store)
    assert gate.seen == dict.fromkeys(early | late, 1)


async def test_a_clock_stepped_forward_an_hour_loses_nothing(store: SqliteStore, clock: VirtualClock) -> None:
    gate = Gate()
    ids = await accept(store, 50)
    async with dispatching(store, gate, clock):
        await gate.full.wait()

        async def first_ones_are_settled() -> bool:
            return [lane.pending for lane in await store.lanes(ACCOUNT)] == [43]

        # From here on the lane's server has no reason to speak to the store for a while.
        await until(first_ones_are_settled)
        clock.advance(HOUR)
        ids |= await accept(store, 50)

        async def leased_again() -> bool:
            return len(gate.tokens) == 2

        # By the new clock the lease has ended: the lane is leased anew, and who held it cannot settle any more.
        await until(leased_again)
        gate.opened.set()
        await until_settled(store)
    assert gate.seen.keys() == ids
    assert max(gate.seen.values()) == 2


def test_ids_and_order_survive_a_clock_that_goes_back(clock: VirtualClock) -> None:
    ids = MessageIds(clock)
    made = []
    for step in (0, -HOUR, 5, HOUR, -2 * HOUR):
        clock.advance(step)
        made += ids.take(3)
    assert made == sorted(set(made))


# Callers that go away


@pytest.mark.parametrize("seed", range(3))
async def test_an_accept_that_is_cancelled_is_kept_whole_or_not_at_all(
    seed: int, store: SqliteStore, clock: VirtualClock
) -> None:
    chance = random.Random(seed)
    keys = [f"key-{number}" for number in range(200)]
    tasks = [asyncio.create_task(store.accept([a_message(idempotency_key=key)])) for key in keys]
    answered = {}
    for task in tasks:
        for _ in range(chance.randrange(3)):
            await asyncio.sleep(0)
        if chance.random() < 0.5:
            task.cancel()
    for task, key in zip(tasks, keys, strict=True):
        with contextlib.suppress(asyncio.CancelledError):
            answered[key] = (await task)[0].id
    assert 0 < len(answered) < len(keys)
    again = {key: (await store.accept([a_message(idempotency_key=key)]))[0] for key in keys}
    assert all(again[key].duplicate and again[key].id == message_id for key, message_id in answered.items())
    receiver = Receiver()
    async with dispatching(store, receiver, clock):
        await until_settled(store)
    assert receiver.seen == {accepted.id: 1 for accepted in again.values()}

"""Several dispatchers on one PostgreSQL store, as in several processes."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from fotahook.delivery import Dispatcher, Outcome
from fotahook.store import open_store
from fotahook.store.base import Store
from fotahook.store.postgres.connection import IDLE_SECONDS, LOCK_SECONDS
from fotahook.store.records import Delivery, Lease, NewMessage
from fotahook.store.session import Session
from tests.deadlines import DEADLINE
from tests.store.conftest import ACCOUNT, VirtualClock

from .conftest import DELIVERED
from .test_dispatcher import Counting, accept_everywhere, finish


@pytest.fixture
def engine() -> str:
    return "postgres"


@pytest.fixture
async def other(store: Store, store_url: str, clock: VirtualClock) -> AsyncIterator[Store]:
    """The same store, as another process opened it."""
    other = await open_store(store_url, clock=clock)
    yield other
    await other.close()


async def test_two_dispatchers_deliver_each_message_once(store: Store, other: Store) -> None:
    counting = Counting(400)
    dispatchers = [Dispatcher(each, counting, lanes=10) for each in (store, other)]
    running = [asyncio.create_task(dispatcher.run()) for dispatcher in dispatchers]
    ids = await accept_everywhere(store, 40, 10)
    await counting.reached.wait()
    for dispatcher, task in zip(dispatchers, running, strict=True):
        await finish(dispatcher, task)
    assert counting.seen == dict.fromkeys(ids, 1)
    assert await store.due_in() is None


async def test_a_dispatcher_that_joins_gets_lanes_of_one_that_is_never_done(
    store: Store, other: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fotahook.delivery.lane.STAY_SECONDS", 0.2)
    busy, joined = asyncio.Event(), asyncio.Event()

    async def keep_busy(lease: Lease, delivery: Delivery) -> Outcome:
        # Each lane has a next message whenever one is delivered.
        await store.accept([NewMessage(account=lease.account, body=b"{}")])
        busy.set()
        return DELIVERED

    async def note(lease: Lease, delivery: Delivery) -> Outcome:
        joined.set()
        return await keep_busy(lease, delivery)

    await accept_everywhere(store, 4, 10)
    dispatchers = [Dispatcher(store, keep_busy), Dispatcher(other, note)]
    running = [asyncio.create_task(dispatchers[0].run())]
    async with asyncio.timeout(DEADLINE):
        await busy.wait()
        running.append(asyncio.create_task(dispatchers[1].run()))
        await joined.wait()
    assert not running[0].done(), "the first one left lanes by going on, not by ending"
    for dispatcher, task in zip(dispatchers, running, strict=True):
        await finish(dispatcher, task)


async def test_another_dispatcher_takes_over_when_the_leases_of_a_dead_one_end(
    store: Store, other: Store, clock: VirtualClock
) -> None:
    ids = await accept_everywhere(store, 5, 3)
    reached = asyncio.Event()

    async def hang(lease: Lease, delivery: Delivery) -> Outcome:
        reached.set()
        await asyncio.Event().wait()
        return DELIVERED

    dying = asyncio.create_task(Dispatcher(store, hang).run())
    await reached.wait()
    dying.cancel()
    await asyncio.gather(dying, return_exceptions=True)
    assert await other.lease(10, 30) == []
    clock.advance(31)
    counting = Counting(len(ids))
    dispatcher = Dispatcher(other, counting)
    running = asyncio.create_task(dispatcher.run())
    await counting.reached.wait()
    await finish(dispatcher, running)
    assert counting.seen == dict.fromkeys(ids, 1)


async def test_a_process_that_freezes_within_a_transaction_does_not_keep_publishers_waiting_until_they_fail(
    store: Store, store_url: str, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert IDLE_SECONDS < LOCK_SECONDS
    monkeypatch.setattr("fotahook.store.postgres.connection.IDLE_SECONDS", 0.2)
    freezing = await open_store(store_url, clock=clock)
    locked = asyncio.Event()

    async def freeze(db: Session) -> None:
        await db.lock_lanes({(ACCOUNT, "")})
        locked.set()
        await asyncio.Event().wait()

    frozen = asyncio.create_task(freezing._write(freeze))
    async with asyncio.timeout(DEADLINE):
        await locked.wait()
        (accepted,) = await store.accept([NewMessage(account=ACCOUNT, body=b"{}")])
    assert not accepted.duplicate
    frozen.cancel()
    await asyncio.gather(frozen, return_exceptions=True)
    await freezing.close()

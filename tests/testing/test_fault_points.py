"""Fault points: which exist, when they kill, and that they change nothing else."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from starlette.types import Message, Receive, Scope, Send

from fotahook.delivery import Outcome
from fotahook.store import SqliteStore
from fotahook.store.base import Store
from fotahook.store.records import Delivery, Lease, NewMessage
from fotahook.testing.sandbox.fault_points import POINTS, FaultPoints
from tests.delivery.conftest import DELIVERED
from tests.store.conftest import ACCOUNT, URL, WELL, settled


class Killed(BaseException):
    """Raised instead of the end of the process."""


def die() -> None:
    raise Killed


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = await SqliteStore.open(tmp_path / "store.db")
    await store.register(ACCOUNT, URL, actor="test")
    yield store
    await store.close()


async def one_message_through(store: Store, faults: FaultPoints) -> None:
    """Accept, lease, deliver and settle one message."""

    async def answer(lease: Lease, delivery: Delivery) -> Outcome:
        return DELIVERED

    async def app(scope: Scope, receive: Receive, send: Send) -> None: ...

    async def nothing(*_: object) -> Message:
        return {}

    watched, deliver = faults.around_store(store), faults.around_deliver(answer)
    for method in ("GET", "POST"):
        await faults.around_app(app)({"type": "http", "method": method}, nothing, nothing)  # type: ignore[arg-type]
    watched.hand_over(lambda: None, lambda handed: None)
    await watched.accept([NewMessage(account=ACCOUNT, body=b"{}")])
    # As the store does after an accept that a dispatcher asked to be told of.
    store._receive([])
    (lease,) = await watched.lease(1, 30)
    (delivery,) = await watched.fetch(lease, 1)
    assert await deliver(lease, delivery) is DELIVERED
    await watched.settle(lease, [settled(delivery)], WELL, keep=0)


@pytest.mark.parametrize("point", POINTS)
async def test_each_point_kills_when_it_is_reached(point: str, store: Store) -> None:
    with pytest.raises(Killed):
        await one_message_through(store, FaultPoints(point, kill=die))


@pytest.mark.parametrize("point", POINTS)
async def test_only_the_nth_time_kills(point: str, store: Store) -> None:
    faults = FaultPoints(f"{point}:3", kill=die)
    for _ in range(2):
        await one_message_through(store, faults)
    with pytest.raises(Killed):
        await one_message_through(store, faults)


async def test_a_poll_that_leases_nothing_is_not_counted(store: Store) -> None:
    faults = FaultPoints("lease.after", kill=die)
    assert await faults.around_store(store).lease(1, 30) == []


async def test_work_before_the_point_is_done_and_work_after_it_is_not(store: Store) -> None:
    for point, pending in (("accept.before", 0), ("accept.after", 1)):
        watched = FaultPoints(point, kill=die).around_store(store)
        with pytest.raises(Killed):
            await watched.accept([NewMessage(account=ACCOUNT, body=b"{}")])
        assert sum(lane.pending for lane in await store.lanes(ACCOUNT)) == pending


async def test_other_methods_of_the_store_are_not_wrapped(store: Store) -> None:
    watched = FaultPoints("settle.after", kill=die).around_store(store)
    await asyncio.gather(watched.wait(0), watched.due_in())
    assert watched.message == store.message


@pytest.mark.parametrize("fault", ["", "accept", "accept.during", "settle.after:0", "settle.after:x", "settle.after:"])
def test_an_unknown_point_is_refused_with_the_list_of_points(fault: str) -> None:
    with pytest.raises(ValueError, match=r"one of accept\.before, accept\.after, lease\.before"):
        FaultPoints(fault)

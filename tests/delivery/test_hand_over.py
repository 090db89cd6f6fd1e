"""New messages that the store hands to the dispatcher in memory: each is sent once, and none is lost or overtaken."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from fotahook.delivery import Dispatcher, Outcome
from fotahook.store.base import Store
from fotahook.store.records import FETCH_BYTES, Delivery, HandOver, Lease
from tests.deadlines import DEADLINE
from tests.store.conftest import ACCOUNT, ENGINES, VirtualClock, lease_one

from .conftest import DELIVERED, Accept, Flaky, Receiver, a_delivery, a_server

pytestmark = pytest.mark.parametrize("engine", ENGINES)


class Spying(Flaky):
    """A store that counts the calls of each verb and the lanes that were leased."""

    def __init__(self, store: Store) -> None:
        super().__init__(store, "", 0)
        self.calls: Counter[str] = Counter()
        self.leased = 0
        self.idle = asyncio.Event()

    def __getattr__(self, name: str) -> object:
        real = super().__getattr__(name)
        if name not in ("lease", "fetch", "settle", "wait"):
            return real

        async def counted(*args: object, **options: object) -> object:
            self.calls[name] += 1
            if name == "wait":
                self.idle.set()
            found = await real(*args, **options)  # type: ignore[operator]
            self.leased += len(found) if name == "lease" else 0
            return found

        return counted


class World:
    """A dispatcher at work. `seen` are the bodies that were sent; those in `held` wait for `release`."""

    def __init__(self, store: Store) -> None:
        self.store = Spying(store)
        self.seen: list[bytes] = []
        self.held: set[bytes] = set()
        self.release = asyncio.Event()
        self.dispatcher = Dispatcher(self.store, self.deliver)  # type: ignore[arg-type]
        self._changed = asyncio.Event()

    async def deliver(self, lease: Lease, delivery: Delivery) -> Outcome:
        self.seen.append(delivery.body)
        self._changed.set()
        if delivery.body in self.held:
            await self.release.wait()
        return DELIVERED

    async def sent(self, count: int) -> None:
        while len(self.seen) < count:
            self._changed.clear()
            await self._changed.wait()


@asynccontextmanager
async def a_world(store: Store) -> AsyncIterator[World]:
    world = World(store)
    running = asyncio.create_task(world.dispatcher.run())
    async with asyncio.timeout(DEADLINE):
        # It has leased, found nothing, and waits.
        await world.store.idle.wait()
        yield world
    world.release.set()
    world.dispatcher.stop()
    await running
    assert not any(lane.pending for lane in await store.lanes(ACCOUNT))


async def test_a_message_for_an_idle_lane_costs_no_lease_and_no_fetch(store: Store, accept: Accept) -> None:
    async with a_world(store) as world:
        for number in range(5):
            await accept(b"%d" % number)
            await world.sent(number + 1)
            while (await store.lanes(ACCOUNT))[0].pending:  # noqa: ASYNC110  # the store tells nobody
                await asyncio.sleep(0)
    assert world.seen == [b"0", b"1", b"2", b"3", b"4"]
    assert (world.store.calls["fetch"], world.store.leased) == (0, 0)
    assert world.store.calls["settle"] == 5


async def test_a_message_for_a_lane_in_service_is_sent_beside_the_others(store: Store, accept: Accept) -> None:
    async with a_world(store) as world:
        world.held = {b"hangs"}
        await accept(b"hangs")
        await world.sent(1)
        await accept(b"beside")
        await world.sent(2)
    assert world.seen == [b"hangs", b"beside"]
    assert world.store.leased == 0


async def test_a_message_is_handed_over_although_its_publisher_is_gone(store: Store, accept: Accept) -> None:
    async with a_world(store) as world:
        publishing = asyncio.ensure_future(accept(b"1"))
        await asyncio.sleep(0)
        publishing.cancel()
        await asyncio.gather(publishing, return_exceptions=True)
        await world.sent(1)
    assert world.store.leased == 0


async def test_everything_is_sent_once_and_each_key_in_order(store: Store, accept: Accept) -> None:
    async with a_world(store) as world:

        async def publish(key: str | None) -> list[bytes]:
            bodies = [b"%s %d" % (str(key).encode(), number) for number in range(40)]
            for start in range(0, 40, 4):
                await accept(*bodies[start : start + 4], key=key)
            return bodies

        keys = ("a", "b", None, "c")
        published = await asyncio.gather(*map(publish, keys))
        await world.sent(160)
    assert Counter(world.seen) == {body: 1 for bodies in published for body in bodies}
    for key, bodies in zip(keys, published, strict=True):
        if key is not None:
            assert [body for body in world.seen if body in bodies] == bodies


async def test_what_waits_in_the_store_is_not_overtaken_for_ever(
    store: Store, accept: Accept, clock: VirtualClock
) -> None:
    """A lane that has something to fetch takes nothing else, however much is accepted meanwhile."""
    receiver = Receiver()
    await accept(*(b"old %d" % number for number in range(101)))
    worker = a_server(await lease_one(store), clock(), store, receiver.deliver, clock)
    (newest,) = await accept(b"new")
    worker.hand([a_delivery(message=newest, seq=102, body=b"new")], more=False)
    await worker.run()
    assert len(receiver.seen) == len(set(receiver.seen)) == 102
    assert receiver.seen[0] == b"old 0"
    assert receiver.seen[-1] == b"new"


async def test_a_fetch_that_brings_what_was_handed_over_meanwhile_sends_it_once(
    store: Store, accept: Accept, clock: VirtualClock
) -> None:
    receiver = Receiver()
    await accept(b"1")
    lease = await lease_one(store)

    class Late(Flaky):
        """What a fetch finds is also handed over before its answer arrives, and settled before it is read."""

        def __getattr__(self, name: str) -> object:
            real = super().__getattr__(name)

            async def fetch(*args: object, **options: object) -> object:
                found = await real(*args, **options)  # type: ignore[operator]
                worker.hand(found, more=False)
                while worker._attempts:  # noqa: ASYNC110  # nor does the worker
                    await asyncio.sleep(0)
                return found

            return fetch if name == "fetch" else real

    worker = a_server(lease, clock(), Late(store, "", 0), receiver.deliver, clock)  # type: ignore[arg-type]
    await worker.run()
    assert receiver.seen == [b"1"]
    assert await store.due_in() is None


async def test_no_more_is_taken_from_memory_than_a_lane_may_fetch(
    store: Store, accept: Accept, clock: VirtualClock
) -> None:
    await accept(b"1")
    worker = a_server(await lease_one(store), clock(), store, Receiver().deliver, clock)
    worker._stock.may_have_more = False
    worker.hand([a_delivery(seq=1, body=bytes(FETCH_BYTES))], more=False)
    # Nothing is known of this lane yet: it takes twice its window.
    for seq in range(2, 9):
        worker.hand([a_delivery(seq=seq)], more=False)
    assert (len(worker._stock), worker._stock.may_have_more) == (8, False)
    worker.hand([a_delivery(seq=9)], more=False)
    assert (len(worker._stock), worker._stock.may_have_more) == (8, True)
    worker.end()
    await asyncio.wait([worker.ended])


async def test_a_dispatcher_that_stops_takes_no_leases(store: Store, accept: Accept) -> None:
    world = World(store)
    running = asyncio.create_task(world.dispatcher.run())
    await world.store.idle.wait()
    world.dispatcher.stop()
    await accept(b"1")
    await running
    await accept(b"2")
    assert world.seen == []
    assert len(await store.lease(10, 30)) == 1


async def test_what_belongs_to_another_lease_is_dropped(store: Store, accept: Accept) -> None:
    async with a_world(store) as world:
        world.held = {b"1"}
        await accept(b"1")
        await world.sent(1)
        (worker,) = world.dispatcher._serving.values()
        stale = HandOver(
            lane=worker.lease.lane,
            token=worker.lease.token + 1,
            lease=None,
            deliveries=(a_delivery(message="m", seq=99),),
            more=False,
            asked_at=0.0,
        )
        world.dispatcher._receive([stale])
        assert not worker._ready
    assert world.seen == [b"1"]

"""The dispatcher over many lanes, in real time but waiting for events only."""

import asyncio
from collections import Counter
from itertools import chain, repeat
from pathlib import Path

import pytest

from fotahook.delivery import Dispatcher, Outcome, Rules, Timings
from fotahook.delivery.dispatcher import LANES_LIMIT
from fotahook.delivery.lane import TURN_SECONDS
from fotahook.delivery.policy import HOUR
from fotahook.store import SqliteStore
from fotahook.store.base import Store
from fotahook.store.records import Delivery, Lease, NewMessage
from tests.deadlines import DEADLINE
from tests.store.conftest import URL, VirtualClock

from .conftest import DELIVERED, Flaky


class Counting:
    """Accepts everything and tells when a number of deliveries was reached."""

    def __init__(self, expected: int) -> None:
        self.seen: Counter[str] = Counter()
        self.reached = asyncio.Event()
        self.running = 0
        self.most_running = 0
        self._expected = expected

    async def __call__(self, lease: Lease, delivery: Delivery) -> Outcome:
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        await asyncio.sleep(0)
        self.running -= 1
        self.seen[delivery.message] += 1
        if len(self.seen) >= self._expected:
            self.reached.set()
        return DELIVERED


async def accept_everywhere(store: Store, accounts: int, each: int) -> set[str]:
    for number in range(accounts):
        await store.register(f"account-{number}", URL, actor="test")
    messages = [NewMessage(account=f"account-{number}", body=b"{}") for number in range(accounts) for _ in range(each)]
    return {accepted.id for accepted in await store.accept(messages)}


async def finish(dispatcher: Dispatcher, running: asyncio.Task[None]) -> None:
    dispatcher.stop()
    await running


async def test_all_lanes_are_served_each_message_once(store: Store) -> None:
    ids = await accept_everywhere(store, 40, 10)
    counting = Counting(len(ids))
    dispatcher = Dispatcher(store, counting)
    running = asyncio.create_task(dispatcher.run())
    await counting.reached.wait()
    await finish(dispatcher, running)
    assert counting.seen == dict.fromkeys(ids, 1)
    assert await store.due_in() is None


async def test_a_message_accepted_later_wakes_the_dispatcher(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    # Only the hint can wake it before this test's deadline.
    monkeypatch.setattr("fotahook.delivery.dispatcher.POLL_SECONDS", 60 * DEADLINE)
    counting, waiting = Counting(1), asyncio.Event()

    class Watched(Flaky):
        def __getattr__(self, name: str) -> object:
            if name == "wait":
                waiting.set()
            return super().__getattr__(name)

    dispatcher = Dispatcher(Watched(store, "", 0), counting)  # type: ignore[arg-type]
    running = asyncio.create_task(dispatcher.run())
    async with asyncio.timeout(DEADLINE):
        await waiting.wait()
        await accept_everywhere(store, 1, 1)
        await counting.reached.wait()
    await finish(dispatcher, running)


async def test_few_workers_serve_many_lanes_within_the_limit(store: Store) -> None:
    ids = await accept_everywhere(store, 30, 20)
    counting = Counting(len(ids))
    dispatcher = Dispatcher(store, counting, lanes=3, in_flight=5)
    running = asyncio.create_task(dispatcher.run())
    await counting.reached.wait()
    await finish(dispatcher, running)
    assert len(counting.seen) == len(ids)
    assert counting.most_running <= 5


async def test_an_attempt_that_waited_for_room_uses_the_current_url(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An attempt that takes long would make room.
    monkeypatch.setattr("fotahook.delivery.places.NEW_SECONDS", 60 * DEADLINE)
    monkeypatch.setattr("fotahook.delivery.places.SLOW_SECONDS", 60 * DEADLINE)
    await accept_everywhere(store, 2, 1)
    urls: dict[str, str | None] = {}
    first, go_on, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def deliver(lease: Lease, delivery: Delivery) -> Outcome:
        urls[lease.account] = lease.url
        if len(urls) == 1:
            first.set()
            await go_on.wait()
        else:
            done.set()
        return DELIVERED

    clock = VirtualClock()
    dispatcher = Dispatcher(store, deliver, in_flight=1, monotonic=clock)
    running = asyncio.create_task(dispatcher.run())
    await first.wait()
    (waiting,) = {"account-0", "account-1"} - set(urls)
    await store.register(waiting, "https://new.example/", actor="test")
    # So long ago was the callback read before the attempt gets its place.
    clock.advance(TURN_SECONDS)
    go_on.set()
    await done.wait()
    await finish(dispatcher, running)
    assert urls[waiting] == "https://new.example/"


async def test_stopping_waits_for_running_attempts(store: Store) -> None:
    (message_id,) = await accept_everywhere(store, 1, 1)
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def slow(lease: Lease, delivery: Delivery) -> Outcome:
        reached.set()
        await go_on.wait()
        return DELIVERED

    dispatcher = Dispatcher(store, slow)
    running = asyncio.create_task(dispatcher.run())
    await reached.wait()
    dispatcher.stop()
    await asyncio.sleep(0)
    assert not running.done()
    go_on.set()
    await running
    message = await store.message(message_id)
    assert message is not None
    assert message.deliveries[0].state == "delivered"


async def test_cancelling_leaves_no_task_behind(store: Store) -> None:
    await accept_everywhere(store, 3, 1)
    reached = asyncio.Event()

    async def hang(lease: Lease, delivery: Delivery) -> Outcome:
        reached.set()
        await asyncio.Event().wait()
        return DELIVERED

    before = asyncio.all_tasks()
    running = asyncio.create_task(Dispatcher(store, hang).run())
    await reached.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    # A transaction of the store that has begun ends by itself.
    async with asyncio.timeout(DEADLINE):
        while asyncio.all_tasks() != before:  # noqa: ASYNC110  # a store tells nobody
            await asyncio.sleep(0.01)
    assert asyncio.all_tasks() == before


async def test_a_lease_that_was_long_on_its_way_is_read_afresh_before_the_first_attempt(store: Store) -> None:
    await accept_everywhere(store, 1, 1)
    clock = VirtualClock()
    steps: list[str] = []
    done = asyncio.Event()

    class Slow(Flaky):
        def __getattr__(self, name: str) -> object:
            real = super().__getattr__(name)

            async def lease(limit: int, seconds: float) -> object:
                found: list[Lease] = await real(limit, seconds)  # type: ignore[operator]
                clock.advance(TURN_SECONDS if found else 0)
                return found

            if name == "settle":
                steps.append("settle")
            return lease if name == "lease" else real

    async def deliver(lease: Lease, delivery: Delivery) -> Outcome:
        steps.append("attempt")
        done.set()
        return DELIVERED

    dispatcher = Dispatcher(Slow(store, "", 0), deliver, monotonic=clock)  # type: ignore[arg-type]
    running = asyncio.create_task(dispatcher.run())
    async with asyncio.timeout(DEADLINE):
        await done.wait()
    await finish(dispatcher, running)
    assert steps[:2] == ["settle", "attempt"]


async def test_no_more_lanes_are_handed_over_than_there_is_room_for(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An attempt that takes long would make room.
    monkeypatch.setattr("fotahook.delivery.places.NEW_SECONDS", 60 * DEADLINE)
    monkeypatch.setattr("fotahook.delivery.places.SLOW_SECONDS", 60 * DEADLINE)
    await accept_everywhere(store, 1, 1)
    begun, go_on, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def deliver(lease: Lease, delivery: Delivery) -> Outcome:
        if lease.account == "account-1":
            done.set()
        else:
            begun.set()
            await go_on.wait()
        return DELIVERED

    dispatcher = Dispatcher(store, deliver, lanes=1)
    running = asyncio.create_task(dispatcher.run())
    async with asyncio.timeout(DEADLINE):
        await begun.wait()
        await store.register("account-1", URL, actor="test")
        await store.accept([NewMessage(account="account-1", body=b"{}")])
        assert dispatcher.room() == 0
        go_on.set()
        await done.wait()
    await finish(dispatcher, running)


async def test_slow_lanes_make_room_up_to_the_limit_of_all_lanes(store: Store) -> None:
    dispatcher = Dispatcher(store, Counting(1), lanes=10)
    for lanes, room in ((0, 10), (1000, 1010), (LANES_LIMIT, LANES_LIMIT)):
        dispatcher.places.slow_lanes = lanes
        assert dispatcher.room() == room


async def test_a_hanging_lane_does_not_hold_up_the_others(store: Store) -> None:
    ids = await accept_everywhere(store, 5, 10)
    counting = Counting(len(ids) - 10)
    hung, go_on = asyncio.Event(), asyncio.Event()

    async def deliver(lease: Lease, delivery: Delivery) -> Outcome:
        if lease.account == "account-0":
            hung.set()
            await go_on.wait()
            return DELIVERED
        return await counting(lease, delivery)

    dispatcher = Dispatcher(store, deliver)
    running = asyncio.create_task(dispatcher.run())
    await counting.reached.wait()
    await hung.wait()
    go_on.set()
    await finish(dispatcher, running)


async def test_an_unavailable_store_is_retried(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("fotahook.delivery.dispatcher.POLL_SECONDS", 0.001)
    await accept_everywhere(store, 1, 1)
    counting = Counting(1)
    flaky = Flaky(Flaky(store, "lease", 2), "due_in", 2)  # type: ignore[arg-type]  # a double of one verb each
    dispatcher = Dispatcher(flaky, counting)  # type: ignore[arg-type]
    running = asyncio.create_task(dispatcher.run())
    await counting.reached.wait()
    await finish(dispatcher, running)
    assert caplog.text.count("away on purpose") == 1


async def test_is_leasing_reflects_the_last_poll(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fotahook.delivery.dispatcher.POLL_SECONDS", 0.001)
    clock, asked = VirtualClock(), asyncio.Event()
    leasing: list[bool] = []

    class Watched(Flaky):
        def __getattr__(self, name: str) -> object:
            if name == "lease":
                leasing.append(dispatcher.is_leasing())
                if len(leasing) == 4:
                    asked.set()
            return super().__getattr__(name)

    dispatcher = Dispatcher(Watched(store, "lease", 2), Counting(1), monotonic=clock)  # type: ignore[arg-type]
    running = asyncio.create_task(dispatcher.run())
    await asked.wait()
    # Not after the first and the second call, which failed.
    assert leasing == [True, False, False, True]
    await finish(dispatcher, running)
    assert dispatcher.is_leasing()
    # As if it were stuck.
    clock.advance(20)
    assert not dispatcher.is_leasing()


async def test_an_unexpected_error_in_a_lane_is_logged(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    await accept_everywhere(store, 1, 1)
    counting = Counting(1)

    class Broken(Flaky):
        def __getattr__(self, name: str) -> object:
            real = super().__getattr__(name)
            if name == "settle":
                monitor.set()
                raise RuntimeError("on purpose")
            return real

    monitor = asyncio.Event()
    dispatcher = Dispatcher(Broken(store, "", 0), counting)  # type: ignore[arg-type]
    running = asyncio.create_task(dispatcher.run())
    await monitor.wait()
    await finish(dispatcher, running)
    assert "on purpose" in caplog.text


async def test_a_lease_must_outlast_an_attempt(store: Store) -> None:
    with pytest.raises(ValueError, match="longer than an attempt"):
        Dispatcher(store, Counting(1), timings=Timings(lease=16, attempt=15))


async def test_the_next_dispatcher_delivers_what_a_killed_one_left(tmp_path: Path) -> None:
    clock = VirtualClock()
    store = await SqliteStore.open(tmp_path / "killed.db", clock=clock)
    ids = await accept_everywhere(store, 3, 3)
    assert len(await store.lease(10, 30)) == 3  # and then nothing more is heard of this one
    await store.close()
    store = await SqliteStore.open(tmp_path / "killed.db", clock=clock)
    counting = Counting(len(ids))
    dispatcher = Dispatcher(store, counting)
    running = asyncio.create_task(dispatcher.run())
    await counting.reached.wait()
    await finish(dispatcher, running)
    await store.close()
    assert set(counting.seen) == ids


async def test_lanes_that_hang_hold_up_nobody_although_they_are_many(store: Store) -> None:
    ids = await accept_everywhere(store, 20, 1)
    await store.register("healthy", URL, actor="test")
    hung, release, healthy = asyncio.Event(), asyncio.Event(), asyncio.Event()
    running = 0

    async def deliver(lease: Lease, delivery: Delivery) -> Outcome:
        nonlocal running
        if lease.account == "healthy":
            healthy.set()
            return DELIVERED
        running += 1
        if running == len(ids):
            hung.set()
        await release.wait()
        return DELIVERED

    # Places and lanes for four: those that turn out to hang make room.
    dispatcher = Dispatcher(store, deliver, lanes=4, in_flight=4)
    dispatching = asyncio.create_task(dispatcher.run())
    async with asyncio.timeout(DEADLINE):
        await hung.wait()
        await store.accept([NewMessage(account="healthy", body=b"{}")])
        await healthy.wait()
    release.set()
    await finish(dispatcher, dispatching)


async def test_slow_lanes_that_wait_for_each_other_hold_up_nobody(store: Store) -> None:
    """More lanes wait for the places of slow ones than the dispatcher serves at once."""
    await accept_everywhere(store, 20, 6)
    await store.register("healthy", URL, actor="test")
    release, healthy = asyncio.Event(), asyncio.Event()

    async def deliver(lease: Lease, delivery: Delivery) -> Outcome:
        if lease.account == "healthy":
            healthy.set()
        else:
            await release.wait()
        return DELIVERED

    dispatcher = Dispatcher(store, deliver, lanes=4, in_flight=4)
    dispatching = asyncio.create_task(dispatcher.run())
    async with asyncio.timeout(DEADLINE):
        while dispatcher.places.slow_lanes < 20:  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(0.01)
        await store.accept([NewMessage(account="healthy", body=b"{}")])
        await healthy.wait()
    release.set()
    await finish(dispatcher, dispatching)


async def test_when_a_receiver_recovers_all_lanes_that_wait_for_it_are_woken(store: Store, clock: VirtualClock) -> None:
    ids = await accept_everywhere(store, 5, 1)
    counting = Counting(len(ids))
    tried: Counter[str] = Counter()
    given_back, all_wait = 0, asyncio.Event()

    async def deliver(lease: Lease, delivery: Delivery) -> Outcome:
        tried[lease.account] += 1
        if tried[lease.account] == 1:
            return Outcome(code="http_429", status=429, url=lease.url)
        return await counting(lease, delivery)

    class Watched(Flaky):
        def __getattr__(self, name: str) -> object:
            real = super().__getattr__(name)

            async def settle(*args: object, keep: float) -> object:
                nonlocal given_back
                settled = await real(*args, keep=keep)  # type: ignore[operator]
                given_back += keep == 0
                if given_back == len(ids):
                    all_wait.set()
                return settled

            return settle if name == "settle" else real

    # All lanes but one would wait for an hour.
    jitter = chain([1.0] * 4, [1e-5], repeat(1.0))
    watched = Watched(store, "", 0)
    dispatcher = Dispatcher(watched, deliver, rules=Rules(backoff=HOUR), jitter=lambda: next(jitter))  # type: ignore[arg-type]
    dispatching = asyncio.create_task(dispatcher.run())
    async with asyncio.timeout(DEADLINE):
        await all_wait.wait()
        clock.advance(1)
        dispatcher.wake()
        await counting.reached.wait()
    await finish(dispatcher, dispatching)
    assert set(tried.values()) == {2}

"""Redelivery and retention go on beside delivering, in small steps."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
import pytest

from fotahook.delivery import Dispatcher, Outcome, Rules, Timings, run_maintenance
from fotahook.store.base import Store
from fotahook.store.records import Delivery, Lease, NewMessage, Report, Retention
from tests.deadlines import DEADLINE
from tests.store.conftest import ACCOUNT, WELL, VirtualClock, settled

from .conftest import DELIVERED, Accept, Flaky, Receiver, Serve, failed

MONTH = 31 * 86400.0


@contextlib.asynccontextmanager
async def maintained(store: Any, retention: Retention, **options: Any) -> AsyncIterator[None]:
    """Run maintenance beside a test."""
    keeping = asyncio.create_task(run_maintenance(store, retention, **options))
    try:
        yield
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not await condition():  # noqa: ASYNC110  # a store tells nobody that it was tidied
            await asyncio.sleep(0)


async def test_dead_messages_are_redelivered_in_the_background(
    store: Store, accept: Accept, serve: Serve, receiver: Receiver, clock: VirtualClock
) -> None:
    receiver.default = failed("http_410")
    await accept(b"1")
    clock.advance(7 * 86400)
    await serve()
    async with maintained(store, Retention(), longest_wait=MONTH):
        assert await store.redeliver_all(ACCOUNT, "dead", since=0, until=clock()) == 1

        async def pending() -> bool:
            return (await store.lanes(ACCOUNT))[0].pending == 1

        await until(pending)


async def test_maintenance_continues_after_the_store_was_unavailable(
    store: Store,
    accept: Accept,
    serve: Serve,
    clock: VirtualClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("fotahook.delivery.runtime.PAUSE_SECONDS", 0)
    (message_id,) = await accept(b"1")
    await serve()
    flaky = Flaky(store, "tidy", 2)
    async with maintained(flaky, Retention(seconds=1), longest_wait=MONTH, monotonic=clock):

        async def pruned() -> bool:
            clock.advance(10)
            message = await store.message(message_id)
            return message is not None and message.body is None

        await until(pruned)
    assert "away on purpose" in caplog.text


async def test_nothing_is_removed_while_the_clock_jumps(
    store: Store,
    accept: Accept,
    serve: Serve,
    clock: VirtualClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("fotahook.delivery.runtime.PAUSE_SECONDS", 0)
    (message_id,) = await accept(b"1")
    await serve()
    seconds = [0.0]
    watched = Watched(store)
    async with maintained(watched, Retention(seconds=86400), longest_wait=MONTH, monotonic=lambda: seconds[0]):
        for _ in range(70):
            seconds[0] += 10
            clock.advance(10)
            await watched.steps(1)
        clock.advance(40 * 86400)
        await watched.steps(5)
        assert await has_body(store, message_id)
        clock.advance(-40 * 86400)
        await watched.steps(5)
        # It ran steadily for ten minutes: a day is a day again.
        for _ in range(200):
            seconds[0] += 10
            clock.advance(10)
            await watched.steps(1)
        assert await has_body(store, message_id)
        for _ in range(9000):
            seconds[0] += 10
            clock.advance(10)
        await watched.steps(3)
        assert not await has_body(store, message_id)
        assert caplog.text.count("the store's clock jumped") == 1


@pytest.mark.parametrize(("ahead", "noticed"), [(3600, True), (40 * 86400, False)])
async def test_what_was_accepted_while_the_clock_was_ahead_is_due_when_it_is_right_again(
    ahead: float,
    noticed: bool,
    store: Store,
    accept: Accept,
    clock: VirtualClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("fotahook.delivery.runtime.PAUSE_SECONDS", 0)
    watched = Watched(store)
    async with maintained(watched, Retention(), longest_wait=MONTH):
        clock.advance(ahead)
        if noticed:
            await watched.steps(2)
        await accept(b"1")
        clock.advance(-ahead)
        # A jump that nobody noticed shows by what it left behind, if that is far away.
        await watched.steps(2)
        (lease,) = await store.lease(10, 600)
        assert len(await store.fetch(lease, 10)) == 1
        assert "1 lanes waited for a time that the clock jumped back from" in caplog.text


async def test_an_idle_lane_takes_no_time_along_from_a_clock_that_goes_back_while_the_store_fails(
    store: Store, accept: Accept, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fotahook.delivery.runtime.PAUSE_SECONDS", 0)
    flaky = Flaky(store, "recall", 0)
    watched = Watched(flaky)
    async with maintained(watched, Retention(), longest_wait=MONTH):
        clock.advance(86400)
        await watched.steps(2)
        await accept(b"1")
        (lease,) = await store.lease(10, 600)
        outcomes = [settled(each) for each in await store.fetch(lease, 10)]
        assert await store.settle(lease, outcomes, msgspec.structs.replace(WELL, wait=600), keep=0) is None
        clock.advance(-86400)
        flaky.times = 1
        await watched.steps(1, failing=1)
        await accept(b"2")
        (lease,) = await store.lease(10, 600)
        assert [each.body for each in await store.fetch(lease, 10)] == [b"2"]


async def test_what_is_minutes_old_stays_when_a_clock_that_was_behind_is_right(
    store: Store, accept: Accept, serve: Serve, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fotahook.delivery.runtime.PAUSE_SECONDS", 0)
    (message_id,) = await accept(b"1")
    await serve()
    seconds = [0.0]
    watched = Watched(store)
    async with maintained(watched, Retention(seconds=86400), longest_wait=MONTH, monotonic=lambda: seconds[0]):
        await watched.steps(1)
        clock.advance(40 * 86400)
        for step in (1, 700, 700):
            await watched.steps(1)
            assert await has_body(store, message_id)
            seconds[0] += step
            clock.advance(step)
        for _ in range(3):
            seconds[0] += 86400 / 2
            clock.advance(86400 / 2)
            await watched.steps(1)
        assert not await has_body(store, message_id)


async def test_a_retry_that_a_clock_ahead_put_off_is_due_after_a_restart(
    store: Store, accept: Accept, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fotahook.delivery.runtime.PAUSE_SECONDS", 0)
    dispatcher = Dispatcher(store, Receiver().deliver)
    clock.advance(20 * 86400)
    await accept(b"1")
    clock.advance(-20 * 86400)
    watched = Watched(store)
    waiting = dispatcher.longest_wait
    async with maintained(watched, Retention(), longest_wait=waiting):
        await watched.steps(1)
        (lease,) = await store.lease(10, 600)
        assert len(await store.fetch(lease, 10)) == 1
        # A process with another schedule may put one off for so long.
        assert await store.settle(lease, [], msgspec.structs.replace(WELL, wait=20 * 86400), keep=0) is None
        await watched.steps(2)
        assert await store.lease(10, 600) == []


@pytest.mark.parametrize("jumps_before", [0, 1, 3])
async def test_a_clock_that_is_ahead_when_the_process_starts_or_soon_after_removes_nothing(
    jumps_before: int,
    store: Store,
    accept: Accept,
    serve: Serve,
    clock: VirtualClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fotahook.delivery.runtime.PAUSE_SECONDS", 0)
    (message_id,) = await accept(b"1")
    reports = (Report(campaign="c", device="d", status="InProgress", rank=1),)
    await store.accept([NewMessage(account=ACCOUNT, body=b"2", reports=reports)])
    await serve()
    seconds = [0.0]
    watched = Watched(store)
    async with maintained(watched, Retention(seconds=86400), longest_wait=MONTH, monotonic=lambda: seconds[0]):
        for reading in range(10):
            if reading == jumps_before:
                clock.advance(400 * 86400)
            await watched.steps(1)
            seconds[0] += 1
            clock.advance(1)
        assert await has_body(store, message_id)
        (campaign,) = await store.ledger_campaigns(limit=9)
        assert len((await store.ledger_devices(campaign.id, limit=9))[0]) == 1


async def has_body(store: Store, message_id: str) -> bool:
    message = await store.message(message_id)
    return message is not None and message.body is not None


class Watched:
    """A store of which a test knows how often it was tidied; it is tidied when the test lets it."""

    def __init__(self, store: Any) -> None:
        self._store: Store = store
        self._allowed = asyncio.Semaphore(0)
        self._done = asyncio.Semaphore(0)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def now(self) -> float:
        await self._allowed.acquire()
        return await self._store.now()

    async def tidy(self, retention: Retention, *, now: float) -> bool:
        await self._store.tidy(retention, now=now)
        self._done.release()
        return False

    async def steps(self, count: int, *, failing: int = 0) -> None:
        """Let it be tidied so many times, after others that fail before."""
        async with asyncio.timeout(DEADLINE):
            for _ in range(failing):
                self._allowed.release()
            for _ in range(count):
                self._allowed.release()
                await self._done.acquire()


@pytest.mark.parametrize(
    ("schedule", "lease"), [((0.0, 60 * 86400.0), 30.0), ((0.0,), 90 * 86400.0)], ids=["schedule", "lease"]
)
async def test_what_waits_as_long_as_it_is_set_up_to_is_not_taken_for_a_clock_that_was_ahead(
    store: Store, accept: Accept, schedule: tuple[float, ...], lease: float
) -> None:
    async def deliver(leased: Lease, delivery: Delivery) -> Outcome:
        return DELIVERED

    dispatcher = Dispatcher(
        store,
        deliver,
        rules=Rules(schedule=schedule),
        timings=Timings(lease=lease),
    )
    await accept(b"1")
    (leased,) = await store.lease(1, max(lease, *schedule))
    assert await store.recall(dispatcher.longest_wait) == 0
    assert await store.settle(leased, [], WELL, keep=lease) is not None

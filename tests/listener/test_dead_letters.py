"""Messages whose every attempt failed: shown with their traceback, and once more to their handlers when asked for."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Sequence

import pytest

from fotahook import CallbackMessage
from fotahook.listener import Context, Listener
from fotahook.store import Store
from fotahook.store.records import LaneVerdict, Lease, Settlement
from tests.deadlines import DEADLINE

from .conftest import NOW, PROGRESS, Seen, request

Make = Callable[..., Listener]
ACCOUNT = "0000123456-00001"


def bodies(count: int) -> list[bytes]:
    return [json.dumps({"accountName": ACCOUNT, "type": "t", "n": number}).encode() for number in range(count)]


class Failing:
    """A handler that fails until it is mended."""

    def __init__(self, seen: Seen) -> None:
        self.seen = seen
        self.mended = False

    async def __call__(self, message: CallbackMessage, context: Context) -> None:
        self.seen.add((message.raw, context.attempt))
        if not self.mended:
            raise ValueError(f"no place for {message.kind}")


class Settled:
    """Counts what became of messages, and lets a test wait for it."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._news = asyncio.Event()

    def watch(self, listener: Listener) -> Listener:
        listener.wrap(self._around, lambda deliver: deliver)
        return listener

    def _around(self, store: Store) -> Store:
        settle = store.settle

        async def noting(
            lease: Lease, settlements: Sequence[Settlement], verdict: LaneVerdict, *, keep: float
        ) -> Lease | None:
            kept = await settle(lease, settlements, verdict, keep=keep)
            self._counts.update(settlement.state for settlement in settlements)
            self._news.set()
            return kept

        store.settle = noting  # type: ignore[method-assign]
        return store

    async def wait(self, state: str, count: int) -> None:
        """Return when messages have come to a state so often."""
        async with asyncio.timeout(DEADLINE):
            while self._counts[state] < count:
                self._news.clear()
                await self._news.wait()


@pytest.fixture
def failing(seen: Seen) -> Failing:
    return Failing(seen)


@pytest.fixture
def settled() -> Settled:
    return Settled()


async def test_a_dead_letter_has_its_traceback(
    make: Make, failing: Failing, settled: Settled, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener = settled.watch(make(schedule=(0.0, 0.0)))
    listener.on_any(failing)
    first, second = bodies(2)
    async with listener.running():
        for body in (first, second):
            await request(listener, body)
        await settled.wait("dead", 2)
        newest, oldest = await listener.dead_letters(ACCOUNT)
        assert await listener.dead_letters(ACCOUNT, limit=1) == [newest]
        monkeypatch.setattr("fotahook.store.records.SCAN_LIMIT", 1)
        assert await listener.dead_letters(ACCOUNT) == [newest, oldest]
        assert await listener.dead_letters("another") == []
    assert (oldest.raw, newest.raw) == (first, second)
    assert (newest.account, newest.kind, newest.received_at, newest.attempts) == (ACCOUNT, "t", NOW, 2)
    assert newest.failure.startswith("<tests.listener.test_dead_letters.Failing object")
    assert "\nTraceback (most recent call last):\n" in newest.failure
    assert newest.failure.endswith("ValueError: no place for t\n")


async def test_redelivery_starts_from_the_first_attempt(make: Make, failing: Failing, settled: Settled) -> None:
    listener = settled.watch(make(schedule=(0.0, 0.0)))
    listener.on_any(failing)
    async with listener.running():
        message_id = (await request(listener, PROGRESS)).json["id"]
        await settled.wait("dead", 1)
        failing.mended = True
        assert await listener.redeliver(message_id)
        await settled.wait("delivered", 1)
        assert await listener.dead_letters(ACCOUNT) == []
    assert [attempt for _, attempt in failing.seen.items] == [1, 2, 1]


async def test_all_dead_letters_of_an_account_are_redelivered(make: Make, failing: Failing, settled: Settled) -> None:
    listener = settled.watch(make(schedule=(0.0,)))
    listener.on_any(failing)
    async with listener.running():
        for body in bodies(3):
            await request(listener, body)
        await settled.wait("dead", 3)
        failing.mended = True
        assert await listener.redeliver_all(ACCOUNT, dry_run=True) == 3
        assert await listener.redeliver_all(ACCOUNT, until=NOW) == 0
        assert await listener.redeliver_all(ACCOUNT, since=NOW) == 3
        await settled.wait("delivered", 3)
        assert await listener.redeliver_all(ACCOUNT) == 0
    assert len(failing.seen.items) == 6


async def test_pending_or_unknown_messages_are_not_redelivered(make: Make) -> None:
    listener, gate = make(), asyncio.Event()

    @listener.on_any
    async def wait(message: CallbackMessage) -> None:
        await gate.wait()

    async with listener.running():
        message_id = (await request(listener, PROGRESS)).json["id"]
        assert not await listener.redeliver(message_id)
        assert not await listener.redeliver("nothing")
        gate.set()

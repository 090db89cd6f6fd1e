"""Redelivery and retention go on beside delivering, in small steps."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from fotahook.delivery import run_maintenance
from fotahook.store.base import Store
from fotahook.store.records import Retention
from tests.store.conftest import ACCOUNT, VirtualClock

from .conftest import Accept, Flaky, Receiver, Serve, failed


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    while not await condition():  # noqa: ASYNC110  # a store tells nobody that it was tidied
        await asyncio.sleep(0)


async def test_dead_messages_are_redelivered_in_the_background(
    store: Store, accept: Accept, serve: Serve, receiver: Receiver, clock: VirtualClock
) -> None:
    receiver.default = failed("http_410")
    await accept(b"1")
    clock.advance(7 * 86400)
    await serve()
    keeping = asyncio.create_task(run_maintenance(store, Retention()))
    assert await store.redeliver_all(ACCOUNT, "dead", since=0, until=clock()) == 1

    async def pending() -> bool:
        return (await store.lanes(ACCOUNT))[0].pending == 1

    await until(pending)
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)


async def test_maintenance_continues_after_the_store_was_unavailable(
    store: Store,
    accept: Accept,
    serve: Serve,
    clock: VirtualClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("fotahook.delivery.maintenance.PAUSE_SECONDS", 0)
    (message_id,) = await accept(b"1")
    await serve()
    clock.advance(10)
    flaky = Flaky(store, "tidy", 2)
    keeping = asyncio.create_task(run_maintenance(flaky, Retention(seconds=1)))  # type: ignore[arg-type]

    async def pruned() -> bool:
        message = await store.message(message_id)
        return message is not None and message.body is None

    await until(pruned)
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
    assert "away on purpose" in caplog.text

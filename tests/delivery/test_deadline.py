"""One timer for many: each ends at its own time, and only by it."""

import asyncio
import contextlib

import pytest

from fotahook.delivery.deadline import Deadline
from tests.deadlines import DEADLINE


async def test_what_takes_too_long_ends_by_timeout_and_what_does_not_goes_on() -> None:
    deadline = Deadline(0.5)

    async def run(until: asyncio.Event) -> str:
        with deadline:
            await until.wait()
        return "in time"

    released, never = asyncio.Event(), asyncio.Event()
    quick, hung = asyncio.create_task(run(released)), asyncio.create_task(run(never))
    await asyncio.sleep(0)
    released.set()
    assert await quick == "in time"
    with pytest.raises(TimeoutError):
        await hung


async def test_each_is_counted_from_its_own_beginning() -> None:
    loop = asyncio.get_running_loop()
    deadline = Deadline(0.1)

    async def run(delay: float) -> tuple[float, float]:
        await asyncio.sleep(delay)
        begun = loop.time()
        with pytest.raises(TimeoutError), deadline:
            await asyncio.Event().wait()
        return begun, loop.time()

    for begun, ended in await asyncio.gather(*(run(delay) for delay in (0, 0, 0.05, 0.12))):
        assert ended >= begun + 0.1


async def test_a_deadline_serves_again_after_it_has_been_idle() -> None:
    deadline = Deadline(0.02)
    for _ in range(2):
        # On a busy machine even this may take too long, which is not what is tried here.
        with contextlib.suppress(TimeoutError), deadline:
            await asyncio.sleep(0)
        await asyncio.sleep(0.03)
        with pytest.raises(TimeoutError), deadline:
            await asyncio.Event().wait()


async def test_a_cancellation_from_elsewhere_stays_one() -> None:
    deadline = Deadline(DEADLINE)

    async def run() -> None:
        with deadline:
            await asyncio.Event().wait()

    task = asyncio.create_task(run())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancellation_at_the_very_time_of_the_deadline_is_heard_of() -> None:
    deadline = Deadline(0.02)

    async def run() -> None:
        with deadline:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                this.cancel()
                raise

    this = asyncio.create_task(run())
    with pytest.raises(asyncio.CancelledError):
        await this


async def test_an_error_of_its_own_is_what_it_is() -> None:
    with pytest.raises(KeyError), Deadline(10):
        raise KeyError


def test_it_is_for_tasks() -> None:
    async def noticed() -> None:
        loop = asyncio.get_running_loop()
        heard: asyncio.Future[BaseException] = loop.create_future()

        def enter() -> None:
            try:
                Deadline(1).__enter__()
            except RuntimeError as error:
                heard.set_result(error)

        loop.call_soon(enter)
        assert "task" in str(await heard)

    asyncio.run(noticed())

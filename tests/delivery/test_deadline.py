"""One timer for many: each ends at its own time, and only by it."""

import asyncio
import contextlib
import time

import pytest

from fotahook.delivery.deadline import LATE_SECONDS, Deadline, DeadlineQueue
from tests.deadlines import DEADLINE


async def test_only_a_block_that_takes_too_long_is_ended() -> None:
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


async def test_the_limit_of_each_block_starts_when_the_block_starts() -> None:
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


async def test_a_deadline_works_again_after_it_was_idle() -> None:
    deadline = Deadline(0.02)
    for _ in range(2):
        # On a busy machine even this may take too long, which is not what is tried here.
        with contextlib.suppress(TimeoutError), deadline:
            await asyncio.sleep(0)
        await asyncio.sleep(0.03)
        with pytest.raises(TimeoutError), deadline:
            await asyncio.Event().wait()


async def test_cancelling_a_task_within_a_deadline_is_a_cancellation() -> None:
    deadline = Deadline(DEADLINE)

    async def run() -> None:
        with deadline:
            await asyncio.Event().wait()

    task = asyncio.create_task(run())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancellation_at_the_moment_of_the_deadline_takes_effect() -> None:
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


async def test_an_error_in_the_block_is_raised_unchanged() -> None:
    with pytest.raises(KeyError), Deadline(10):
        raise KeyError


def test_a_deadline_needs_a_task() -> None:
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


async def test_what_ends_while_the_event_loop_is_busy_is_not_overdue() -> None:
    overdue: asyncio.Queue[str] = asyncio.Queue()
    queue = DeadlineQueue[str](0.01, overdue.put_nowait)
    for name in ("ends", "hangs", "hangs too"):
        queue.add(name)
    time.sleep(0.01 + 2 * LATE_SECONDS)  # noqa: ASYNC251  # the loop is busy
    # The timer is called first.
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert queue.remove("ends")
    assert [await overdue.get(), await overdue.get(), len(queue)] == ["hangs", "hangs too", 0]

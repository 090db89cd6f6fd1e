"""The batcher runs one batch at a time, and the items submitted meanwhile as the next."""

import asyncio
from collections.abc import Sequence

import pytest

from fotahook.store.batcher import Batcher
from fotahook.store.records import StoreUnavailable


class Batches:
    """Runs batches once `go_on` is set, and records them."""

    def __init__(self) -> None:
        self.seen: list[list[int]] = []
        self.running = asyncio.Event()
        self.go_on = asyncio.Event()

    async def run(self, items: Sequence[int]) -> list[int | Exception]:
        self.seen.append(list(items))
        self.running.set()
        await self.go_on.wait()
        return [ValueError(f"{item} is odd") if item % 2 else item * 10 for item in items]


async def submitted(
    batcher: Batcher[int, int], batches: Batches, *items: int, heavy: bool = False, keys: int = 0
) -> list[asyncio.Future[int]]:
    """The future results of items, of which all but the first are submitted during the batch of the first."""

    def submit(item: int) -> asyncio.Future[int]:
        weight, key = item if heavy else 1, item % keys if keys else None
        return asyncio.ensure_future(batcher.submit(item, weight=weight, key=key))

    first = asyncio.ensure_future(batcher.submit(items[0]))
    await batches.running.wait()
    rest = [submit(item) for item in items[1:]]
    await asyncio.sleep(0)  # lets each of them queue up
    return [first, *rest]


async def test_items_submitted_during_a_batch_share_the_next_one() -> None:
    batches = Batches()
    answers = await submitted(Batcher(batches.run, limit=10), batches, 2, 4, 6)
    batches.go_on.set()
    assert await asyncio.gather(*answers) == [20, 40, 60]
    assert batches.seen == [[2], [4, 6]]


async def test_items_of_successive_turns_of_the_loop_share_a_batch() -> None:
    batches = Batches()
    batches.go_on.set()
    batcher = Batcher(batches.run, limit=10)

    async def come(turns: int) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        await batcher.submit(2 * turns)

    await asyncio.gather(*map(come, range(4)))
    assert batches.seen == [[0, 2, 4, 6]]


async def test_a_result_that_is_an_exception_is_raised_for_its_caller_alone() -> None:
    batches = Batches()
    batches.go_on.set()
    batcher = Batcher(batches.run, limit=10)
    results = await asyncio.gather(*map(batcher.submit, (2, 3, 4)), return_exceptions=True)
    assert results[::2] == [20, 40]
    assert isinstance(results[1], ValueError)


async def test_a_batch_that_fails_fails_all_of_its_callers_and_the_next_runs() -> None:
    async def run(items: Sequence[int]) -> list[int | Exception]:
        if items[0] == 1:
            raise StoreUnavailable("away")
        return list(items)

    batcher = Batcher(run, limit=10)
    results = await asyncio.gather(*map(batcher.submit, (1, 2)), return_exceptions=True)
    assert [type(result) for result in results] == [StoreUnavailable] * 2
    assert await batcher.submit(2) == 2


async def test_a_batch_weighs_no_more_than_its_limit_unless_one_item_does() -> None:
    batches = Batches()
    answers = await submitted(Batcher(batches.run, limit=10), batches, 2, 4, 6, 100, 8, heavy=True)
    batches.go_on.set()
    await asyncio.gather(*answers)
    assert batches.seen == [[2], [4, 6], [100], [8]]


async def test_items_of_one_key_are_never_in_one_batch() -> None:
    batches = Batches()
    answers = await submitted(Batcher(batches.run, limit=10), batches, 2, 4, 6, 8, keys=4)
    batches.go_on.set()
    await asyncio.gather(*answers)
    assert batches.seen == [[2], [4, 6], [8]]


async def test_a_caller_that_is_cancelled_leaves_the_others_alone() -> None:
    batches = Batches()
    first, second, third = await submitted(Batcher(batches.run, limit=10), batches, 2, 4, 6)
    second.cancel()
    batches.go_on.set()
    assert [await first, await third] == [20, 60]


async def test_closing_finishes_submitted_items_and_refuses_new_ones() -> None:
    batches = Batches()
    batcher = Batcher(batches.run, limit=10)
    answers = await submitted(batcher, batches, 2, 4)
    batches.go_on.set()
    await batcher.close()
    assert batches.seen == [[2], [4]]
    assert all(answer.done() for answer in answers)
    assert await asyncio.gather(*answers) == [20, 40]
    with pytest.raises(StoreUnavailable, match="closed"):
        await batcher.submit(2)
    await batcher.close()


def test_an_event_loop_that_ended_during_a_batch_does_not_stop_the_next_one() -> None:
    batches = Batches()
    batcher = Batcher(batches.run, limit=10)

    async def leave() -> None:
        leaving = asyncio.ensure_future(batcher.submit(2))
        await batches.running.wait()
        leaving.cancel()

    async def come() -> int:
        batches.go_on.set()
        found = await batcher.submit(4)
        await batcher.close()
        return found

    asyncio.run(leave())
    assert asyncio.run(come()) == 40

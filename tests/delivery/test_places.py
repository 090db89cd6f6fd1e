"""Places in flight: quick lanes always find some, slow ones share theirs."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fotahook.delivery import places as module
from fotahook.delivery.places import SLOW_MEMORY_SECONDS, SLOW_SECONDS, FetchBudget, Place, Places
from fotahook.store.records import FETCH_BYTES


async def hang(places: Places, *lanes: int) -> list[Place]:
    """Places whose attempts have taken long enough to be slow."""
    taken = [await places.acquire(lane) for lane in lanes]
    pass_time(places)
    return taken


def pass_time(places: Places) -> None:
    """Let every attempt in flight have taken long."""
    for place in places._in_flight:
        place.started_at -= SLOW_SECONDS
    places._find_slow()


async def prove_quick(places: Places, lane: int) -> None:
    places.release(await places.acquire(lane), used=True)
    assert places.pace(lane) == "quick"


async def test_a_lane_is_new_then_quick_or_slow() -> None:
    places = Places(4)
    assert places.pace(1) == places.pace(2) == "new"
    await prove_quick(places, 1)
    (slow,) = await hang(places, 2)
    assert (places.pace(2), places.hanging) == ("slow", 1)
    places.release(slow, used=True)
    assert (places.pace(2), places.hanging) == ("slow", 0)


async def test_a_slow_lane_is_new_again_after_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    places = Places(4)
    (slow,) = await hang(places, 1)
    places.release(slow, used=True)
    loop = asyncio.get_running_loop()
    later = loop.time() + SLOW_MEMORY_SECONDS + 1
    monkeypatch.setattr(loop, "time", lambda: later)
    assert places.pace(1) == "new"


async def test_lanes_that_hang_leave_the_places_of_quick_ones() -> None:
    places = Places(4)
    await prove_quick(places, 0)
    await hang(places, *range(1, 3))
    await hang(places, *range(3, 5))
    for _ in range(4):
        async with asyncio.timeout(60):
            await places.acquire(0)


async def test_new_lanes_take_at_most_half() -> None:
    places = Places(4)
    await prove_quick(places, 0)
    for lane in (1, 2):
        await places.acquire(lane)
    third = asyncio.create_task(places.acquire(3))
    await asyncio.sleep(0)
    assert not third.done()
    places.release(await places.acquire(0), used=True)
    third.cancel()


async def test_whoever_waits_gets_the_place_of_one_that_turned_slow() -> None:
    places = Places(2)
    first = await places.acquire(1)
    second = asyncio.create_task(places.acquire(2))
    await asyncio.sleep(0)
    assert not second.done()
    pass_time(places)
    assert first.pace == "slow"
    assert (await second).lane == 2


async def test_slow_lanes_share_their_places() -> None:
    places = Places(8)
    await prove_quick(places, 9)
    assert places.share(9) is None
    await hang(places, 1)
    assert places.share(1) == 4
    await hang(places, 2)
    assert (places.share(1), places.share(2)) == (2, 2)
    await hang(places, 3, 4, 5)
    assert places.share(1) == 1


async def test_slow_lanes_wait_for_each_other_only() -> None:
    places = Places(2)
    (taken,) = await hang(places, 1)
    second = asyncio.create_task(places.acquire(1))
    await asyncio.sleep(0)
    assert not second.done()
    places.release(taken, used=True)
    assert (await second).pace == "slow"


@pytest.mark.parametrize("granted", [False, True])
async def test_a_caller_that_is_cancelled_leaves_no_place_taken(granted: bool) -> None:
    places = Places(1)
    first = await places.acquire(1)
    waiting = asyncio.create_task(places.acquire(2))
    await asyncio.sleep(0)
    if granted:
        places.release(first, used=False)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    if not granted:
        places.release(first, used=False)
    async with asyncio.timeout(60):
        await places.acquire(3)


async def test_the_paces_of_few_lanes_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KNOWN_LIMIT", 3)
    places = Places(10)
    for lane in range(5):
        places.release(await places.acquire(lane), used=True)
    assert [places.pace(lane) for lane in range(5)] == ["new", "new", "quick", "quick", "quick"]


@given(st.lists(st.integers(0, 3 * FETCH_BYTES), max_size=60))
def test_a_budget_is_never_negative_towards_lanes_and_comes_back_whole(sizes: list[int]) -> None:
    budget = FetchBudget(10 * FETCH_BYTES)
    for size in sizes:
        assert 0 <= budget.allowance() <= FETCH_BYTES
        budget.take(size)
    assert (budget.allowance() == 0) == (sum(sizes) >= 10 * FETCH_BYTES)
    for size in sizes:
        budget.give_back(size)
    assert budget.allowance() == FETCH_BYTES

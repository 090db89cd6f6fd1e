"""Places in flight: quick lanes always find some, slow ones share theirs."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fotahook.delivery import places as module
from fotahook.delivery.places import NEW_SECONDS, SLOW_MEMORY_SECONDS, SLOW_SECONDS, FetchBudget, Place, Places
from fotahook.store.records import FETCH_BYTES, Health


async def acquire(places: Places, lane: int) -> Place:
    """A place for an attempt of this lane, as soon as it has one."""
    if (place := places.take(lane)) is not None:
        return place
    granted: asyncio.Future[Place] = asyncio.get_running_loop().create_future()
    places.wait(lane, granted.set_result)
    return await granted


async def hang(places: Places, *lanes: int) -> list[Place]:
    """Places whose attempts have taken long enough to be slow."""
    taken = [await acquire(places, lane) for lane in lanes]
    pass_time(places)
    return taken


def pass_time(places: Places) -> None:
    """Let every attempt in flight have taken long."""
    for queue in (places._of_new, places._young):
        while queue:
            queue.end_oldest()


async def prove_quick(places: Places, lane: int) -> None:
    places.release(await acquire(places, lane), used=True)
    assert places.pace(lane) == "quick"


async def test_a_lane_is_new_then_quick_or_slow() -> None:
    places = Places(4)
    places.begin(2, Health())
    assert places.pace(1) == places.pace(2) == "new"
    await prove_quick(places, 1)
    (slow,) = await hang(places, 2)
    assert (places.pace(2), places.slow_lanes) == ("slow", 1)
    places.release(slow, used=True)
    assert (places.pace(2), places.slow_lanes) == ("slow", 1)
    places.end(2)
    assert (places.pace(2), places.slow_lanes) == ("slow", 0)


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
            await acquire(places, 0)


async def test_new_lanes_take_at_most_half() -> None:
    places = Places(4)
    await prove_quick(places, 0)
    for lane in (1, 2):
        await acquire(places, lane)
    third = asyncio.create_task(acquire(places, 3))
    await asyncio.sleep(0)
    assert not third.done()
    places.release(await acquire(places, 0), used=True)
    third.cancel()


async def test_whoever_waits_gets_the_place_of_one_that_turned_slow() -> None:
    places = Places(2)
    first = await acquire(places, 1)
    second = asyncio.create_task(acquire(places, 2))
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
    second = asyncio.create_task(acquire(places, 1))
    await asyncio.sleep(0)
    assert not second.done()
    places.release(taken, used=True)
    assert (await second).pace == "slow"


async def test_lanes_that_wait_take_turns() -> None:
    places = Places(2)
    first = await acquire(places, 1)
    order: list[int] = []

    async def wait(lane: int, times: int) -> None:
        for _ in range(times):
            place = await acquire(places, lane)
            order.append(lane)
            await asyncio.sleep(0)
            places.release(place, used=False)

    waiting = [asyncio.create_task(wait(lane, times)) for lane, times in ((1, 3), (2, 1), (3, 1))]
    await asyncio.sleep(0)
    places.release(first, used=False)
    await asyncio.gather(*waiting)
    assert order == [1, 2, 3, 1, 1]


async def test_a_new_lane_takes_one_place_when_they_are_scarce() -> None:
    places = Places(8)
    assert places.share(1) is None
    await acquire(places, 1)
    await acquire(places, 1)
    assert places.share(1) == places.share(2) == 1


async def test_what_waits_follows_the_pace_of_its_lane() -> None:
    places = Places(4)
    places.begin(1, Health())
    first = await acquire(places, 1)
    await acquire(places, 2)
    second = asyncio.create_task(acquire(places, 1))
    await asyncio.sleep(0)
    # It takes long for a new lane, but not long enough to be called slow.
    places._of_new.end_oldest()
    assert (places.pace(1), places.slow_lanes, list(places._waiting["slow"])) == ("slow", 1, [])
    assert (await second).pace == "slow"
    third = asyncio.create_task(acquire(places, 1))
    await asyncio.sleep(0)
    places.release(first, used=True)
    places.release(second.result(), used=True)
    assert (places.pace(1), places.slow_lanes) == ("quick", 0)
    assert (await third).lane == 1


async def test_a_busy_event_loop_makes_no_lane_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    places = Places(4)
    place = await acquire(places, 1)
    loop = asyncio.get_running_loop()
    begun, late = loop.time(), loop.time() + 2 * SLOW_SECONDS
    monkeypatch.setattr(loop, "time", lambda: late)
    # The first thing that the loop does after a long pause is to call what is due.
    places._of_new._on_timer(begun + NEW_SECONDS)
    places._young._on_timer(begun + SLOW_SECONDS)
    places.release(place, used=True)
    assert places.pace(1) == "quick"


async def test_a_lane_with_quick_answers_in_its_history_is_quick_at_once() -> None:
    places = Places(4)
    for lane, health in enumerate((Health(latency=0.2), Health(latency=0.2, failed=0.5), Health(latency=14), Health())):
        places.begin(lane, health)
    assert [places.pace(lane) for lane in range(4)] == ["quick", "new", "new", "new"]


async def test_a_lane_that_is_no_longer_served_waits_for_nothing() -> None:
    places = Places(1)
    first = await acquire(places, 1)
    granted: list[Place] = []
    places.wait(2, granted.append)
    places.end(2)
    places.release(first, used=False)
    async with asyncio.timeout(60):
        await acquire(places, 3)
    assert not granted


async def test_the_paces_of_few_lanes_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KNOWN_LIMIT", 3)
    places = Places(10)
    for lane in range(5):
        places.release(await acquire(places, lane), used=True)
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

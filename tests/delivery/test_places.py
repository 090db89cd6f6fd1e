"""Places in flight: quick lanes always find some, slow ones share theirs."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fotahook.delivery import places as module
from fotahook.delivery.places import NEW_SECONDS, SLOW_MEMORY_SECONDS, SLOW_SECONDS, FetchBudget, Place, Places, Seat
from fotahook.store.records import FETCH_BYTES, Health


def seats(places: Places, count: int) -> list[Seat]:
    return [places.begin(lane, Health()) for lane in range(count)]


async def acquire(places: Places, seat: Seat) -> Place:
    """A place for an attempt of this lane, as soon as it has one."""
    if (place := places.take(seat)) is not None:
        return place
    granted: asyncio.Future[Place] = asyncio.get_running_loop().create_future()
    places.wait(seat, granted.set_result)
    return await granted


async def hang(places: Places, *lanes: Seat) -> list[Place]:
    """Places whose attempts have taken long enough to be slow."""
    taken = [await acquire(places, seat) for seat in lanes]
    pass_time(places)
    return taken


def pass_time(places: Places) -> None:
    """Let every attempt in flight have taken long."""
    for queue in (places._of_new, places._young):
        while queue:
            queue.end_oldest()


async def prove_quick(places: Places, seat: Seat) -> None:
    places.release(await acquire(places, seat), used=True)
    assert seat.pace == "quick"


async def test_a_lane_is_new_then_quick_or_slow() -> None:
    places = Places(4)
    one, two = seats(places, 2)
    assert one.pace == two.pace == "new"
    await prove_quick(places, one)
    (slow,) = await hang(places, two)
    assert (two.pace, places.slow_lanes) == ("slow", 1)
    places.release(slow, used=True)
    assert (two.pace, places.slow_lanes) == ("slow", 1)
    places.end(two)
    assert places.slow_lanes == 0
    assert (places.begin(two.lane, Health()).pace, places.slow_lanes) == ("slow", 1)


async def test_a_slow_lane_is_new_again_after_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    places = Places(4)
    seat = places.begin(1, Health())
    (slow,) = await hang(places, seat)
    places.release(slow, used=True)
    places.end(seat)
    loop = asyncio.get_running_loop()
    later = loop.time() + SLOW_MEMORY_SECONDS + 1
    monkeypatch.setattr(loop, "time", lambda: later)
    assert places.begin(1, Health()).pace == "new"


async def test_lanes_that_hang_leave_the_places_of_quick_ones() -> None:
    places = Places(4)
    quick, *hanging = seats(places, 5)
    await prove_quick(places, quick)
    await hang(places, *hanging[:2])
    await hang(places, *hanging[2:])
    for _ in range(4):
        async with asyncio.timeout(60):
            await acquire(places, quick)


async def test_new_lanes_take_at_most_half() -> None:
    places = Places(4)
    quick, *new, last = seats(places, 4)
    await prove_quick(places, quick)
    for seat in new:
        await acquire(places, seat)
    third = asyncio.create_task(acquire(places, last))
    await asyncio.sleep(0)
    assert not third.done()
    places.release(await acquire(places, quick), used=True)
    third.cancel()


async def test_whoever_waits_gets_the_place_of_one_that_turned_slow() -> None:
    places = Places(2)
    one, two = seats(places, 2)
    first = await acquire(places, one)
    second = asyncio.create_task(acquire(places, two))
    await asyncio.sleep(0)
    assert not second.done()
    pass_time(places)
    assert first.pace == "slow"
    assert (await second).seat is two


async def test_slow_lanes_share_their_places() -> None:
    places = Places(8)
    quick, one, two, *others = seats(places, 6)
    await prove_quick(places, quick)
    assert places.share(quick) is None
    await hang(places, one)
    assert places.share(one) == 4
    await hang(places, two)
    assert (places.share(one), places.share(two)) == (2, 2)
    await hang(places, *others)
    assert places.share(one) == 1


async def test_slow_lanes_wait_for_each_other_only() -> None:
    places = Places(2)
    (seat,) = seats(places, 1)
    (taken,) = await hang(places, seat)
    second = asyncio.create_task(acquire(places, seat))
    await asyncio.sleep(0)
    assert not second.done()
    places.release(taken, used=True)
    assert (await second).pace == "slow"


async def test_lanes_that_wait_take_turns() -> None:
    places = Places(2)
    one, two, three = seats(places, 3)
    first = await acquire(places, one)
    order: list[Seat] = []

    async def wait(seat: Seat, times: int) -> None:
        for _ in range(times):
            place = await acquire(places, seat)
            order.append(seat)
            await asyncio.sleep(0)
            places.release(place, used=False)

    waiting = [asyncio.create_task(wait(seat, times)) for seat, times in ((one, 3), (two, 1), (three, 1))]
    await asyncio.sleep(0)
    places.release(first, used=False)
    await asyncio.gather(*waiting)
    assert order == [one, two, three, one, one]


async def test_no_lane_takes_a_free_place_before_those_that_wait() -> None:
    places = Places(1)
    one, two, three, four = (places.begin(lane, Health(latency=0.01)) for lane in range(4))
    first = await acquire(places, one)
    granted: list[Place] = []
    overtaking: list[Place | None] = []

    def give_back(place: Place) -> None:
        granted.append(place)
        places.release(place, used=False)
        overtaking.append(places.take(four))

    places.wait(two, give_back)
    places.wait(three, granted.append)
    places.release(first, used=False)
    assert [place.seat for place in granted] == [two, three]
    assert overtaking == [None]


async def test_a_new_lane_takes_one_place_when_they_are_scarce() -> None:
    places = Places(8)
    one, two = seats(places, 2)
    assert places.share(one) is None
    await acquire(places, one)
    await acquire(places, one)
    assert places.share(one) == places.share(two) == 1


async def test_what_waits_follows_the_pace_of_its_lane() -> None:
    places = Places(4)
    one, two = seats(places, 2)
    first = await acquire(places, one)
    await acquire(places, two)
    second = asyncio.create_task(acquire(places, one))
    await asyncio.sleep(0)
    # It takes long for a new lane, but not long enough to be called slow.
    places._of_new.end_oldest()
    assert (one.pace, places.slow_lanes, list(places._waiting["slow"])) == ("slow", 1, [])
    assert (await second).pace == "slow"
    third = asyncio.create_task(acquire(places, one))
    await asyncio.sleep(0)
    places.release(first, used=True)
    places.release(second.result(), used=True)
    assert (one.pace, places.slow_lanes) == ("slow", 1)
    places.release(await third, used=True)
    assert (one.pace, places.slow_lanes) == ("quick", 0)


async def test_a_place_that_was_not_used_tells_nothing_of_its_lane() -> None:
    places = Places(4)
    (seat,) = seats(places, 1)
    place = await acquire(places, seat)
    places._of_new.end_oldest()
    places.release(place, used=False)
    assert (seat.pace, places.slow_lanes) == ("new", 0)


async def test_a_busy_event_loop_makes_no_lane_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    places = Places(4)
    (seat,) = seats(places, 1)
    loop = asyncio.get_running_loop()
    begun, late = loop.time(), loop.time() + 2 * SLOW_SECONDS
    now = begun
    monkeypatch.setattr(loop, "time", lambda: now)
    place = await acquire(places, seat)
    now = late
    # The first thing that the loop does after a long pause is to call what is due.
    places._of_new._on_timer(begun + NEW_SECONDS)
    places._young._on_timer(begun + SLOW_SECONDS)
    places.release(place, used=True)
    assert seat.pace == "quick"


async def test_a_lane_with_quick_answers_in_its_history_is_quick_at_once() -> None:
    places = Places(4)
    healths = (Health(latency=0.2), Health(latency=0.2, failed=0.5), Health(latency=14), Health())
    paces = [places.begin(lane, health).pace for lane, health in enumerate(healths)]
    assert paces == ["quick", "new", "new", "new"]


async def test_a_lane_that_is_no_longer_served_waits_for_nothing() -> None:
    places = Places(1)
    one, two, three = seats(places, 3)
    first = await acquire(places, one)
    granted: list[Place] = []
    places.wait(two, granted.append)
    places.end(two)
    places.release(first, used=False)
    async with asyncio.timeout(60):
        await acquire(places, three)
    assert not granted


async def test_the_paces_of_few_lanes_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KNOWN_LIMIT", 3)
    places = Places(10)
    for seat in seats(places, 5):
        places.release(await acquire(places, seat), used=True)
    assert [seat.pace for seat in seats(places, 5)] == ["new", "new", "quick", "quick", "quick"]


@given(st.lists(st.integers(0, 3 * FETCH_BYTES), max_size=60))
def test_a_budget_is_never_negative_towards_lanes_and_comes_back_whole(sizes: list[int]) -> None:
    budget = FetchBudget(10 * FETCH_BYTES)
    for size in sizes:
        assert 0 <= budget.allowance() <= FETCH_BYTES
        budget.take(size)
    assert (budget.allowance() == 0) == (sum(sizes) >= 10 * FETCH_BYTES)
    for size in sizes:
        budget.take(-size)
    assert budget.allowance() == FETCH_BYTES

"""Turns: what one owner queued never stands before all that another brings, and nothing is starved."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from fotahook.store.batcher import LoopTurns, Turns
from fotahook.store.group_commit import LARGE_BYTES, AcceptRequest
from fotahook.store.records import NewMessage
from fotahook.store.session import Candidate
from tests.deadlines import DEADLINE
from tests.turns import counted_turns

work = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 25)), max_size=40)


@given(work)
def test_all_is_taken_once_in_the_order_of_each_owner_within_the_limit(given: list[tuple[int, int]]) -> None:
    turns: Turns[tuple[int, int, int]] = Turns(limit=10)
    for number, (owner, weight) in enumerate(given):
        turns.put((owner, number, weight), owner, weight)
    taken: list[tuple[int, int, int]] = []
    while batch := turns.take():
        assert len(batch) == 1 or sum(weight for *_, weight in batch) <= 10
        taken += batch
    assert sorted(taken, key=lambda item: item[1]) == [(o, n, w) for n, (o, w) in enumerate(given)]
    for owner in range(4):
        own = [item for item in taken if item[0] == owner]
        assert own == sorted(own, key=lambda item: item[1])


@given(st.lists(st.integers(1, 25), min_size=1, max_size=40), st.integers(0, 3))
def test_a_light_item_waits_for_one_batch_of_a_busy_owner_at_most(weights: list[int], batches: int) -> None:
    turns: Turns[str] = Turns(limit=10)
    for weight in weights:
        turns.put("busy", "busy", weight)
    for _ in range(batches):
        turns.take()
    turns.put("light", "light")
    assert "light" in turns.take() + turns.take()


def test_heavy_and_light_items_alternate() -> None:
    turns: Turns[str] = Turns(limit=10)
    for _ in range(3):
        turns.put("heavy", "heavy", 100)
    assert turns.take() == ["heavy"]
    for _ in range(2):
        for number in range(10):
            turns.put("light", number)
        assert turns.take() == ["light"] * 10
        assert turns.take() == ["heavy"]


def test_a_heavy_item_waits_for_one_batch_of_light_ones_although_more_come() -> None:
    turns: Turns[str] = Turns(limit=10)
    for _ in range(3):
        turns.put("heavy", "heavy", 100)
    assert turns.take() == ["heavy"]
    for number in range(10):
        turns.put("light", number)
    assert turns.take() == ["light"] * 10
    for number in range(10, 20):
        turns.put("light", number)
    assert turns.take() == ["heavy"]


def test_an_owner_that_comes_late_shares_with_a_busy_one_and_has_no_credit() -> None:
    turns: Turns[str] = Turns(limit=10)
    for _ in range(400):
        turns.put("busy", "busy")
    for _ in range(20):
        turns.take()
    for _ in range(100):
        turns.put("late", "late")
    assert [turns.take().count("late") for _ in range(4)] == [5] * 4


def test_an_owner_of_heavy_items_waits_for_as_much_light_work_as_they_weigh() -> None:
    turns: Turns[str] = Turns(limit=10)
    for _ in range(10):
        turns.put("heavy", "heavy", 10)
        turns.put("light", "light")
    assert [turns.take() for _ in range(3)] == [["heavy"], ["light"] * 10, ["heavy"]]


def test_a_second_item_of_a_key_begins_the_next_batch() -> None:
    turns: Turns[int] = Turns(limit=10)
    for number, key in enumerate(["a", None, "a", None]):
        turns.put(number, key=key)
    assert turns.take() == [0, 1]
    assert turns.take() == [2, 3]
    assert turns.take() == []


def test_large_bodies_weigh_more_than_small_ones() -> None:
    messages = [NewMessage(account="a", body=b"x" * LARGE_BYTES), NewMessage(account="b", body=b"x")]
    assert AcceptRequest([Candidate("id", message, b"") for message in messages], None).turn == ("a", 3)
    assert AcceptRequest([], None).turn == (None, 0)


async def test_clients_parse_in_turns_one_in_each_turn_of_the_loop() -> None:
    turns, went = LoopTurns(), list[str]()

    async def client(name: str) -> None:
        for _ in range(4):
            await turns.wait(name)
            went.append(name)

    with counted_turns() as times:
        many = [asyncio.create_task(client("greedy")) for _ in range(10)]
        gone = asyncio.create_task(client("gone"))
        await asyncio.sleep(0)
        gone.cancel()
        await client("modest")
        assert went.count("greedy") <= 6
        await asyncio.gather(*many)
        assert len(went) == 44
        assert times() >= 44


def test_turns_go_on_in_another_event_loop() -> None:
    turns, first, went = LoopTurns(), asyncio.new_event_loop(), list[str]()
    first.create_task(turns.wait("a"))
    first.run_until_complete(asyncio.sleep(0))

    async def second() -> None:
        async with asyncio.timeout(DEADLINE):
            await turns.wait("a")
        went.append("second")

    asyncio.run(second())
    assert went == ["second"]
    left = asyncio.all_tasks(first)
    for task in left:
        task.cancel()
    first.run_until_complete(asyncio.gather(*left, return_exceptions=True))
    first.close()


async def test_after_a_long_turn_the_loop_belongs_to_others_for_as_long() -> None:
    loop, times = asyncio.get_running_loop(), iter([0.0, 0.0, 0.05])
    turns = LoopTurns(lambda: next(times, 0.05))
    await turns.wait("a")
    began = loop.time()
    await turns.wait("a")
    # A timer may fire a little early.
    assert loop.time() - began > 0.04

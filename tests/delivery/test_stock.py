"""The memory that a lane's deliveries take: all of it comes back, however the pace of the lane changes meanwhile."""

from hypothesis import given
from hypothesis import strategies as st

from fotahook.delivery.places import FetchBudget, Stock
from fotahook.store.records import FETCH_BYTES, Attempt, Settlement

from .conftest import a_delivery

DONE = Attempt(started_at=0.0, url=None, outcome="delivered")


def test_what_is_in_stock_already_is_not_taken_again() -> None:
    budget = FetchBudget(FETCH_BYTES)
    stock = Stock(lambda: budget)
    delivery = a_delivery(body=bytes(100))
    assert stock.take([delivery], limit=100) == [delivery]
    assert stock.take([delivery], limit=100) == []
    assert budget.allowance() == FETCH_BYTES - 100


def test_no_more_is_taken_than_the_memory_has_room_for() -> None:
    budget = FetchBudget(10)
    stock = Stock(lambda: budget)
    fits, too_much = a_delivery(seq=1, body=bytes(10)), a_delivery(seq=2, body=bytes(1))
    assert stock.take([fits, too_much], limit=100) is None
    assert stock.take([fits], limit=100) == [fits]
    assert stock.take([too_much], limit=100) is None


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 1000), st.booleans()), max_size=40))
def test_what_is_held_counts_with_the_lane_s_present_pace(steps: list[tuple[bool, int, bool]]) -> None:
    budgets = [FetchBudget(FETCH_BYTES), FetchBudget(FETCH_BYTES)]
    quick = True
    stock = Stock(lambda: budgets[quick])
    held: dict[int, int] = {}
    for number, (quick, size, settles) in enumerate(steps):
        delivery = a_delivery(seq=number, body=bytes(size))
        assert stock.take([delivery], limit=100) == [delivery]
        held[number] = size
        if settles:
            first = a_delivery(seq=next(iter(held)))
            stock.settle([Settlement(delivery=first, state="delivered", attempts=1, strikes=0, attempt=DONE)])
            del held[first.seq]
        assert budgets[quick].allowance() == FETCH_BYTES - sum(held.values())
        assert budgets[not quick].allowance() == FETCH_BYTES
    stock.clear()
    assert [budget.allowance() for budget in budgets] == [FETCH_BYTES, FETCH_BYTES]

"""The memory that a lane's deliveries take: all of it comes back, however the pace of the lane changes meanwhile."""

from hypothesis import given
from hypothesis import strategies as st

from fotahook.delivery.places import FetchBudget, Stock
from fotahook.store.records import FETCH_BYTES, Attempt, Settlement

from .conftest import a_delivery

DONE = Attempt(started_at=0.0, url=None, outcome="delivered")


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

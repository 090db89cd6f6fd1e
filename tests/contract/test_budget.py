"""What clients share: none of them gets so much that others get nothing."""

from hypothesis import given
from hypothesis import strategies as st

from fotahook.contract.budget import Budget


def test_one_client_gets_half_and_the_next_ones_half_of_the_rest() -> None:
    budget = Budget(64)
    with budget.share("a") as a, budget.share("b") as b, budget.share("c") as c:
        assert [a(16), a(16), a(1)] == [True, True, False]
        assert [b(16), b(1)] == [True, False]
        assert [c(8), c(1)] == [True, False]
    with budget.share("a") as again:
        assert again(32)


def test_what_one_client_takes_for_several_requests_counts_together() -> None:
    budget = Budget(64)
    with budget.share("a") as first:
        assert first(30)
        with budget.share("a") as second:
            assert not second(3)
            assert second(2)
        assert not first(3)
        assert first(2)


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 100)), max_size=50))
def test_a_newcomer_always_gets_something_and_all_comes_back(takes: list[tuple[str, int]]) -> None:
    budget = Budget(1000)
    for _ in range(2):
        with budget.share("a") as a, budget.share("b") as b, budget.share("c") as c, budget.share("d") as d:
            of = {"a": a, "b": b, "c": c, "d": d}
            for client, amount in takes:
                of[client](amount)
            with budget.share("new") as new:
                # Each of the four leaves half of what it found.
                assert new(1000 // 2**5)
    with budget.share("a") as whole:
        assert whole(500)

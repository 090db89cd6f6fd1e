"""The ledger finds what is lost, altered, out of order or twice without a reason, and nothing else."""

from hypothesis import given
from hypothesis import strategies as st

from .ledger import RECOVERY_SECONDS, Ledger, Promise
from .schedule import Fault

KILL, LIE = Fault("all", "SIGKILL"), Fault("receiver", "garbage")


def a_ledger(*promised: str, key: str | None = "k") -> Ledger:
    """Messages of one key, promised in this order at the times 0, 1, 2 …"""
    ledger = Ledger(grace=1.0)
    for at, name in enumerate(promised):
        ledger.promise(name, Promise("a", key, name.encode(), float(at)))
    return ledger


def came(ledger: Ledger, *arrivals: tuple[float, str]) -> Ledger:
    for at, name in arrivals:
        ledger.arrive(at, "a", name, name.encode())
    return ledger


def test_what_arrives_once_and_in_order_holds() -> None:
    verdict = came(a_ledger("m1", "m2"), (0.5, "m1"), (1.5, "m2")).verdict()
    assert verdict.holds
    assert (verdict.accepted, verdict.duplicates, verdict.quiet_p99) == (2, {}, 0.5)
    assert str(verdict).startswith("2 accepted: lost 0, altered 0, out of order 0; duplicates: 0 unexplained")


@given(st.permutations(["m1", "m2", "m3", "m4"]))
def test_what_comes_before_its_predecessor_is_out_of_order(names: list[str]) -> None:
    ledger = came(a_ledger("m1", "m2", "m3", "m4"), *((10.0 + at, name) for at, name in enumerate(names)))
    early = [name for name in names if any(names.index(other) > names.index(name) for other in names if other < name)]
    assert ledger.verdict().disordered == sorted(early)


def test_without_a_key_there_is_no_order() -> None:
    assert came(a_ledger("m1", "m2", key=None), (1, "m2"), (2, "m1")).verdict().holds


def test_only_first_deliveries_have_an_order() -> None:
    ledger = came(a_ledger("m1", "m2"), (0.5, "m1"), (2, "m2"), (3, "m1"))
    ledger.begin(KILL, None, 1.0).ended = 2.5
    assert ledger.verdict().holds


def test_what_never_arrives_is_lost_and_counts_as_missing() -> None:
    ledger = came(a_ledger("m1", "m2"), (1, "m2"))
    assert ledger.missing == {"m1"}
    assert ledger.backlog("a") == 1
    assert ledger.verdict().lost == ["m1"]
    assert not ledger.verdict().holds


def test_what_was_not_published_so_is_altered() -> None:
    ledger = a_ledger("m1")
    ledger.arrive(1, "a", "m1", b"other")
    ledger.arrive(1, "a", "m9", b"m9")
    assert ledger.verdict().altered == ["m1", "m9"]


@given(st.floats(0, 20), st.floats(0, 5), st.floats(0, 20), st.floats(0, 5), st.sampled_from(["a", "b", None]))
def test_a_second_delivery_is_explained_by_a_fault_that_touched_it(
    first: float, later: float, began: float, lasted: float, account: str | None
) -> None:
    ledger = came(a_ledger("m1"), (first, "m1"), (first + later, "m1"))
    ledger.begin(KILL, None if account is None else frozenset({account}), began).ended = began + lasted
    verdict = ledger.verdict()
    explained = account != "b" and began <= first + later and first <= began + lasted + ledger.grace
    assert verdict.holds is explained
    assert verdict.duplicates == ({"all: SIGKILL": 1} if explained else {})
    assert verdict.unexplained == ([] if explained else ["m1"])


def test_a_receivers_own_fault_explains_more_than_one_of_all() -> None:
    ledger = came(a_ledger("m1"), (1, "m1"), (2, "m1"))
    ledger.begin(KILL, None, 0.0)
    ledger.begin(LIE, frozenset("a"), 0.0)
    assert ledger.verdict().duplicates == {"receiver: garbage": 1}


def test_neighbours_are_those_that_no_fault_touches_while_another_has_one() -> None:
    ledger = Ledger(grace=1.0)
    for name, account, at, arrived in (("m1", "a", 0.0, 1.0), ("m2", "b", 10.0, 12.0), ("m3", "a", 10.0, 13.0)):
        ledger.promise(name, Promise(account, None, b"", at))
        ledger.arrive(arrived, account, name, b"")
    ledger.begin(LIE, frozenset("b"), 9.0).ended = 20.0
    verdict = ledger.verdict()
    assert (verdict.quiet_p99, verdict.neighbours_p99) == (1.0, 3.0)
    ledger.begin(KILL, None, -RECOVERY_SECONDS).ended = -0.5
    assert ledger.verdict().quiet_p99 is None

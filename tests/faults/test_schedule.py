"""Schedules of faults depend on their seed alone, and leave nothing out."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from .schedule import FAULTS, Engine, make_schedule
from .test_rounds import SEEDS

engines = st.sampled_from(list(FAULTS))
lengths = st.integers(0, 100)


@given(st.integers(), engines, lengths)
def test_the_same_seed_makes_the_same_schedule(seed: int, engine: Engine, steps: int) -> None:
    assert make_schedule(seed, FAULTS[engine], steps=steps) == make_schedule(seed, FAULTS[engine], steps=steps)


@given(st.integers(), engines, lengths)
def test_a_longer_schedule_begins_as_the_shorter_one(seed: int, engine: Engine, steps: int) -> None:
    longer = make_schedule(seed, FAULTS[engine], steps=steps + 1)
    assert longer[:-1] == make_schedule(seed, FAULTS[engine], steps=steps)


@given(st.integers(), engines, lengths)
def test_every_fault_comes_before_any_comes_again(seed: int, engine: Engine, steps: int) -> None:
    schedule = make_schedule(seed, FAULTS[engine], steps=steps)
    times = Counter(fault for step in schedule for fault in step.faults)
    assert times.keys() <= set(FAULTS[engine])
    assert max(times.values(), default=0) - min(times[fault] for fault in FAULTS[engine]) <= 1


@given(st.integers(), engines, lengths)
def test_each_step_has_one_fault_or_two_of_different_things(seed: int, engine: Engine, steps: int) -> None:
    schedule = make_schedule(seed, FAULTS[engine], steps=steps)
    assert len(schedule) == steps
    for step in schedule:
        assert 1 <= len(step.faults) == len({fault.what for fault in step.faults}) <= 2
        assert 0 <= step.length <= 1
        assert step.pause > 0


def test_the_seeds_of_every_run_have_every_fault() -> None:
    for engine, rounds in SEEDS.items():
        schedules = [make_schedule(seed, FAULTS[engine], steps=steps) for seed, steps in rounds]
        assert {fault for one in schedules for step in one for fault in step.faults} == set(FAULTS[engine])

"""Seeded rounds of faults: everything that was accepted arrives, in order, and twice only where a fault explains it.

FAULT_ROUNDS=20 runs so many random seeds on each store, told in the tests' names; FAULT_SEEDS="7 8" repeats some.
FAULT_STEPS is the length of each.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import pytest

from .schedule import FAULTS, Engine, make_schedule, seeds
from .world import a_world, live_through

SEEDS: Final[Mapping[Engine, Sequence[tuple[int, int]]]] = {"sqlite": [(904, 6)], "postgres": [(2549, 6), (8186, 6)]}
"""The seeds of `make test`, and how many steps each makes: those that are done soonest with every fault."""
STEPS: Final = int(os.environ.get("FAULT_STEPS", "20"))


def rounds() -> list[tuple[Engine, int, int]]:
    chosen = [(seed, STEPS) for seed in seeds(default=())]
    return [(engine, *one) for engine, fixed in SEEDS.items() for one in chosen or fixed]


@pytest.mark.parametrize(("engine", "seed", "steps"), rounds())
async def test_nothing_is_lost_at_random(engine: Engine, seed: int, steps: int, tmp_path: Path) -> None:
    async with a_world(engine, tmp_path) as world:
        verdict = await live_through(world, make_schedule(seed, FAULTS[engine], steps=steps))
        assert verdict.holds, verdict

"""Seeded schedules of faults: which fault comes when, and which come together. The same seed, the same schedule."""

import os
import random
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

Engine = Literal["sqlite", "postgres"]


def seeds(default: Sequence[int] = (1, 2, 3)) -> Sequence[int]:
    """FAULT_SEEDS="7 8", or as many random ones as FAULT_ROUNDS says, or the default."""
    rounds = int(os.environ.get("FAULT_ROUNDS", "0"))
    chosen = [random.SystemRandom().randrange(10**9) for _ in range(rounds)]
    return [int(seed) for seed in os.environ.get("FAULT_SEEDS", "").split()] or chosen or default


CUTS: Final = ("drop", "black hole", "half open")
"""What a link may do: end its connections and refuse others; carry nothing; carry only what the client says."""


class Fault(NamedTuple):
    """What fails, and how."""

    what: str
    how: str

    def __str__(self) -> str:
        return f"{self.what}: {self.how}"


class Step(NamedTuple):
    """One or two faults at once."""

    pause: int
    """How many messages more are accepted or received before it begins."""
    faults: tuple[Fault, ...]
    number: int
    """Chooses among processes that would all do."""
    length: float
    """In 0..1, between the shortest and the longest that these faults may last."""

    def __str__(self) -> str:
        return f"after {self.pause}: {' + '.join(map(str, self.faults))} (#{self.number}, {self.length:.2f})"


_RECEIVERS: Final = (
    *(Fault("receiver", how) for how in ("2xx cut off", "200, then reset", "garbage")),
    *(Fault("link to receivers", how) for how in CUTS),
    Fault("name server", "hangs"),
)
"""Faults of single receivers: nobody else may notice."""
_CLOCK: Final = tuple(Fault("clock", how) for how in ("40 days ahead", "40 days back"))
FAULTS: Final[dict[Engine, tuple[Fault, ...]]] = {
    "sqlite": (
        Fault("all", "SIGKILL"),
        Fault("all", "SIGSTOP"),
        Fault("disk", "full"),
        *_CLOCK,
        *_RECEIVERS,
    ),
    "postgres": (
        *(Fault(role, how) for role in ("api", "dispatcher") for how in ("SIGKILL", "SIGSTOP")),
        *(
            Fault("PostgreSQL", how)
            for how in ("SIGKILL", "SIGSTOP", "disk full", "failover of a dead one", "failover of a frozen one")
        ),
        *(Fault("link to PostgreSQL", how) for how in CUTS),
        *_CLOCK,
        *_RECEIVERS,
    ),
}
NEIGHBOURS: Final = _RECEIVERS


def make_schedule(seed: int, faults: Sequence[Fault], *, steps: int) -> tuple[Step, ...]:
    """So many steps, in which each fault comes as often as any other, to one: a shuffled deck is dealt."""
    chance = random.Random(seed)
    deck: list[Fault] = []
    schedule = []
    for _ in range(steps):
        together: list[Fault] = []
        for _ in range(chance.choice((1, 2, 2))):
            if not deck:
                deck = chance.sample(faults, len(faults))
            # Two faults of one thing would be one fault.
            place = next(
                (number for number, one in enumerate(deck) if one.what not in {each.what for each in together}), None
            )
            if place is not None:
                together.append(deck.pop(place))
        schedule.append(
            Step(chance.randint(20, 150), tuple(together), chance.randrange(100), round(chance.random(), 2))
        )
    return tuple(schedule)

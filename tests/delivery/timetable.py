"""A timetable of simulated days: when something was tried, what was tried, what came of it, and what comes next."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from fotahook.store.records import Lane

DAY = 86400.0


@dataclass(frozen=True, kw_only=True)
class Turn:
    """What one turn of one lane came to."""

    at: float
    who: str
    tried: tuple[str, ...]
    outcomes: tuple[str, ...]
    state: str
    until: float | None
    pending: int


@dataclass
class Timetable:
    """Turns in the order in which they happened. `begin` is the first day's midnight."""

    begin: float
    turns: list[Turn] = field(default_factory=list)

    def add(self, at: float, who: str, tries: Iterable[tuple[str, str]], lane: Lane) -> None:
        """One turn: what was tried with which outcome, and how the lane stands afterwards."""
        tried, outcomes = zip(*tries, strict=True)
        self.turns.append(
            Turn(
                at=at,
                who=who,
                tried=tried,
                outcomes=outcomes,
                state=lane.state,
                until=lane.until,
                pending=lane.pending,
            )
        )

    def of(self, who: str) -> list[Turn]:
        """The turns of one lane."""
        return [turn for turn in self.turns if turn.who == who]

    def __str__(self) -> str:
        return "\n".join(self._line(turn) for turn in self.turns)

    def _line(self, turn: Turn) -> str:
        tried = turn.tried[0] if len(turn.tried) == 1 else f"{len(turn.tried)} messages"
        came = ", ".join(f"{times} {code}" if times > 1 else code for code, times in Counter(turn.outcomes).items())
        following = f"waits until {self._clock(turn.until)}" if turn.until is not None else turn.state
        return f"{self._clock(turn.at)}  {turn.who:8} {tried:14} {came:30} {following}, {turn.pending} pending"

    def _clock(self, at: float) -> str:
        day = int((at - self.begin) // DAY) + 1
        return f"day {day} {datetime.fromtimestamp(at, UTC):%H:%M:%S}"

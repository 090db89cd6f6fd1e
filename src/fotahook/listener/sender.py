"""What the sender does, in numbers of the last day that the console shows."""

from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final, Literal, TypeAlias

import msgspec

SECONDS: Final = (0.1, 1.0, 3.0, 4.0)
"""Answer times that are told apart. ThingSpace sends a second copy after about 4 s without an answer."""
_BUCKETS: Final = (*(f"{seconds:g}" for seconds in SECONDS), "inf")
_HOUR: Final = 3600.0
_HOURS: Final = 24
_MANY: Final = 200
"""Combinations that are told apart in one hour; a sender can invent any number of user agents."""
_NAME_LIMIT: Final = 100
_ANSWERED: Final = ("answers", "seconds", "addresses", "agents")
"""The kinds of facts that are counted of an answer. Of the last two there can be any number of names."""

_Facts: TypeAlias = tuple[str, ...]
"""The names of `_ANSWERED` that are counted together, or an event."""
Event: TypeAlias = Literal["former_path", "former_password", "late", "repaired"]
"""Late: a message all of whose statuses were known, or overtaken by later ones. Repaired: a status from a report."""


class SenderReport(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Messages of the last 24 hours, as far as this process has received them."""

    since: datetime
    answers: Mapping[str, int]
    """``new``, ``repeated``, or the status of a refusal."""
    seconds: Mapping[str, int]
    """Answers that took no longer than so many seconds, or longer (``inf``)."""
    addresses: Mapping[str, int]
    agents: Mapping[str, int]
    events: Mapping[str, int]


class SenderCounts:
    """Counts by the hour."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._begun = clock()
        self._hours: deque[tuple[float, Counter[_Facts]]] = deque(maxlen=_HOURS + 1)

    def answered(self, answer: str, address: str, agent: str, begun: float) -> None:
        """Count the answer to a message, which came at `begun`."""
        now = self._clock()
        self._add(now, (answer, _BUCKETS[bisect_left(SECONDS, now - begun)], address, agent))

    def happened(self, event: Event, times: int = 1) -> None:
        """Count something else."""
        self._add(self._clock(), (event,), times)

    def _add(self, now: float, facts: _Facts, times: int = 1) -> None:
        hour = now // _HOUR
        if not self._hours or self._hours[-1][0] != hour:
            self._hours.append((hour, Counter()))
        counts = self._hours[-1][1]
        if facts not in counts:
            known = ("others", "others") if len(counts) >= _MANY else [name[:_NAME_LIMIT] for name in facts[2:]]
            facts = (*facts[:2], *known) if len(facts) > 1 else facts
        counts[facts] += times

    def report(self) -> SenderReport:
        """The counts of the last 24 hours."""
        now = self._clock()
        found: dict[str, Counter[str]] = {name: Counter() for name in SenderReport.__struct_fields__[1:]}
        for hour, counts in self._hours:
            if hour > now // _HOUR - _HOURS:
                for facts, times in counts.items():
                    for kind, name in zip(_ANSWERED if len(facts) > 1 else ("events",), facts, strict=True):
                        found[kind][name] += times
        since = max(self._begun, (now // _HOUR - _HOURS + 1) * _HOUR)
        return SenderReport(since=datetime.fromtimestamp(since, UTC), **found)

"""Shares what a dispatcher has between its lanes: places in flight, and memory for what is fetched ahead.

A lane is *quick* while its attempts end soon, *slow* once one of them takes long, and *new* before either is known.
Slow lanes have places of their own, and new ones at most half of the others, each for a moment: whoever hangs leaves
quick lanes theirs.
"""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Final, Literal

from fotahook.store.records import FETCH_BYTES, Health

from .deadline import DeadlineQueue

SLOW_SECONDS: Final = 1.0
"""An attempt that takes longer makes its lane slow."""
NEW_SECONDS: Final = 0.1
"""An attempt of a new lane that takes longer counts with those of slow lanes: other new lanes have their turn."""
SLOW_MEMORY_SECONDS: Final = 60.0
"""How long a lane stays slow after its last slow attempt."""
KNOWN_LIMIT: Final = 65_536
"""Lanes whose pace is remembered."""
FETCH_BYTES_IN_ALL: Final = 16 * 1024 * 1024
"""For the quick lanes, and again for all others."""

Pace = Literal["quick", "new", "slow"]


class Place:
    """One attempt's right to be in flight."""

    __slots__ = ("lane", "pace")

    def __init__(self, lane: int, pace: Pace) -> None:
        self.lane = lane
        self.pace = pace


Grant = Callable[[Place], None]
"""Gets the place that a lane waited for, and uses it or gives it back."""


class Places:
    """Gives out places in flight. `total` are for quick and new lanes; slow ones share half as many of their own."""

    def __init__(self, total: int, *, on_slow: Callable[[], None] = lambda: None) -> None:
        self._total = total
        self._on_slow = on_slow
        """Called when attempts turned out to take long."""
        self._new_limit = max(1, total // 2)
        self._slow_limit = max(1, total // 2)
        self._taken: dict[Pace, int] = {"quick": 0, "new": 0, "slow": 0}
        self._waiting: dict[Pace, dict[int, Grant]] = {"quick": {}, "new": {}, "slow": {}}
        """By lane, in the order of their turns: each lane gets one place a turn."""
        self._slow_until: OrderedDict[int, float] = OrderedDict()
        """By lane: until when it is slow, or 0 for a quick one."""
        self._serving = False
        self._served: set[int] = set()
        self._slow_served: set[int] = set()
        self._slow_in_flight: Counter[int] = Counter()
        self._young = DeadlineQueue[Place](SLOW_SECONDS, self._on_long)
        self._of_new = DeadlineQueue[Place](NEW_SECONDS, self._count_as_slow)
        """Those of them that count with new lanes."""

    @property
    def slow_lanes(self) -> int:
        """How many of the lanes that are served are slow, or have an attempt in flight that takes long."""
        return len(self._slow_served)

    def share(self, lane: int) -> int | None:
        """How many places a lane may take at once if they are scarce for lanes of its pace, else None."""
        if self._slow_until.get(lane) == 0 and lane not in self._slow_in_flight:
            return None
        pace = self.pace(lane)
        if pace == "new" and self._taken["new"] >= self._new_limit // 2:
            return 1
        if pace != "slow":
            return None
        lanes = len(self._slow_in_flight) + (lane not in self._slow_in_flight)
        return max(1, self._slow_limit // lanes)

    def begin(self, lane: int, health: Health) -> None:
        """A lane begins to be served. Unless more is known of it, its recent answers say whether it is quick."""
        self._served.add(lane)
        pace = self.pace(lane)
        if pace == "slow":
            self._slow_served.add(lane)
        elif pace == "new" and health.failed == 0 and 0 < health.latency < SLOW_SECONDS:
            self._remember(lane, slow=False)

    def end(self, lane: int) -> None:
        """A lane is no longer served, and waits no more."""
        self._served.discard(lane)
        self._slow_served.discard(lane)
        for waiting in self._waiting.values():
            waiting.pop(lane, None)

    def take(self, lane: int) -> Place | None:
        """A place for an attempt of this lane, if one is free for it and nobody waits."""
        pace = self.pace(lane)
        return None if self._waiting[pace] or not self._is_free(pace) else self._take(lane, pace)

    def wait(self, lane: int, grant: Grant) -> None:
        """Call `grant` with a place as soon as it is this lane's turn. A lane waits for one place at a time."""
        self._waiting[self.pace(lane)][lane] = grant

    def release(self, place: Place, *, used: bool) -> None:
        """Give a place back. `used`: an attempt was made, and how long it took says whether the lane is slow."""
        lane = place.lane
        self._taken[place.pace] -= 1
        if place.pace == "slow":
            self._slow_in_flight[lane] -= 1
            if self._slow_in_flight[lane] <= 0:
                del self._slow_in_flight[lane]
        elif place.pace == "new":
            self._of_new.remove(place)
        was_quick = self._young.remove(place)
        if used and not (was_quick and self._slow_until.get(lane) == 0 and lane not in self._slow_served):
            self._remember(lane, slow=not was_quick)
        if any(self._waiting.values()):
            self._serve_waiting()

    def pace(self, lane: int) -> Pace:
        """How long the attempts of a lane take."""
        if lane in self._slow_in_flight:
            return "slow"
        until = self._slow_until.get(lane)
        if until is None:
            return "new"
        if until == 0:
            return "quick"
        return "slow" if asyncio.get_running_loop().time() < until else "new"

    def _is_free(self, pace: Pace) -> bool:
        if pace == "slow":
            return self._taken["slow"] < self._slow_limit
        if pace == "new" and self._taken["new"] >= self._new_limit:
            return False
        return self._taken["quick"] + self._taken["new"] < self._total

    def _take(self, lane: int, pace: Pace) -> Place:
        place = Place(lane, pace)
        self._taken[pace] += 1
        self._young.add(place)
        if pace == "slow":
            self._slow_in_flight[lane] += 1
        elif pace == "new":
            self._of_new.add(place)
        return place

    def _remember(self, lane: int, *, slow: bool) -> None:
        self._note_slow(lane, slow=slow)
        self._slow_until[lane] = asyncio.get_running_loop().time() + SLOW_MEMORY_SECONDS if slow else 0
        self._slow_until.move_to_end(lane)
        if len(self._slow_until) > KNOWN_LIMIT:
            self._slow_until.popitem(last=False)

    def _on_long(self, place: Place) -> None:
        self._remember(place.lane, slow=True)
        self._count_as_slow(place)

    def _count_as_slow(self, place: Place) -> None:
        """Count an attempt that takes long with those of slow lanes, even beyond their number: it is in flight."""
        if place.pace == "slow":
            return
        self._taken[place.pace] -= 1
        place.pace = "slow"
        self._taken["slow"] += 1
        self._slow_in_flight[place.lane] += 1
        self._note_slow(place.lane, slow=True)
        self._serve_waiting()
        self._on_slow()

    def _note_slow(self, lane: int, *, slow: bool) -> None:
        if not slow:
            self._slow_served.discard(lane)
        elif lane in self._served:
            self._slow_served.add(lane)
        queue = self._waiting["slow" if slow else "quick"]
        for other in self._waiting.values():
            if other is not queue and lane in other:
                queue[lane] = other.pop(lane)

    def _serve_waiting(self) -> None:
        if self._serving:
            # A lane gave its place back at once: the loop below goes on.
            return
        self._serving = True
        try:
            for pace, waiting in self._waiting.items():
                while waiting and self._is_free(pace):
                    lane, grant = next(iter(waiting.items()))
                    del waiting[lane]
                    grant(self._take(lane, pace))
        finally:
            self._serving = False


class FetchBudget:
    """Bounds the bodies that all lanes together hold in memory."""

    def __init__(self, total: int = FETCH_BYTES_IN_ALL) -> None:
        self._left = total

    def allowance(self) -> int:
        """How many bytes a lane may fetch now. 0 still brings one message, so that every lane goes on."""
        return max(0, min(FETCH_BYTES, self._left))

    def take(self, size: int) -> None:
        """Bytes were fetched."""
        self._left -= size

    def give_back(self, size: int) -> None:
        """Bytes that were fetched are no longer held."""
        self._left += size

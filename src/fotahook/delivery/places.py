"""Shares what a dispatcher has between its lanes: places in flight, and memory for what is fetched ahead.

A lane is *quick* while its attempts end soon, *slow* once one of them takes long, and *new* before either is known.
Slow lanes have places of their own, and new ones at most half of the others, each for a moment: whoever hangs leaves
quick lanes theirs.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from fotahook.store.base import Store
from fotahook.store.records import FETCH_BYTES, Delivery, Health, Lease, Settlement, StoreError

from .deadline import DeadlineQueue

SLOW_SECONDS: Final = 1.0
NEW_SECONDS: Final = 0.1
"""An attempt of a new lane that takes longer counts with those of slow lanes: other new lanes have their turn."""
SLOW_MEMORY_SECONDS: Final = 60.0
KNOWN_LIMIT: Final = 65_536
FETCH_BYTES_IN_ALL: Final = 16 * 1024 * 1024
"""For the quick lanes, and again for all others."""
TURN_DELIVERIES: Final = 100
FETCH_SECONDS: Final = 0.25
FETCH_SECONDS_CAP: Final = 1.0
"""The delay before new deliveries are looked for while attempts run doubles up to the cap while none are found."""

Pace = Literal["quick", "new", "slow"]


class FetchBudget:
    """Bounds the bodies that all lanes together hold in memory."""

    def __init__(self, total: int = FETCH_BYTES_IN_ALL) -> None:
        self._left = total

    def allowance(self) -> int:
        """How many bytes a lane may fetch now. 0 still brings one message, so that every lane goes on."""
        return max(0, min(FETCH_BYTES, self._left))

    def take(self, size: int) -> None:
        """Bytes were fetched; a negative number of them is given back."""
        self._left -= size


class Stock:
    """A lane's deliveries in memory, within the budget of its pace. `budget` returns the one that counts now."""

    def __init__(self, budget: Callable[[], FetchBudget]) -> None:
        self.ready: deque[Delivery] = deque()
        self.fetch_seconds = FETCH_SECONDS
        self.may_have_more = True
        self._sizes: dict[int, int] = {}
        self._bytes = 0
        self._find_budget = budget
        self._budget = budget()
        self._limit = TURN_DELIVERIES
        self._handed: set[int] | None = None

    def __len__(self) -> int:
        return len(self._sizes)

    @property
    def budget(self) -> FetchBudget:
        """The memory that it takes from: that of other lanes if its pace changed."""
        budget = self._find_budget()
        if budget is not self._budget:
            self._budget.take(-self._bytes)
            budget.take(self._bytes)
            self._budget = budget
        return budget

    async def fetch(self, store: Store, lease: Lease, limit: int) -> list[Delivery]:
        """Fetch up to `limit` due deliveries; those that are new. StoreError or MemoryError if that failed."""
        budget, limit = self.budget, min(limit, self._limit)
        max_bytes = budget.allowance()
        self.may_have_more, self._handed = False, set()
        # Lanes that fetch at the same time must not all count on the same bytes.
        budget.take(max_bytes)
        try:
            # A delivery that is settled while the answer is on its way may still be in that answer.
            found = await store.fetch(lease, limit, without=tuple(self._sizes), max_bytes=max_bytes)
            new = [delivery for delivery in found if delivery.seq not in self._handed]
        except (StoreError, MemoryError) as error:
            self.may_have_more = True
            if isinstance(error, MemoryError):
                self._limit = 1
            raise
        finally:
            self._handed = None
            budget.take(-max_bytes)
        size = sum([len(delivery.body) for delivery in found])
        self.may_have_more |= bool(found) and (len(found) == limit or size >= max_bytes)
        self.fetch_seconds = FETCH_SECONDS if found else min(2 * self.fetch_seconds, FETCH_SECONDS_CAP)
        return self._add(new)

    def take(self, handed: Sequence[Delivery], limit: int) -> list[Delivery] | None:
        """Take what was handed over, and return what is new of it; None if it is more than `limit`, or than memory."""
        few = len(self) + len(handed) <= limit
        if not few or sum([len(delivery.body) for delivery in handed]) > self.budget.allowance():
            return None
        new = [delivery for delivery in handed if delivery.seq not in self._sizes]
        if self._handed is not None:
            self._handed.update([delivery.seq for delivery in new])
        return self._add(new)

    def _add(self, new: list[Delivery]) -> list[Delivery]:
        sizes = {delivery.seq: len(delivery.body) for delivery in new}
        self._sizes |= sizes
        self._change(sum(sizes.values()))
        return new

    def settle(self, settled: Iterable[Settlement]) -> None:
        self._change(-sum([self._sizes.pop(each.delivery.seq) for each in settled]))

    def clear(self) -> None:
        self.ready.clear()
        self._sizes.clear()
        self._change(-self._bytes)

    def _change(self, size: int) -> None:
        self.budget.take(size)
        self._bytes += size


@dataclass(slots=True, eq=False)
class Seat:
    """A lane while it is served: how long its attempts take, and how many of those in flight have taken long."""

    lane: int
    pace: Pace
    long: int = 0
    served: bool = True


@dataclass(slots=True, eq=False)
class Place:
    """One attempt's right to be in flight."""

    seat: Seat
    pace: Pace


Grant = Callable[[Place], None]


class Places:
    """Gives out places in flight. `total` are for quick and new lanes; slow ones share half as many of their own."""

    def __init__(self, total: int, *, on_slow: Callable[[], None] = lambda: None) -> None:
        self.slow_lanes = 0
        """How many of the lanes that are served are slow, or have an attempt in flight that takes long."""
        self.quick_budget, self.other_budget = FetchBudget(), FetchBudget()
        self._total = total
        self._on_slow = on_slow
        self._new_limit = self._slow_limit = max(1, total // 2)
        self._taken: dict[Pace, int] = {"quick": 0, "new": 0, "slow": 0}
        self._waiting: dict[Pace, dict[Seat, Grant]] = {"quick": {}, "new": {}, "slow": {}}
        self._slow_until: OrderedDict[int, float] = OrderedDict()
        self._serving = False
        self._long_lanes = 0
        self._young = DeadlineQueue[Place](SLOW_SECONDS, self._on_long)
        self._of_new = DeadlineQueue[Place](NEW_SECONDS, self._count_as_slow)

    def budget(self, seat: Seat) -> FetchBudget:
        return self.quick_budget if seat.pace == "quick" else self.other_budget

    def share(self, seat: Seat) -> int | None:
        """How many places a lane may take at once if they are scarce for lanes of its pace, else None."""
        if seat.pace == "slow":
            return max(1, self._slow_limit // (self._long_lanes + (not seat.long)))
        return 1 if seat.pace == "new" and self._taken["new"] >= self._new_limit // 2 else None

    def begin(self, lane: int, health: Health) -> Seat:
        """A lane begins to be served. Unless more is known of it, its recent answers say whether it is quick."""
        seat = Seat(lane, "new")
        self._set_pace(seat, self._known_pace(lane))
        if seat.pace == "new" and health.failed == 0 and 0 < health.latency < SLOW_SECONDS:
            self._remember(seat, slow=False)
        return seat

    def end(self, seat: Seat) -> None:
        self._waiting[seat.pace].pop(seat, None)
        self.slow_lanes -= seat.pace == "slow"
        seat.served = False

    def take(self, seat: Seat) -> Place | None:
        """A place for an attempt of this lane, if one is free for it and nobody waits."""
        return None if self._waiting[seat.pace] or not self._is_free(seat.pace) else self._take(seat)

    def wait(self, seat: Seat, grant: Grant) -> None:
        """Call `grant` with a place as soon as it is this lane's turn. A lane waits for one place at a time."""
        self._waiting[seat.pace][seat] = grant

    def release(self, place: Place, *, used: bool) -> None:
        """Give a place back. `used`: an attempt was made, and how long it took says whether the lane is slow."""
        seat, pace = place.seat, place.pace
        self._taken[pace] -= 1
        was_quick = self._young.remove(place)
        if pace == "slow":
            self._count_long(seat, -1)
            if not seat.long:
                self._set_pace(seat, self._known_pace(seat.lane))
        elif pace == "new":
            self._of_new.remove(place)
        if used and not (was_quick and seat.pace == "quick"):
            self._remember(seat, slow=not was_quick)
        if any(self._waiting.values()):
            self._serve_waiting()

    def _known_pace(self, lane: int) -> Pace:
        until = self._slow_until.get(lane)
        if until == 0:
            return "quick"
        return "slow" if until is not None and asyncio.get_running_loop().time() < until else "new"

    def _is_free(self, pace: Pace) -> bool:
        taken = self._taken
        if pace == "slow":
            return taken["slow"] < self._slow_limit
        return (pace == "quick" or taken["new"] < self._new_limit) and taken["quick"] + taken["new"] < self._total

    def _take(self, seat: Seat) -> Place:
        pace = seat.pace
        place = Place(seat, pace)
        self._taken[pace] += 1
        self._young.add(place)
        if pace == "slow":
            self._count_long(seat, 1)
        elif pace == "new":
            self._of_new.add(place)
        return place

    def _count_long(self, seat: Seat, change: int) -> None:
        self._long_lanes -= seat.long > 0
        seat.long += change
        self._long_lanes += seat.long > 0

    def _remember(self, seat: Seat, *, slow: bool) -> None:
        self._slow_until[seat.lane] = asyncio.get_running_loop().time() + SLOW_MEMORY_SECONDS if slow else 0
        self._slow_until.move_to_end(seat.lane)
        if len(self._slow_until) > KNOWN_LIMIT:
            self._slow_until.popitem(last=False)
        self._set_pace(seat, "slow" if slow or seat.long else "quick")

    def _on_long(self, place: Place) -> None:
        self._remember(place.seat, slow=True)
        self._count_as_slow(place)

    def _count_as_slow(self, place: Place) -> None:
        """Count an attempt that takes long with those of slow lanes, even beyond their number: it is in flight."""
        if place.pace == "slow":
            return
        self._taken[place.pace] -= 1
        self._taken["slow"] += 1
        place.pace = "slow"
        self._count_long(place.seat, 1)
        self._set_pace(place.seat, "slow")
        self._serve_waiting()
        self._on_slow()

    def _set_pace(self, seat: Seat, pace: Pace) -> None:
        if (grant := self._waiting[seat.pace].pop(seat, None)) is not None:
            self._waiting[pace][seat] = grant
        if seat.served:
            self.slow_lanes += (pace == "slow") - (seat.pace == "slow")
        seat.pace = pace

    def _serve_waiting(self) -> None:
        if self._serving:
            # A lane gave its place back at once: the loop below goes on.
            return
        self._serving = True
        try:
            for pace, waiting in self._waiting.items():
                while waiting and self._is_free(pace):
                    seat = next(iter(waiting))
                    grant = waiting.pop(seat)
                    grant(self._take(seat))
        finally:
            self._serving = False

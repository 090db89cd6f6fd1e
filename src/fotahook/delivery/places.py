"""Shares what a dispatcher has between its lanes: places in flight, and memory for what is fetched ahead.

A lane is *quick* while its attempts end soon, *slow* once one of them takes long, and *new* before either is known.
Slow lanes have places of their own, and new ones at most half of the others: whoever hangs leaves quick lanes theirs.
"""

import asyncio
from collections import Counter, OrderedDict, deque
from typing import Final, Literal

from fotahook.store.records import FETCH_BYTES

SLOW_SECONDS: Final = 1.0
"""An attempt that takes longer makes its lane slow."""
SLOW_MEMORY_SECONDS: Final = 60.0
"""How long a lane stays slow after its last slow attempt."""
KNOWN_LIMIT: Final = 65_536
"""Lanes whose pace is remembered."""
FETCH_BYTES_IN_ALL: Final = 32 * 1024 * 1024

Pace = Literal["quick", "new", "slow"]


class Place:
    """One attempt's right to be in flight."""

    __slots__ = ("lane", "pace", "started_at")

    def __init__(self, lane: int, pace: Pace, started_at: float) -> None:
        self.lane = lane
        self.pace = pace
        self.started_at = started_at


class Places:
    """Gives out places in flight. `total` are for quick and new lanes; slow ones share half as many of their own."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._new_limit = max(1, total // 2)
        self._slow_limit = max(1, total // 2)
        self._taken: Counter[Pace] = Counter()
        self._waiting: dict[Pace, deque[tuple[int, asyncio.Future[Place]]]] = {
            "quick": deque(),
            "new": deque(),
            "slow": deque(),
        }
        self._slow_until: OrderedDict[int, float] = OrderedDict()
        """By lane: until when it is slow, or 0 for a quick one."""
        self._slow_in_flight: Counter[int] = Counter()
        self._in_flight: dict[Place, None] = {}
        """Places that are not slow yet, the longest taken first."""
        self._timer: asyncio.TimerHandle | None = None

    @property
    def hanging(self) -> int:
        """How many lanes have an attempt in flight that takes long."""
        return len(self._slow_in_flight)

    def share(self, lane: int) -> int | None:
        """How many places a slow lane may take at once; None for a lane that is not slow."""
        if self.pace(lane) != "slow":
            return None
        lanes = len(self._slow_in_flight) + (lane not in self._slow_in_flight)
        return max(1, self._slow_limit // lanes)

    def take(self, lane: int) -> Place | None:
        """A place for an attempt of this lane, if one is free for it now."""
        pace = self.pace(lane)
        return self._take(lane, pace) if not self._waiting[pace] and self._is_free(pace) else None

    async def acquire(self, lane: int) -> Place:
        """A place for an attempt of this lane, as soon as one is free for it."""
        if (place := self.take(lane)) is not None:
            return place
        pace = self.pace(lane)
        future: asyncio.Future[Place] = asyncio.get_running_loop().create_future()
        self._waiting[pace].append((lane, future))
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self.release(future.result(), used=False)
            raise

    def release(self, place: Place, *, used: bool) -> None:
        """Give a place back. `used`: an attempt was made, and how long it took says whether the lane is slow."""
        self._taken[place.pace] -= 1
        if place.pace == "slow":
            self._slow_in_flight[place.lane] -= 1
            if self._slow_in_flight[place.lane] <= 0:
                del self._slow_in_flight[place.lane]
        else:
            del self._in_flight[place]
        if used:
            now = asyncio.get_running_loop().time()
            self._remember(place.lane, slow=now - place.started_at >= SLOW_SECONDS, now=now)
        self._serve_waiting()

    def pace(self, lane: int) -> Pace:
        """How long the attempts of a lane take."""
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
        loop = asyncio.get_running_loop()
        place = Place(lane, pace, loop.time())
        self._taken[pace] += 1
        if pace == "slow":
            self._slow_in_flight[lane] += 1
        else:
            self._in_flight[place] = None
            if self._timer is None:
                self._timer = loop.call_later(SLOW_SECONDS, self._find_slow)
        return place

    def _remember(self, lane: int, *, slow: bool, now: float) -> None:
        if not slow and self._slow_until.get(lane) == 0:
            return
        self._slow_until[lane] = now + SLOW_MEMORY_SECONDS if slow else 0
        self._slow_until.move_to_end(lane)
        if len(self._slow_until) > KNOWN_LIMIT:
            self._slow_until.popitem(last=False)

    def _find_slow(self) -> None:
        """Count attempts that take long with those of slow lanes, even beyond their number: they are in flight."""
        loop = asyncio.get_running_loop()
        self._timer = None
        while self._in_flight:
            place = next(iter(self._in_flight))
            due = place.started_at + SLOW_SECONDS
            if due > loop.time():
                self._timer = loop.call_at(due, self._find_slow)
                break
            del self._in_flight[place]
            self._taken[place.pace] -= 1
            place.pace = "slow"
            self._taken["slow"] += 1
            self._slow_in_flight[place.lane] += 1
            self._remember(place.lane, slow=True, now=loop.time())
        self._serve_waiting()

    def _serve_waiting(self) -> None:
        for pace, waiting in self._waiting.items():
            while waiting and self._is_free(pace):
                lane, future = waiting.popleft()
                if not future.done():
                    future.set_result(self._take(lane, pace))


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

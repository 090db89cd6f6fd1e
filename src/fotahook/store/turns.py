"""Whose work goes into the next transaction: each owner's turn comes the later the more it had done already."""

import heapq
from collections.abc import Callable, Hashable, Sequence
from itertools import count
from typing import Final, Generic, TypeVar

from .records import NewMessage

T = TypeVar("T")

LIMIT: Final = 1000
"""Weight of the work in one transaction, so that the first of it does not wait too long."""
LARGE_BYTES: Final = 16 * 1024
"""Bytes of bodies that count as another message."""


class Turns(Generic[T]):
    """A queue with start-time fair queueing: who brings little never waits for all that somebody else brought before.

    What is heavier than the limit is taken alone, and alternates with lighter work that comes meanwhile.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._waiting: list[tuple[int, int, int, T]] = []
        """A heap of start, number, weight and item; the start is how much its owner's work weighed before."""
        self._ends: dict[Hashable, int] = {}
        self._now = 0
        """The start of what was taken last: where an owner begins that brought nothing lately."""
        self._numbers = count()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, item: T, owner: Hashable = None, weight: int = 1) -> None:
        """Queue an item behind those of its owner."""
        start = max(self._now, self._ends.get(owner, 0))
        self._ends[owner] = start + weight
        heapq.heappush(self._waiting, (start, next(self._numbers), weight, item))

    def take(self, fits: Callable[[T], bool] = lambda item: True) -> list[T]:
        """The next items: of at most the limit together, or one; the first that does not fit ends them."""
        taken: list[T] = []
        room = self._limit
        while self._waiting:
            start, number, weight, item = self._waiting[0]
            if not fits(item) or (taken and weight > room):
                # Others went before it, so it goes first next; not if that was one heavy item, perhaps its owner's.
                if room >= 0:
                    heapq.heapreplace(self._waiting, (-1, number, weight, item))
                break
            heapq.heappop(self._waiting)
            room -= weight
            self._now = max(self._now, start)
            taken.append(item)
        ends = self._ends.items() if self._waiting else ()
        self._ends = {owner: end for owner, end in ends if end > self._now}
        return taken


def accept_turn(messages: Sequence[NewMessage]) -> tuple[str | None, int]:
    """The owner and the weight of messages that one caller publishes."""
    owner = messages[0].account if messages else None
    return owner, len(messages) + sum(len(message.body) for message in messages) // LARGE_BYTES

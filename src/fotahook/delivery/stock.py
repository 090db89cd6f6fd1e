"""What a lane holds in memory: deliveries that are fetched or were handed over, until they are settled."""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from fotahook.store.base import Store
from fotahook.store.records import Delivery, Lease, Settlement, StoreError

from .places import FetchBudget

TURN_DELIVERIES: Final = 100
FETCH_SECONDS: Final = 0.25
FETCH_SECONDS_CAP: Final = 1.0
"""The delay before new deliveries are looked for while attempts run doubles up to the cap while none are found."""


class Stock:
    """A lane's deliveries in memory, within the budget of its pace. `budget` returns the one that counts now."""

    def __init__(self, budget: Callable[[], FetchBudget]) -> None:
        self.ready: deque[Delivery] = deque()
        self.fetch_seconds = FETCH_SECONDS
        self.may_have_more = True
        self._sizes: dict[int, int] = {}
        """Bytes of those that are not settled, by number."""
        self._bytes = 0
        self._find_budget = budget
        self._budget = budget()
        self._limit = TURN_DELIVERIES
        self._handed: set[int] | None = None
        """Those that were handed over during a fetch, whose answer may have them too."""

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

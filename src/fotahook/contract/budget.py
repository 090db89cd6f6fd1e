"""A quantity that clients share, such as memory for bodies or places in a queue."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Budget:
    """One client may hold as much as stays free for others: alone half of it, beside another greedy one a third."""

    def __init__(self, size: int) -> None:
        self._free = size
        self._held = Counter[str]()

    @contextmanager
    def share(self, client: str) -> Iterator[Callable[[int], bool]]:
        """A function that takes an amount for a client; False if it would be too much. The end gives all of it back."""
        taken = 0

        def take(amount: int) -> bool:
            nonlocal taken
            if self._held[client] + amount > self._free - amount:
                return False
            self._free -= amount
            self._held[client] += amount
            taken += amount
            return True

        try:
            yield take
        finally:
            self._free += taken
            self._held[client] -= taken
            if not self._held[client]:
                del self._held[client]

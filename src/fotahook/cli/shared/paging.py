"""Lists that a service gives in pages, read to their end or to a limit."""

from collections.abc import Callable, Iterator, Sequence
from typing import Final, Generic, TypeVar

from .errors import UsageError

PAGE: Final = 200
"""The most that the service puts into one page."""

T = TypeVar("T")

Ask = Callable[[str | None, int], tuple[Sequence[T], str | None]]
"""Asks for a page of so many from a cursor on: what is in it, and the cursor of the next one."""


class Pages(Generic[T]):
    """The pages of a list, each asked for when its turn comes; no more than `limit` of what is listed, 0 for all."""

    def __init__(self, ask: Ask[T], limit: int = 0) -> None:
        if limit < 0:
            raise UsageError(f"--limit {limit}: choose 1 or more, or 0 for all")
        self._ask = ask
        self._limit = limit
        self.more = False
        """Whether the limit has left something out; known at the end."""

    def __iter__(self) -> Iterator[Sequence[T]]:
        cursor, left = None, self._limit
        while True:
            found, cursor = self._ask(cursor, min(PAGE, left) if self._limit else PAGE)
            yield found
            left -= len(found)
            if cursor is None:
                return
            if self._limit and left <= 0:
                self.more = True
                return

"""Counts the turns of the event loop, which a test compares with what happens beside them."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def counted_turns() -> Iterator[Callable[[], int]]:
    """Returns how many turns the loop had since; others had theirs in as many."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    try:
        yield lambda: turns
    finally:
        counting.cancel()

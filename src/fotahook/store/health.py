"""Whether a store can be written, found out by trying; for whoever asks for health."""

import asyncio
import math
from collections.abc import Callable
from typing import Final

from .base import Store, StoreError

PAUSE_SECONDS: Final = 1.0
"""Between two looks: whoever asks more often hears the last answer again."""


class Pulse:
    """Tries an open store, once a second at the most, however many ask. Belongs to one event loop.

    `tell` hears of each trouble once, until another one comes or the store is well in between.
    """

    def __init__(self, store: Store, tell: Callable[[StoreError], None] = lambda trouble: None) -> None:
        self._store = store
        self._tell = tell
        self._looking = asyncio.Lock()
        self._looked_at = -math.inf
        self._trouble: StoreError | None = None

    async def trouble(self) -> StoreError | None:
        """Why the store cannot be written; None if it can."""
        async with self._looking:
            if asyncio.get_running_loop().time() - self._looked_at >= PAUSE_SECONDS:
                trouble = await self._look()
                if trouble is not None and str(trouble) != str(self._trouble):
                    self._tell(trouble)
                self._trouble = trouble
                self._looked_at = asyncio.get_running_loop().time()
            return self._trouble

    async def _look(self) -> StoreError | None:
        try:
            await self._store.check()
        except StoreError as error:
            return error
        return None

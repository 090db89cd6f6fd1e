"""Whether an inbox takes messages, found out by trying; for whoever asks for health."""

import asyncio
import logging
import math
from typing import Final

from fotahook.store import Store
from fotahook.store.base import StoreError

log = logging.getLogger("fotahook.listener")

PAUSE_SECONDS: Final = 1.0
"""Between two looks: whoever asks more often hears the last answer again."""


class Pulse:
    """Tries an open store, once a second at the most, however many ask. Belongs to one event loop."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._looking = asyncio.Lock()
        self._looked_at = -math.inf
        self._trouble: StoreError | None = None

    async def trouble(self) -> StoreError | None:
        """Why the store cannot be written; None if it can."""
        async with self._looking:
            if asyncio.get_running_loop().time() - self._looked_at >= PAUSE_SECONDS:
                trouble = await self._look()
                if trouble is not None and str(trouble) != str(self._trouble):
                    log.error("the inbox is away: %s", trouble)
                self._trouble = trouble
                self._looked_at = asyncio.get_running_loop().time()
            return self._trouble

    async def _look(self) -> StoreError | None:
        try:
            await self._store.check()
        except StoreError as error:
            return error
        return None

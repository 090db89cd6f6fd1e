"""The health check of a store: whether a write reaches the disk."""

import asyncio
import math
from collections.abc import Callable
from typing import Final

from .base import Store
from .records import StoreError

INTERVAL_SECONDS: Final = 1.0
"""How long the result of a check is kept."""


class StoreHealth:
    """Checks an open store, and keeps the result for one second. Belongs to one event loop.

    `on_error` gets each error once, until another one occurs or a check succeeds.
    """

    def __init__(self, store: Store, on_error: Callable[[StoreError], None] = lambda error: None) -> None:
        self._store = store
        self._on_error = on_error
        self._lock = asyncio.Lock()
        self._checked_at = -math.inf
        self._error: StoreError | None = None

    async def error(self) -> StoreError | None:
        """Why the store cannot be written; None if it can."""
        async with self._lock:
            if asyncio.get_running_loop().time() - self._checked_at >= INTERVAL_SECONDS:
                try:
                    await self._store.check()
                    self._error = None
                except StoreError as error:
                    if str(error) != str(self._error):
                        self._on_error(error)
                    self._error = error
                self._checked_at = asyncio.get_running_loop().time()
            return self._error

"""Background maintenance of a store: bulk redelivery and retention, in small steps."""

import asyncio
import logging
from typing import Final

from fotahook.store.base import Store
from fotahook.store.records import Retention, StoreError

log = logging.getLogger("fotahook.delivery")

PAUSE_SECONDS: Final = 1.0
"""Between two checks for work."""


async def run_maintenance(store: Store, retention: Retention) -> None:
    """Run maintenance until cancelled. Deliveries can run between any two steps."""
    while True:
        try:
            more = await store.tidy(retention)
        except StoreError as error:
            log.warning("redelivery and retention wait for the store: %s", error)
            more = False
        if not more:
            await asyncio.sleep(PAUSE_SECONDS)

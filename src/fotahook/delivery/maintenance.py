"""What a store has to do beside delivering: redeliveries of many, and retention; always a small step at a time."""

import asyncio
import logging
from typing import Final

from fotahook.store.base import Store
from fotahook.store.records import Retention, StoreError

log = logging.getLogger("fotahook.delivery")

PAUSE_SECONDS: Final = 1.0
"""Between two looks at whether there is anything to do."""


async def run_maintenance(store: Store, retention: Retention) -> None:
    """Do what can wait, step by step, until cancelled. Deliveries get their turn between any two steps."""
    while True:
        try:
            more = await store.tidy(retention)
        except StoreError as error:
            log.warning("the store is away, redelivery and retention wait: %s", error)
            more = False
        if not more:
            await asyncio.sleep(PAUSE_SECONDS)

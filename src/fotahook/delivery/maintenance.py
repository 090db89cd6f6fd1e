"""Background maintenance of a store: bulk redelivery and retention, in small steps."""

import asyncio
import logging
import time
from typing import Final

from fotahook.store.base import Store
from fotahook.store.records import Retention, StoreError

log = logging.getLogger("fotahook.delivery")

PAUSE_SECONDS: Final = 1.0
"""Between two checks for work."""
LEDGER_SECONDS: Final = 180 * 86400.0
"""How long the ledger keeps a status. ThingSpace keeps its own history for six months."""
_DAY: Final = 86400.0
_STEP: Final = 1000


async def run_maintenance(store: Store, retention: Retention) -> None:
    """Run maintenance until cancelled. Deliveries can run between any two steps."""
    forget_at = time.monotonic()
    while True:
        try:
            more = await store.tidy(retention)
            if not more and time.monotonic() >= forget_at:
                forget_at = time.monotonic() + _DAY
                await forget_reports(store)
        except StoreError as error:
            log.warning("redelivery and retention wait for the store: %s", error)
            more = False
        if not more:
            await asyncio.sleep(PAUSE_SECONDS)


async def forget_reports(store: Store) -> None:
    """Remove the statuses from the ledger that are too old."""
    after = 0
    while found := await store.ledger_campaigns(after=after, limit=100):
        after = found[-1].id
        for one in found:
            while await store.forget_reports(one.id, LEDGER_SECONDS, _STEP):
                pass

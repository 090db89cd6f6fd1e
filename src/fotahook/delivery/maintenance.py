"""Background maintenance of a store: bulk redelivery and retention, in small steps."""

import asyncio
import logging
import math
import time
from collections.abc import Callable
from typing import Final

from fotahook.store.base import Store
from fotahook.store.records import Retention, StoreError

from .runtime import JUMP_SECONDS, ClockWatch

log = logging.getLogger("fotahook.delivery")

PAUSE_SECONDS: Final = 1.0
LEDGER_SECONDS: Final = 180 * 86400.0
"""How long the ledger keeps a status. ThingSpace keeps its own history for six months."""
_DAY: Final = 86400.0
_STEP: Final = 1000


async def run_maintenance(
    store: Store, retention: Retention, *, longest_wait: float, monotonic: Callable[[], float] = time.monotonic
) -> None:
    """Run maintenance until cancelled. Deliveries can run between any two steps.

    A lane that is due only after `longest_wait` seconds was written while the clock was ahead, and is due now.
    Nothing is removed for its age until the clock has run steadily for ten minutes: it may be wrong from the start.
    """
    watch, was_steady, forget_at = ClockWatch(monotonic, believed=False), False, monotonic()
    while True:
        try:
            now = await store.now()
            is_steady = watch.is_steady(now)
            if was_steady and not is_steady:
                log.warning("the store's clock jumped: nothing old is removed until it is steady for ten minutes")
            was_steady = is_steady
            while found := await store.recall(JUMP_SECONDS if watch.went_back else longest_wait, _STEP):
                log.warning("%d lanes waited for a time that the clock jumped back from: they are due now", found)
            more = await store.tidy(retention, now=now if is_steady else -math.inf)
            if is_steady and not more and monotonic() >= forget_at:
                forget_at = monotonic() + _DAY
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

"""Days: partitions of the bodies and attempts of a day's messages, made ahead, and dropped once all in them are old."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from ..records import Pruned, Retention
from ..views import Row

DAY: Final = 86400
AHEAD: Final = 7
"""Days that have partitions before they begin. Rows of a day without one are in the default partition."""
BUSY_SECONDS: Final = 10.0
"""Pause after a lock was not to be had: while it is waited for, accepting and settling wait behind it."""


class Days:
    """What this process has made and dropped. `change` runs a statement in a transaction that is on disk at the end."""

    def __init__(self, change: Callable[..., Awaitable[Sequence[Row]]]) -> None:
        self._change = change
        self._made = -1.0
        self._kept_from = {"bodies": -math.inf, "attempts": -math.inf}
        self._left: set[tuple[str, int]] = set()
        """Days that hold too much that is needed, or fail to be dropped: their rows are removed one by one."""

    async def make(self, now: float) -> None:
        """Make the partitions of today and of the next days, by the server's clock: once a day, and at a first -inf."""
        if (day := max(now, 0.0) // DAY) != self._made:
            (done,) = await self._change("make_days", ahead=AHEAD)
            if done["made"]:
                self._made = day
            else:
                await asyncio.sleep(BUSY_SECONDS)

    async def drop(self, retention: Retention, excess: int, now: float) -> Pruned | None:
        """Drop the oldest day that is older than what is kept, or no larger than `excess`, but what is needed of it.

        None if there is none.
        """
        bodies = math.inf if retention.seconds is None else retention.seconds
        attempts = math.inf if retention.attempts is None else max(retention.attempts, bodies)
        for parent, age, most in (("bodies", bodies, excess), ("attempts", attempts, 0)):
            # Not a number, which is no later than any day, if nothing is old.
            kept_from = (now - age) // DAY
            if not (kept_from > self._kept_from[parent] or most > 0):
                continue
            for each in await self._change("days", parent=parent):
                day = each["day"]
                is_small = each["bytes"] <= most and day < now // DAY
                if (day < kept_from or is_small) and (parent, day) not in self._left:
                    # One that fails, as one that takes too long, is not tried again today.
                    self._left.add((parent, day))
                    (found,) = await self._change("drop_day", parent=parent, day=day, before=float(kept_from * DAY))
                    if found["busy"]:
                        self._left.remove((parent, day))
                        await asyncio.sleep(BUSY_SECONDS)
                        return Pruned(bodies=0, bytes=0, more=True)
                    if found["dropped"]:
                        return Pruned(bodies=found["dropped"] * (parent == "bodies"), bytes=found["bytes"], more=True)
            if kept_from > self._kept_from[parent]:
                self._kept_from[parent] = kept_from
                self._left = {left for left in self._left if left[0] != parent}
        return None

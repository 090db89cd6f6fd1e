"""Retention: what is old is removed in small steps, oldest first."""

import math
from collections.abc import Mapping
from time import monotonic
from typing import Final

from .event_reader import thin_out
from .message_verbs import REDELIVERY_STEP, MessageVerbs, step_redelivery
from .records import Pruned, Record, Retention
from .session import Session

MEASURE_SHARE: Final = 20.0
"""A store is measured no sooner than after so many times the time that it took."""


class Sweep(Record, frozen=True, kw_only=True):
    """One step through what is swept: what it found removable, and where the next step begins (0: at the oldest)."""

    numbers: tuple[int, ...] = ()
    after: int = 0
    excess: int = 0
    """Bytes that are to be removed whatever their age."""


class RetentionVerbs(MessageVerbs):
    """Base of the stores, for maintenance."""

    def __init__(self) -> None:
        super().__init__()
        self._sweeps: Mapping[str, Sweep] = {}
        self._excess_bytes = self._merged_minute = 0
        self._measure_at = 0.0

    async def tidy(self, retention: Retention, *, now: float | None = None) -> bool:
        """One small step of maintenance: bulk redeliveries, then retention. True if there is more to do now.

        Ages are taken at `now`: a reading of the store's clock that the caller believes, or -inf, at which nothing is
        old. By default the clock is read.
        """
        if await self._write(step_redelivery):
            self._notify()
            return True
        time = await self.now() if now is None else now
        thinning, self._merged_minute = await self._write(lambda db: thin_out(db, self._merged_minute, time))
        return (await self.prune(retention, now=time)).more or thinning

    async def prune(self, retention: Retention, *, now: float | None = None) -> Pruned:
        """One small step of retention alone."""
        time = await self.now() if now is None else now
        # Found outside of a write transaction, so that no delivery waits for it.
        excess = await self._excess(retention)
        if (dropped := await self._drop_day(retention, excess, time)) is not None:
            return dropped
        found = await self._look(lambda db: find_removable(db, retention, self._sweeps, excess, time))
        removable = any(sweep.numbers for sweep in found.values())
        sizes = await self._write(lambda db: remove(db, found)) if removable else []
        self._sweeps = found
        more = removable or any(sweep.after for sweep in found.values())
        return Pruned(bodies=len(sizes), bytes=sum(sizes), more=more)

    async def _drop_day(self, retention: Retention, excess: int, now: float) -> Pruned | None:
        """Remove much at once, where a store can; None if there is nothing left for it."""
        return None

    async def _excess(self, retention: Retention) -> int:
        """Bytes above the store's limit. Large stores, in which it takes long, are measured seldom."""
        began = monotonic()
        if retention.bytes is None or (began < self._measure_at and self._excess_bytes <= 0):
            return 0
        kept: int = await self._look(lambda db: db.value("kept_bytes"))
        self._excess_bytes = kept - retention.bytes
        self._measure_at = began + MEASURE_SHARE * (monotonic() - began)
        return self._excess_bytes


async def find_removable(
    db: Session, retention: Retention, last: Mapping[str, Sweep], excess: int, now: float
) -> dict[str, Sweep]:
    """The next steps after the last ones. `excess`: bytes that the store has too many."""
    bodies, attempts, ids = retention.seconds, retention.attempts, retention.ids
    found: dict[str, Sweep] = {}
    for kind, seconds in {"bodies": bodies, "attempts": attempts, "messages": ids, "lanes": bodies}.items():
        before = -math.inf if seconds is None else now - seconds
        step = last.get(kind, Sweep())
        found[kind] = await _next_step(db, kind, step if step.after else Sweep(excess=excess), before)
    return found


async def _next_step(db: Session, kind: str, last: Sweep, before: float) -> Sweep:
    excess = last.excess if kind == "bodies" else 0
    if before == -math.inf and excess <= 0:
        return Sweep()
    found = await db.rows(f"old_{kind}", after=last.after, before=before, limit=REDELIVERY_STEP)
    numbers: list[int] = []
    for row in found:
        if not row["is_old"] and excess <= 0:
            # The rest is younger still.
            return Sweep(numbers=tuple(numbers))
        if not row["blocked"]:
            numbers.append(row["number"])
            excess -= row["size"]
    if len(found) < REDELIVERY_STEP:
        return Sweep(numbers=tuple(numbers))
    return Sweep(numbers=tuple(numbers), after=found[-1]["number"], excess=excess)


async def remove(db: Session, found: Mapping[str, Sweep]) -> list[int]:
    """Remove what was found, except bodies that became pending again; the sizes of the removed bodies."""
    sizes: list[int] = []
    for kind, sweep in found.items():
        numbers = list(sweep.numbers)
        if kind == "bodies" and numbers:
            await db.rows("lock_messages", seqs=numbers)
            sizes = [body["size"] for body in await db.rows("remove_bodies", numbers=numbers)]
        elif numbers:
            if kind == "messages":
                await db.rows("remove_attempts_of", numbers=numbers)
                await db.rows("remove_dead_of", numbers=numbers)
                await db.rows("remove_notes_of", numbers=numbers)
            await db.rows(f"remove_{kind}", numbers=numbers)
            await db.rows("mark_removed", source=kind, number=numbers[-1])
    return sizes

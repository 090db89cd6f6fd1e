"""Retention: what is old is removed in small steps, oldest first."""

import math
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Final, NamedTuple

from .account_verbs import STEP
from .events import STATS_MINUTES
from .message_verbs import REDELIVERY_STEP, MessageVerbs, step_redelivery
from .records import Pruned, Retention
from .session import Session

AUDIT_SECONDS: Final = 400 * 24 * 3600.0
"""How long entries of the audit log are kept: a year, and time to look."""
MEASURE_SHARE: Final = 20.0
"""A store is measured no sooner than after so many times the time that it took."""


class Sweep(NamedTuple):
    """One step through what is swept: what it found removable, where the next step begins (0: at the oldest), and bytes
    that are to be removed whatever their age."""

    numbers: Sequence[int] = ()
    after: int = 0
    excess: int = 0


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
        thinning = await self._write(lambda db: self._thin_out(db, time))
        return (await self.prune(retention, now=time)).more or thinning

    async def prune(self, retention: Retention, *, now: float | None = None) -> Pruned:
        """One small step of retention alone."""
        time = await self.now() if now is None else now
        # Found outside of a write transaction, so that no delivery waits for it.
        excess = await self._excess(retention)
        if (dropped := await self._drop_day(retention, excess, time)) is not None:
            return dropped
        found = await self._look(lambda db: self._find_removable(db, retention, excess, time))
        removable = any(sweep.numbers for sweep in found.values())
        sizes = await self._write(lambda db: _remove(db, found)) if removable else []
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

    async def _thin_out(self, db: Session, now: float) -> bool:
        """Remove old counts and audit entries, and merge the next minute into its hour; whether there may be more."""
        this_minute = int(max(now, 0.0) // 60)
        removed = len(await db.rows("remove_counts", before=this_minute - STATS_MINUTES, limit=STEP))
        removed += len(await db.rows("remove_audit", before=now - AUDIT_SECONDS, limit=STEP))
        # Minutes are kept for this hour and the one before.
        fine = await db.row("next_fine_minute", after=self._merged_minute, before=(this_minute // 60 - 1) * 60)
        if fine is not None:
            await db.rows("merge_minute", minute=fine["minute"])
            await db.rows("drop_minute", minute=fine["minute"])
            self._merged_minute = fine["minute"]
        return removed >= STEP or fine is not None

    async def _find_removable(self, db: Session, retention: Retention, excess: int, now: float) -> dict[str, Sweep]:
        """The next steps after the last ones. `excess`: bytes that the store has too many."""
        ages = (retention.seconds, retention.attempts, retention.ids, retention.seconds)
        found: dict[str, Sweep] = {}
        for kind, seconds in zip(("bodies", "attempts", "messages", "lanes"), ages, strict=True):
            before = -math.inf if seconds is None else now - seconds
            step = self._sweeps.get(kind, Sweep())
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
            return Sweep(numbers)
        if not row["blocked"]:
            numbers.append(row["number"])
            excess -= row["size"]
    return Sweep(numbers) if len(found) < REDELIVERY_STEP else Sweep(numbers, found[-1]["number"], excess)


async def _remove(db: Session, found: Mapping[str, Sweep]) -> list[int]:
    """Remove what was found, except bodies that became pending again; the sizes of the removed bodies."""
    sizes: list[int] = []
    for kind, (numbers, *_) in found.items():
        if kind == "bodies" and numbers:
            await db.rows("lock_messages", seqs=numbers)
            sizes = [body["size"] for body in await db.rows("remove_bodies", numbers=numbers)]
        elif numbers:
            leftovers = ("attempts_of", "dead_of", "notes_of") if kind == "messages" else ()
            for each in (*leftovers, kind):
                await db.rows(f"remove_{each}", numbers=numbers)
            await db.rows("mark_removed", source=kind, number=numbers[-1])
    return sizes

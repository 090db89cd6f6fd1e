"""Retention: what is old is removed in small steps, oldest first."""

from collections.abc import Mapping
from typing import Final

from .records import Record, Retention
from .redelivery import STEP
from .session import Session

SWEPT: Final = ("bodies", "attempts", "messages", "lanes")
"""What retention removes; each has statements of its own. `lanes` are the changes of lanes."""


class Sweep(Record, frozen=True, kw_only=True):
    """One step through what is swept: what it found removable, and where the next step begins (0: at the oldest)."""

    numbers: tuple[int, ...] = ()
    after: int = 0
    excess: int = 0
    """Bytes that are to be removed whatever their age."""


async def find_removable(
    db: Session, retention: Retention, last: Mapping[str, Sweep], excess: int, now: float
) -> dict[str, Sweep]:
    """The next steps after the last ones. `excess`: bytes that the store has too many."""
    ages = {
        "bodies": retention.seconds,
        "attempts": retention.attempts,
        "messages": retention.ids,
        "lanes": retention.seconds,
    }
    befores = {kind: float("-inf") if seconds is None else now - seconds for kind, seconds in ages.items()}
    begin = Sweep(excess=excess)
    return {
        kind: await _next_step(db, kind, step if (step := last.get(kind, begin)).after else begin, before)
        for kind, before in befores.items()
    }


async def _next_step(db: Session, kind: str, last: Sweep, before: float) -> Sweep:
    excess = last.excess if kind == "bodies" else 0
    if before == float("-inf") and excess <= 0:
        return Sweep()
    found = await db.rows(f"old_{kind}", after=last.after, before=before, limit=STEP)
    numbers: list[int] = []
    for row in found:
        if not row["is_old"] and excess <= 0:
            # The rest is younger still.
            return Sweep(numbers=tuple(numbers))
        if not row["blocked"]:
            numbers.append(row["number"])
            excess -= row["size"]
    if len(found) < STEP:
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

"""The verbs about messages: reading them, sending settled ones again, and retention, in small steps, oldest first."""

import math
import os
from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from time import monotonic
from typing import Final, NamedTuple

import msgspec

from fotahook.contract.operator import Attempt

from . import records
from .account_verbs import STEP, AccountVerbs
from .events import STATS_MINUTES
from .records import MessageFilter, Page, Pruned, Redelivery, Retention
from .session import NEWEST, Session
from .views import Row, read

RECENT_MESSAGES: Final = 200
CLOCK_SECONDS: Final = 60.0
"""By which the clock of the process that made an id may differ from the store's."""
SEARCH_STEP: Final = 10_000
SEARCH_EACH: Final = 20
REDELIVERY_STEP: Final = 200
"""Messages that a bulk redelivery sends in one step, so that other writes do not wait long."""
AUDIT_SECONDS: Final = 400 * 24 * 3600.0
MEASURE_SHARE: Final = 20.0
"""A store is measured no sooner than after so many times the time that it took."""


class MessageIds:
    """Ids that never go back, even where the clock does. Not for use by several threads."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._next = 0

    def take(self, count: int) -> list[str]:
        """Fresh ids: each 48 bits of milliseconds, a 12-bit counter within them, 62 random bits."""
        first = max(int(self._clock() * 1000) << 12, self._next)
        self._next = first + count
        digits = os.urandom(8 * count).hex()
        return [_id(f"{first + each:015x}", digits[16 * each : 16 * (each + 1)]) for each in range(count)]


def _id(ordered: str, random: str) -> str:
    return f"{ordered[:8]}-{ordered[8:12]}-7{ordered[12:]}-{'89ab'[int(random[0], 16) % 4]}{random[1:4]}-{random[4:]}"


def first_id(seconds: float) -> str:
    """The beginning of every id made at this time: others of that time, and later ones, sort behind it."""
    milliseconds = f"{min(max(0, int(seconds * 1000)), (1 << 48) - 1):012x}"
    return f"{milliseconds[:8]}-{milliseconds[8:]}"


class Sweep(NamedTuple):
    """A step: what is removable, where the next one begins (0: at the oldest), and bytes to remove at any age."""

    numbers: Sequence[int] = ()
    after: int = 0
    excess: int = 0


class MessageVerbs(AccountVerbs):
    def __init__(self) -> None:
        super().__init__()
        self._sweeps: Mapping[str, Sweep] = {}
        self._excess_bytes = self._merged_minute = 0
        self._measure_at = 0.0

    async def message(self, message_id: str) -> records.Message | None:
        """One message with the status of its deliveries."""

        async def job(db: Session) -> list[records.Message]:
            # PostgreSQL takes no text with NUL.
            return await _messages(db, [] if "\0" in message_id else await db.rows("message", id=message_id))

        return next(iter(await self._run("read", job)), None)

    async def known(self, account: str, key: str, digest: bytes) -> records.Accepted | None:
        """What accepting bytes with this hash comes to, if an earlier message has the idempotency key."""
        row = await self._find_row("known_message", account=account, key=key)
        return records.Accepted(id=row["id"], duplicate=True, conflict=row["sha256"] != digest) if row else None

    async def attempts(self, message_id: str) -> list[Attempt]:
        """Every attempt at a message, oldest first."""
        return await self._list(Attempt, "attempts", id=message_id)

    async def recent_attempts(self, account: str | None, *, limit: int) -> list[tuple[float, Attempt]]:
        """The last attempts, newest first, each behind the time when its message was accepted: of all accounts, or at
        the newest and longest waiting messages of one."""

        async def job(db: Session) -> Sequence[Row]:
            newest = await db.rows("recent", account=account, before=NEWEST, limit=RECENT_MESSAGES)
            # As for a failing endpoint.
            oldest = await db.rows("longest_pending", account=account, limit=RECENT_MESSAGES)
            seqs = {row["seq"] for row in (*newest, *oldest) if row["seq"] is not None}
            return await db.rows("account_attempts", seqs=sorted(seqs), limit=limit)

        rows = await (self._query("recent_attempts", limit=limit) if account is None else self._run("look", job))
        return [(row["accepted_at"], read(Attempt, row)) for row in rows]

    async def messages(self, account: str, matching: MessageFilter, *, before: int | None = None, limit: int) -> Page:
        """An account's messages, newest first, without their bodies: the matching ones among the newest SCAN_LIMIT
        candidates. `before` is the `next` of the last page."""
        # Pending and dead ones have an index, so that a few among many messages are found at once.
        statement = f"recent_{matching.state}" if matching.state in ("pending", "dead") else "recent"

        async def job(db: Session) -> Page:
            first, end = await _span(db, matching, before)
            looked = await db.rows(statement, account=account, before=end, limit=records.SCAN_LIMIT)
            reached: int = looked[-1]["reached"] if len(looked) == records.SCAN_LIMIT else first
            seqs = [row["seq"] for row in looked if row["seq"] is not None]
            return await _page(db, matching, seqs, reached, first, limit)

        return await self._run("look", job)

    async def search_messages(
        self, matching: MessageFilter, *, among: Collection[str] | None, before: int | None = None, limit: int
    ) -> Page:
        """A look through a bounded number of the newest messages of some accounts, or of all, as ``messages`` else. Of
        pending and dead ones, it sees the newest of each account."""

        async def job(db: Session) -> Page:
            first, end = await _span(db, matching, before)
            values = {"among": among, "before": end, "limit": records.SCAN_LIMIT}
            if before is None and matching.state in ("pending", "dead"):
                looked = await db.rows(f"newest_{matching.state}", floor=first, each=SEARCH_EACH, **values)
                page = await _page(db, matching, [row["seq"] for row in looked], first, first, limit)
                if len(page.messages) == limit or len(looked) < records.SCAN_LIMIT:
                    return msgspec.structs.replace(page, next=None)
                # There are many, and few of them match otherwise: look for these.
            times = {"since": matching.since, "until": matching.until}
            floor = max(first, end - SEARCH_STEP)
            looked = await db.rows("newest", floor=floor, type=matching.type, **times, **values)
            reached: int = looked[-1]["seq"] if len(looked) == records.SCAN_LIMIT else floor
            return await _page(db, matching, [row["seq"] for row in looked], reached, first, limit)

        return await self._run("look", job)

    @abstractmethod
    async def accept(self, messages: Sequence[records.NewMessage]) -> list[records.Accepted]:
        """Store messages with their deliveries and make the lanes due; a result for each message, in order."""

    async def redeliver(self, message_id: str, *, as_new: bool = False) -> Redelivery:
        """Send a settled message again: at the tail of its key, with fresh attempts and time to live. It keeps its id,
        so that receivers recognize it; with `as_new` a copy is accepted under a new id."""

        async def job(db: Session) -> Redelivery:
            found = await db.row("message", id=message_id)
            if found is None:
                return Redelivery(refused="unknown")
            if await db.redeliver([found["seq"]], None):
                return Redelivery(id=message_id)
            # Read again, now that the message is locked.
            (found,) = await db.rows("message", id=message_id)
            return Redelivery(refused="pruned" if found["body"] is None else "pending")

        if not as_new:
            return await self._change(job, wakes=True)
        message = await self.message(message_id)
        if message is None or message.body is None:
            return Redelivery(refused="unknown" if message is None else "pruned")
        await self._change(lambda db: db.rows("write_nothing"))
        copy = records.NewMessage(
            account=message.account,
            body=message.body,
            type=message.type,
            ordering_key=message.ordering_key,
            consumers=tuple(delivery.consumer for delivery in message.deliveries),
        )
        (accepted,) = await self.accept([copy])
        return Redelivery(id=accepted.id)

    async def redeliver_all(
        self, account: str, state: records.DeliveryState, *, since: float, until: float, dry_run: bool = False
    ) -> int:
        """Count the settled messages accepted in a time span and in a state; unless `dry_run`, send them again:
        ``tidy`` does it in small steps, after a restart too."""
        (last,) = await self._query("last_message")
        request = {"account": account, "state": state, "since": since, "until": until, "last": last["seq"]}
        count = 0
        after: int | None = 0
        while after is not None:
            # Each look is short, so that other reads get their turn in between.
            find = partial(_find, request=request, after=after, limit=records.SCAN_LIMIT)
            found, after = await self._run("look", find)
            count += len(found)
        if count and not dry_run:
            await self._change(lambda db: db.rows("add_redelivery", **request))
        return count

    async def tidy(self, retention: Retention, *, now: float | None = None) -> bool:
        """One small step of maintenance: bulk redeliveries, then retention. True if there is more to do now. Ages are
        taken at `now`: a reading of the store's clock that the caller believes, or -inf, at which nothing is old."""
        if await self._write(_step_redelivery):
            self._notify()
            return True
        time = await self.now() if now is None else now
        thinning = await self._write(lambda db: self._thin_out(db, time))
        return (await self.prune(retention, now=time)).more or thinning

    async def prune(self, retention: Retention, *, now: float | None = None) -> Pruned:
        """One small step of retention alone."""
        time = await self.now() if now is None else now
        ages = (retention.seconds, retention.attempts, retention.ids, retention.seconds)
        befores = [-math.inf if age is None else time - age for age in ages]
        # Found outside of a write transaction, so that no delivery waits for it.
        excess = await self._excess(retention)
        if (dropped := await self._drop_day(retention, excess, time)) is not None:
            return dropped

        async def find(db: Session) -> dict[str, Sweep]:
            steps = zip(("bodies", "attempts", "messages", "lanes"), befores, strict=True)
            return {kind: await self._next_step(db, kind, before, excess) for kind, before in steps}

        found = await self._run("look", find)
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
        kept: int = await self._run("look", lambda db: db.value("kept_bytes"))
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
            await db.run("merge_minute", "drop_minute", minute=fine["minute"])
            self._merged_minute = fine["minute"]
        return removed >= STEP or fine is not None

    async def _next_step(self, db: Session, kind: str, before: float, excess: int) -> Sweep:
        """The step after the last one. `excess`: bytes that the store has too many, where a sweep begins."""
        last = self._sweeps.get(kind, Sweep())
        excess = 0 if kind != "bodies" else last.excess if last.after else excess
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


async def _span(db: Session, matching: MessageFilter, before: int | None) -> tuple[int, int]:
    """The numbers between which messages are of the right time, by their ids; not below `before`, if that is given."""
    since = "" if matching.since is None else first_id(matching.since - CLOCK_SECONDS)
    # No id begins with g.
    until = "g" if matching.until is None else first_id(matching.until + CLOCK_SECONDS)
    (span,) = await db.rows("span", since=since, until=until)
    is_all = matching.until is None or (span["last_at"] or 0.0) < matching.until
    end = span["last_end"] if is_all else span["end"]
    return span["first"], end if before is None else min(before, end)


async def _page(
    db: Session, matching: MessageFilter, seqs: Sequence[int], reached: int, first: int, limit: int
) -> Page:
    """The matching ones of these; the next page begins where it was looked last, unless that is the first message."""
    found = await db.rows("matching", seqs=seqs, limit=limit, **msgspec.structs.asdict(matching))
    reached = found[-1]["seq"] if len(found) == limit else reached
    return Page(messages=tuple(await _messages(db, found)), next=reached if reached > first else None)


async def _messages(db: Session, found: Sequence[Row]) -> list[records.Message]:
    deliveries: dict[int, list[records.DeliveryStatus]] = {row["seq"]: [] for row in found}
    for row in await db.rows("delivery_statuses", seqs=list(deliveries)):
        deliveries[row["seq"]].append(read(records.DeliveryStatus, row))
    return [read(records.Message, row, deliveries=tuple(deliveries[row["seq"]])) for row in found]


async def _step_redelivery(db: Session) -> bool:
    """Send some messages of the oldest bulk redelivery; False if there is none."""
    request = await db.row("next_redelivery")
    if request is None:
        return False
    seqs, reached = await _find(db, request, request["done"], REDELIVERY_STEP)
    await db.redeliver(seqs, request["state"])
    if reached is None:
        await db.rows("end_redelivery", id=request["id"])
    else:
        await db.rows("advance_redelivery", id=request["id"], done=reached)
    return True


async def _find(db: Session, request: Row, after: int, limit: int) -> tuple[list[int], int | None]:
    """The messages of a bulk redelivery among the next ones after one, and after which to go on; None at the end."""
    looked = await db.rows("following", account=request["account"], after=after, last=request["last"], limit=limit)
    seqs = [row["seq"] for row in looked if row["seq"] is not None]
    wanted = {name: request[name] for name in ("state", "since", "until")}
    found = await db.rows("redeliverable", seqs=seqs, **wanted) if seqs else []
    return [row["seq"] for row in found], looked[-1]["reached"] if len(looked) == limit else None


async def _remove(db: Session, found: Mapping[str, Sweep]) -> list[int]:
    """Remove what was found, except bodies that became pending again; the sizes of the removed bodies."""
    sizes: list[int] = []
    for kind, (numbers, *_) in found.items():
        if kind == "bodies" and numbers:
            await db.rows("lock_messages", seqs=numbers)
            sizes = [body["size"] for body in await db.rows("remove_bodies", numbers=numbers)]
        elif numbers:
            leftovers = ("remove_attempts_of", "remove_dead_of", "remove_notes_of") if kind == "messages" else ()
            await db.run(*leftovers, f"remove_{kind}", numbers=numbers)
            await db.rows("mark_removed", source=kind, number=numbers[-1])
    return sizes

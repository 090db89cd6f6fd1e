"""The verbs of a store about messages, alike on every engine: reading them, and sending settled ones again."""

import os
from abc import abstractmethod
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Final

import msgspec

from . import records
from .account_verbs import AccountVerbs
from .session import NEWEST, Session
from .views import Row, read

RECENT_MESSAGES: Final = 200
"""The newest messages of an account, and those that wait longest, whose attempts are looked at."""
CLOCK_SECONDS: Final = 60.0
"""By which the clock of the process that made an id may differ from the store's."""
SEARCH_STEP: Final = 10_000
"""Numbers of messages that one look of a search goes through."""
SEARCH_EACH: Final = 20
"""Pending or dead messages of a lane that a search looks at."""
REDELIVERY_STEP: Final = 200
"""Messages that a bulk redelivery sends in one step, so that other writes do not wait long."""
_LAST_ID: Final = "g"
_DIGITS: Final = 16
_RANDOM_BYTES: Final = 2048
"""Read from the system at once: a system call for each message costs more than its id."""
_VARIANTS: Final = dict(zip("0123456789abcdef", "89ab" * 4, strict=True))
_COUNTER_BITS: Final = 12


class MessageIds:
    """Ids that never go back, even where the clock does. Not for use by several threads."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._next = 0
        self._random = ""

    def take(self, count: int) -> list[str]:
        """Fresh ids: each 48 bits of milliseconds, a 12-bit counter within them, 62 random bits."""
        first = max(int(self._clock() * 1000) << _COUNTER_BITS, self._next)
        self._next = first + count
        if len(self._random) < _DIGITS * count:
            self._random = os.urandom(max(8 * count, _RANDOM_BYTES)).hex()
        digits, self._random = self._random[: _DIGITS * count], self._random[_DIGITS * count :]
        return [
            _id(f"{first + number:015x}", digits[_DIGITS * number : _DIGITS * (number + 1)]) for number in range(count)
        ]


def first_id(seconds: float) -> str:
    """The beginning of every id made at this time: others of that time, and later ones, sort behind it."""
    milliseconds = f"{min(max(0, int(seconds * 1000)), (1 << 48) - 1):012x}"
    return f"{milliseconds[:8]}-{milliseconds[8:]}"


def _id(ordered: str, random: str) -> str:
    return f"{ordered[:8]}-{ordered[8:12]}-7{ordered[12:]}-{_VARIANTS[random[0]]}{random[1:4]}-{random[4:]}"


class MessageVerbs(AccountVerbs):
    """Base of the stores, for messages and their attempts."""

    async def message(self, message_id: str) -> records.Message | None:
        """One message with the status of its deliveries."""

        async def job(db: Session) -> list[records.Message]:
            return await _messages(db, await db.rows("message", id=message_id))

        # PostgreSQL takes no text with NUL.
        found = [] if "\0" in message_id else await self._read(job)
        return found[0] if found else None

    async def known(self, account: str, key: str, digest: bytes) -> records.Accepted | None:
        """What accepting bytes with this hash comes to, if an earlier message has the idempotency key."""
        row = await self._find_row("known_message", account=account, key=key)
        return records.Accepted(id=row["id"], duplicate=True, conflict=row["sha256"] != digest) if row else None

    async def attempts(self, message_id: str) -> list[records.Attempt]:
        """Every attempt at a message, oldest first."""
        return await self._list(records.Attempt, "attempts", id=message_id)

    async def recent_attempts(self, account: str | None, *, limit: int) -> list[records.RecentAttempt]:
        """The last attempts, newest first: of all accounts, or at the newest and longest waiting messages of one."""

        async def job(db: Session) -> Sequence[Row]:
            newest = await db.rows("recent", account=account, before=NEWEST, limit=RECENT_MESSAGES)
            # As for a failing endpoint.
            oldest = await db.rows("longest_pending", account=account, limit=RECENT_MESSAGES)
            seqs = {row["seq"] for row in (*newest, *oldest) if row["seq"] is not None}
            return await db.rows("account_attempts", seqs=sorted(seqs), limit=limit)

        if account is None:
            return await self._list(records.RecentAttempt, "recent_attempts", limit=limit)
        return [read(records.RecentAttempt, row) for row in await self._look(job)]

    async def messages(
        self, account: str, matching: records.MessageFilter, *, before: int | None = None, limit: int
    ) -> records.Page:
        """An account's messages, newest first, without their bodies; `before` is the `next` of the last page.

        They are the matching ones among the newest SCAN_LIMIT candidates.
        """
        # Pending and dead ones have an index, so that a few among many messages are found at once.
        statement = f"recent_{matching.state}" if matching.state in ("pending", "dead") else "recent"

        async def job(db: Session) -> records.Page:
            first, end = await _span(db, matching, before)
            looked = await db.rows(statement, account=account, before=end, limit=records.SCAN_LIMIT)
            reached: int = looked[-1]["reached"] if len(looked) == records.SCAN_LIMIT else first
            seqs = [row["seq"] for row in looked if row["seq"] is not None]
            return await _page(db, matching, seqs, reached, first, limit)

        return await self._look(job)

    async def search_messages(
        self, matching: records.MessageFilter, *, among: Collection[str] | None, before: int | None = None, limit: int
    ) -> records.Page:
        """A look at the newest messages of some accounts, or of all, for those that match; as ``messages`` else.

        It goes through a bounded number of messages. Of pending and dead ones, it sees the newest of each account.
        """

        async def job(db: Session) -> records.Page:
            first, end = await _span(db, matching, before)
            values = {"among": among, "before": end, "limit": records.SCAN_LIMIT}
            if before is None and matching.state in ("pending", "dead"):
                looked = await db.rows(f"newest_{matching.state}", floor=first, each=SEARCH_EACH, **values)
                seqs = [row["seq"] for row in looked]
                page = await _page(db, matching, seqs, first, first, limit)
                if len(page.messages) == limit or len(seqs) < records.SCAN_LIMIT:
                    return msgspec.structs.replace(page, next=None)
                # There are many, and few of them match otherwise: look for these.
            times = {"since": matching.since, "until": matching.until}
            floor = max(first, end - SEARCH_STEP)
            looked = await db.rows("newest", floor=floor, type=matching.type, **times, **values)
            reached: int = looked[-1]["seq"] if len(looked) == records.SCAN_LIMIT else floor
            return await _page(db, matching, [row["seq"] for row in looked], reached, first, limit)

        return await self._look(job)

    @abstractmethod
    async def accept(self, messages: Sequence[records.NewMessage]) -> list[records.Accepted]:
        """Store messages with their deliveries and make the lanes due; a result for each message, in order."""

    async def redeliver(self, message_id: str, *, as_new: bool = False) -> records.Redelivery:
        """Send a settled message again: at the tail of its key, with fresh attempts and time to live.

        It keeps its id, so that receivers recognize it; with `as_new` a copy is accepted under a new id.
        """

        async def job(db: Session) -> records.Redelivery:
            found = await db.row("message", id=message_id)
            if found is None:
                return records.Redelivery(refused="unknown")
            if await db.redeliver([found["seq"]], None):
                return records.Redelivery(id=message_id)
            # Read again, now that the message is locked.
            (found,) = await db.rows("message", id=message_id)
            return records.Redelivery(refused="pruned" if found["body"] is None else "pending")

        if as_new:
            return await self._redeliver_copy(message_id)
        redelivery = await self._change(job)
        self._notify()
        return redelivery

    async def _redeliver_copy(self, message_id: str) -> records.Redelivery:
        message = await self.message(message_id)
        if message is None or message.body is None:
            return records.Redelivery(refused="unknown" if message is None else "pruned")
        await self._change(lambda db: db.rows("write_nothing"))
        copy = records.NewMessage(
            account=message.account,
            body=message.body,
            type=message.type,
            ordering_key=message.ordering_key,
            consumers=tuple(delivery.consumer for delivery in message.deliveries),
        )
        (accepted,) = await self.accept([copy])
        return records.Redelivery(id=accepted.id)

    async def redeliver_all(
        self, account: str, state: records.DeliveryState, *, since: float, until: float, dry_run: bool = False
    ) -> int:
        """Count the settled messages accepted in a time span and in a state; unless `dry_run`, send them again.

        The request is on disk when this returns; ``tidy`` carries it out in small steps, after a restart too.
        """
        (last,) = await self._query("last_message")
        request = {"account": account, "state": state, "since": since, "until": until, "last": last["seq"]}
        count = 0
        after: int | None = 0
        while after is not None:
            # Each look is short, so that other reads get their turn in between.
            find = partial(_find, request=request, after=after, limit=records.SCAN_LIMIT)
            found, after = await self._look(find)
            count += len(found)
        if count and not dry_run:
            await self._change(lambda db: db.rows("add_redelivery", **request))
        return count


async def _span(db: Session, matching: records.MessageFilter, before: int | None) -> tuple[int, int]:
    """The numbers between which messages are of the right time, by their ids; not below `before`, if that is given."""
    since = "" if matching.since is None else first_id(matching.since - CLOCK_SECONDS)
    until = _LAST_ID if matching.until is None else first_id(matching.until + CLOCK_SECONDS)
    (span,) = await db.rows("span", since=since, until=until)
    return span["first"], span["end"] if before is None else min(before, span["end"])


async def _page(
    db: Session, matching: records.MessageFilter, seqs: Sequence[int], reached: int, first: int, limit: int
) -> records.Page:
    """The matching ones of these; the next page begins where it was looked last, unless that is the first message."""
    found = await db.rows("matching", seqs=seqs, limit=limit, **msgspec.structs.asdict(matching))
    reached = found[-1]["seq"] if len(found) == limit else reached
    return records.Page(messages=tuple(await _messages(db, found)), next=reached if reached > first else None)


async def _messages(db: Session, found: Sequence[Row]) -> list[records.Message]:
    deliveries: dict[int, list[records.DeliveryStatus]] = {row["seq"]: [] for row in found}
    for row in await db.rows("delivery_statuses", seqs=list(deliveries)):
        deliveries[row["seq"]].append(read(records.DeliveryStatus, row))
    return [read(records.Message, row, deliveries=tuple(deliveries[row["seq"]])) for row in found]


async def step_redelivery(db: Session) -> bool:
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

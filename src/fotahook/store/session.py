"""What both engines offer to the transactions and verbs that they share."""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence, Set
from typing import Any, Final, Literal, NamedTuple, TypeAlias, TypeVar

import msgspec
from msgspec.structs import asdict

from .records import AuditEntry, NewMessage, Redelivery
from .views import Row, read

T = TypeVar("T")
R = TypeVar("R", bound=msgspec.Struct)

ReportRow: TypeAlias = tuple[int, int, str, str, int, bool, str | None]
"""The number of a message, a campaign's id, a device, its status, that status's rank, whether a report said it, why."""
NEWEST: Final = (1 << 63) - 1


class Candidate(NamedTuple):
    """A message that is stored unless it is a duplicate, with its id then, and its hash."""

    id: str
    message: NewMessage
    digest: bytes

    @property
    def key(self) -> tuple[str, str] | None:
        key = self.message.idempotency_key
        return None if key is None else (self.message.account, key)


Added: TypeAlias = tuple[Mapping[str, int], float, Mapping[tuple[str, str], tuple[str, bytes]]]
"""What became of candidates: the new ones' numbers by id, when they were accepted, and id and hash by repeated key."""


class Session(ABC):
    """A connection that runs the statements of ``queries.sql`` by name; both engines have those of shared code
    alike."""

    @abstractmethod
    async def rows(self, statement: str, **values: object) -> Sequence[Row]:
        """The rows that the statement returns."""

    @abstractmethod
    async def bulk(self, statement: str, rows: Sequence[Sequence[object]]) -> Sequence[Row]:
        """Run a statement once for many rows, all of one width; what it returns. Without rows nothing runs."""

    async def row(self, statement: str, **values: object) -> Row | None:
        return next(iter(await self.rows(statement, **values)), None)

    async def run(self, *statements: str, **values: object) -> None:
        """Run statements that take some of these values, one after the other."""
        for statement in statements:
            await self.rows(statement, **values)

    async def value(self, statement: str, **values: object) -> Any:
        """The first value of the one row that the statement returns."""
        (row,) = await self.rows(statement, **values)
        return next(iter(row.values()))

    async def lock_lanes(
        self, names: Set[tuple[str, str]], ids: Collection[int] = (), *, create: bool = True
    ) -> Sequence[Row]:
        """Lock lanes until the transaction ends: by account and consumer, created where they are missing, and by id."""
        values = {"names": to_json(sorted(names)), "ids": list(ids)}
        locked = await self.rows("lock_lanes", **values)
        if create and not names <= {(lane["account"], lane["consumer"]) for lane in locked}:
            await self.rows("add_lanes", names=values["names"])
            locked = await self.rows("lock_lanes", **values)
        return locked

    @abstractmethod
    async def add_messages(self, given: Sequence[Candidate]) -> Added:
        """Insert messages with their bodies, except duplicates, which are counted. The lanes are locked."""

    @abstractmethod
    async def add_pending(
        self, rows: Sequence[tuple[int, int, str | None]], taken: Collection[int], seconds: float
    ) -> Sequence[Row]:
        """Put messages into lanes, which become due: lane, number and ordering key of each. The lanes in `taken` were
        idle and are leased for `seconds`; the rows are their leases."""

    async def settle(self, rows: Sequence[tuple[Any, ...]], keys: Sequence[tuple[int, str, int]]) -> None:
        """Write outcomes: lane, message, state, delay, attempts, strikes, acceptance, then the attempt's columns. Then
        the next of each key is ready, of which one ended: lane, key, message."""
        await self.bulk("settle", rows)
        await self.bulk("promote", keys)

    async def keep_lanes(self, rows: Sequence[tuple[Any, ...]]) -> Sequence[Row]:
        """Write verdicts: lane, revision of the callback, seconds to keep the lease, backoff, pause, then the health.
        The rows are whether each lane could be leased now, and the whole lease if it is kept."""
        return await self.bulk("keep_lanes", rows)

    @abstractmethod
    async def redeliver(self, seqs: Sequence[int], state: str | None) -> int:
        """Move settled messages' deliveries (in this state, or all) to the tail of their keys; how many were moved."""

    @abstractmethod
    async def record_reports(self, rows: Sequence[ReportRow]) -> Sequence[Row]:
        """Enter these into the ledger, each device once; `seq` and `device` of those that the state guard held off."""


Job: TypeAlias = Callable[[Session], Awaitable[T]]
How = Literal["read", "look", "write"]


def to_json(value: object) -> str:
    return msgspec.json.encode(value).decode()


class Engine(ABC):
    """What the verbs that are alike on every engine use of it."""

    _audit: AuditEntry | None = None

    @abstractmethod
    async def now(self) -> float:
        """The store's clock."""

    @abstractmethod
    def _notify(self) -> None:
        """Wake the dispatchers of this store: a lane may have become due."""

    @abstractmethod
    async def _query(self, statement: str, **values: object) -> Sequence[Row]:
        """The rows that a single statement returns."""

    async def _list(self, kind: type[R], statement: str, /, **values: object) -> list[R]:
        return [read(kind, row) for row in await self._query(statement, **values)]

    async def _find_row(self, statement: str, /, **values: object) -> Row | None:
        return next(iter(await self._query(statement, **values)), None)

    async def _find(self, kind: type[R], statement: str, /, **values: object) -> R | None:
        row = await self._find_row(statement, **values)
        return read(kind, row) if row else None

    @abstractmethod
    async def _run(self, how: How, job: Job[T]) -> T:
        """Return what `job` returns: all its statements see one state of the store, and what it writes is on disk. Jobs
        that `look` through much take turns, and no other read waits for them."""

    async def _write(self, job: Job[T]) -> T:
        """Run a job that writes; jobs of several callers may share a transaction."""
        return await self._run("write", job)

    async def _change(self, job: Job[T], *, wakes: bool = False) -> T:
        """The same, with the audit entry of this view unless nothing was changed. Then it `wakes` the dispatchers."""

        async def audited(db: Session) -> T:
            result = await job(db)
            refused = result is False or (isinstance(result, Redelivery) and result.refused is not None)
            if self._audit is not None and not refused:
                await db.rows("add_audit", **asdict(self._audit))
            return result

        result = await self._write(audited)
        if wakes:
            self._notify()
        return result

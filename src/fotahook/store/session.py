"""What both engines offer to the transactions that they share."""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence, Set
from typing import Any, TypeAlias, TypeVar

T = TypeVar("T")

Row: TypeAlias = Mapping[str, Any]
"""The columns of a row by name. SQLite has 0 and 1 for booleans, and text for arrays."""
LaneName: TypeAlias = tuple[str, str]
"""An account and a consumer."""
ReportRow: TypeAlias = tuple[int, int, str, str, int, bool, str | None]
"""The number of a message, a campaign's id, a device, its status, that status's rank, whether a report said it, why."""


class Session(ABC):
    """A connection on which the statements of ``queries.sql`` run by name.

    Both engines have the statements that shared code runs, with the same parameters and columns.
    """

    @abstractmethod
    async def rows(self, statement: str, **values: object) -> Sequence[Row]:
        """The rows that the statement returns."""

    async def row(self, statement: str, **values: object) -> Row | None:
        """The first row that the statement returns."""
        return next(iter(await self.rows(statement, **values)), None)

    async def value(self, statement: str, **values: object) -> Any:
        """The first value of the one row that the statement returns."""
        (row,) = await self.rows(statement, **values)
        return next(iter(row.values()))

    @abstractmethod
    async def lock_lanes(
        self, names: Set[LaneName], ids: Collection[int] = (), *, create: bool = True
    ) -> Sequence[Row]:
        """Lock lanes by name, created where they are missing, and by id, until the transaction ends."""

    @abstractmethod
    async def redeliver(self, seqs: Sequence[int], state: str | None) -> int:
        """Move settled messages' deliveries (in this state, or all) to the tail of their keys; how many were moved."""

    @abstractmethod
    async def record_reports(self, rows: Sequence[ReportRow]) -> Sequence[Row]:
        """Enter these into the ledger, each device once; `seq` and `device` of those that the state guard held off."""


class Engine(ABC):
    """What the verbs that are alike on every engine use of it."""

    @abstractmethod
    async def _query(self, statement: str, **values: object) -> Sequence[Row]:
        """The rows that a single statement returns."""

    @abstractmethod
    async def _find(self, statement: str, **values: object) -> Row | None:
        """The row that a single statement finds by its primary key."""

    @abstractmethod
    async def _read(self, job: Callable[[Session], Awaitable[T]]) -> T:
        """Return what `job` returns; all its statements see one state of the store."""

    @abstractmethod
    async def _look(self, job: Callable[[Session], Awaitable[T]]) -> T:
        """The same for a job that looks through much: such jobs take turns, and no other read waits for them."""

    @abstractmethod
    async def _write(self, job: Callable[[Session], Awaitable[T]]) -> T:
        """Return what `job` returns, once its transaction is on disk."""

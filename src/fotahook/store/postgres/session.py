"""Sessions of the PostgreSQL store: statements by name on one connection."""

import re
from collections.abc import Collection, Sequence, Set
from typing import Final, NamedTuple, cast

from fotahook.contract.life_cycle import FINAL_RANK

from ..session import LaneName, ReportRow, Row, Session
from ..sql import load_queries
from .servers import Db


class Statement(NamedTuple):
    """A statement with numbered parameters, and their names."""

    sql: str
    names: tuple[str, ...]


def number_parameters(sql: str) -> Statement:
    """``:name`` becomes ``$1`` and so on; ``::type`` stays a cast."""
    names: list[str] = []

    def number(match: re.Match[str]) -> str:
        if match[1] not in names:
            names.append(match[1])
        return f"${names.index(match[1]) + 1}"

    return Statement(re.sub(r"(?<!:):([a-z_]+)", number, sql), tuple(names))


STATEMENTS: Final = {name: number_parameters(sql) for name, sql in load_queries("postgres").items()}


class PostgresSession(Session):
    """A Session on one connection."""

    def __init__(self, connection: Db) -> None:
        self.connection = connection

    async def rows(self, statement: str, **values: object) -> list[Row]:
        sql, names = STATEMENTS[statement]
        # An asyncpg.Record reads like a mapping, and is none for type checkers.
        return cast("list[Row]", await self.connection.fetch(sql, *[values[name] for name in names]))

    async def lock_lanes(self, names: Set[LaneName], ids: Collection[int] = (), *, create: bool = True) -> list[Row]:
        accounts, consumers = [account for account, _ in names], [consumer for _, consumer in names]
        locked = await self.rows("lock_lanes", accounts=accounts, consumers=consumers, ids=ids)
        if create and not names <= {(lane["account"], lane["consumer"]) for lane in locked}:
            await self.rows("add_lanes", accounts=accounts, consumers=consumers)
            locked = await self.rows("lock_lanes", accounts=accounts, consumers=consumers, ids=ids)
        return locked

    async def redeliver(self, seqs: Sequence[int], state: str | None) -> int:
        await self.rows("hold_days")
        lanes = await self.rows("lanes_of_messages", seqs=seqs)
        await self.lock_lanes(set(), [lane["lane"] for lane in lanes])
        await self.rows("lock_messages", seqs=seqs)
        moved: int = await self.value("redeliver", seqs=seqs, state=state)
        return moved

    async def record_reports(self, rows: Sequence[ReportRow]) -> list[Row]:
        seqs, campaigns, devices, statuses, ranks, by_report, details = zip(*sorted(rows, key=_place), strict=True)
        return await self.rows(
            "record_reports",
            seqs=seqs,
            campaigns=campaigns,
            devices=devices,
            statuses=statuses,
            ranks=ranks,
            by_report=by_report,
            details=details,
            final=FINAL_RANK,
        )


def _place(row: ReportRow) -> tuple[int, str]:
    """The key of a row. Transactions that lock rows in one order never wait for each other in a circle."""
    return row[1:3]

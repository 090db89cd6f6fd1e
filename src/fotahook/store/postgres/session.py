"""Sessions of the PostgreSQL store: statements by name on one connection."""

import re
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Final, NamedTuple, cast

from fotahook.contract.messages import FINAL_RANK

from ..session import Added, Candidate, ReportRow, Session
from ..sql import load_queries
from ..views import Row
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

    async def bulk(self, statement: str, rows: Sequence[Sequence[object]], **more: object) -> list[Row]:
        """Each column is an array; these are the first parameters, `more` the others."""
        columns = dict(zip(STATEMENTS[statement].names, zip(*rows, strict=True), strict=False))
        return await self.rows(statement, **columns, **more) if rows else []

    async def add_messages(self, given: Sequence[Candidate]) -> Added:
        windowed = [
            (*each.key, each.message.idempotency_window)
            for each in given
            if each.key is not None and each.message.idempotency_window is not None
        ]
        await self.bulk("forget_keys", windowed)
        columns = [
            (each.id, one.account, one.type, one.ordering_key, one.idempotency_key, one.body, each.digest)
            for each in given
            for one in (each.message,)
        ]
        stored = await self.bulk("add_messages", columns)
        numbers = {row["id"]: row["seq"] for row in stored}
        times = Counter(each.key for each in given if each.key is not None and each.id not in numbers)
        repeated = await self.bulk("count_duplicates", [(*key, count) for key, count in times.items()])
        known = {(row["account"], row["idempotency_key"]): (row["id"], row["sha256"]) for row in repeated}
        return Added(numbers, stored[0]["accepted_at"] if stored else 0.0, known)

    async def add_pending(
        self, rows: Sequence[tuple[int, int, str | None]], taken: Collection[int], seconds: float
    ) -> list[Row]:
        return await self.bulk("add_pending", rows, taken=taken, seconds=seconds)

    async def redeliver(self, seqs: Sequence[int], state: str | None) -> int:
        await self.rows("hold_days")
        lanes = await self.rows("lanes_of_messages", seqs=seqs)
        await self.lock_lanes(set(), [lane["lane"] for lane in lanes])
        await self.rows("lock_messages", seqs=seqs)
        return int(await self.value("redeliver", seqs=seqs, state=state))

    async def record_reports(self, rows: Sequence[ReportRow]) -> list[Row]:
        # Transactions that lock rows in one order never wait for each other in a circle.
        in_order = sorted(rows, key=lambda row: row[1:3])
        return await self.bulk("record_reports", in_order, final=FINAL_RANK)

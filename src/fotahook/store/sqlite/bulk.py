"""Steps of the SQLite store that take many at once: a statement each, however many lanes and messages there are.

SQLite goes through the rows by itself, so that the writing thread neither holds up the event loop nor waits for it
between any two of them. Rows for every message are given as ``values``; what there is little of, as JSON.
"""

import sqlite3
from bisect import bisect_left
from collections.abc import Collection, Sequence
from functools import cache
from itertools import chain
from typing import Any, Final

import msgspec

from ..queries import load_queries
from ..records import Health, LaneVerdict, Lease, Limits, Settlement

Q: Final = load_queries("sqlite")

Settling = tuple[Lease, Sequence[Settlement], LaneVerdict, float]
"""A lease, the outcomes under it, what became of the lane, and for how long it is kept."""


Row = tuple[object, ...]

ROWS_LIMIT: Final = 256
"""Rows in one statement."""
_COUNTS: Final = (*range(8, 65, 8), 128, 192, ROWS_LIMIT)
"""Numbers of rows that there are statements for, so that few are prepared; what is missing is filled with null."""


def run_rows(db: sqlite3.Connection, name: str, rows: Sequence[Row]) -> Sequence[sqlite3.Cursor]:
    """Run the statement of this name with these rows, all of one width; a cursor for each ROWS_LIMIT of them."""
    parts = [rows[begin : begin + ROWS_LIMIT] for begin in range(0, len(rows), ROWS_LIMIT)]
    return [_run_part(db, name, part) for part in parts]


def _run_part(db: sqlite3.Connection, name: str, rows: Sequence[Row]) -> sqlite3.Cursor:
    width = len(rows[0])
    count = _COUNTS[bisect_left(_COUNTS, len(rows))]
    missing = (None,) * (width * (count - len(rows)))
    return db.execute(_statement(name, width, count), (*chain.from_iterable(rows), *missing))


@cache
def _statement(name: str, width: int, count: int) -> str:
    row = f"({', '.join('?' * width)})"
    return Q[name].format(rows=", ".join([row] * count))


def settle_all(db: sqlite3.Connection, settlings: Sequence[Settling], now: float) -> list[Lease | None]:
    """Write outcomes and verdicts of those leases that still hold; how these stand now, if they are kept."""
    lanes = [lease.lane for lease, *_ in settlings]
    if len(lanes) > len(set(lanes)):
        # One after the other: the first may give the lane back.
        return [settled for settling in settlings for settled in settle_all(db, [settling], now)]
    tokens = as_json([(lease.lane, lease.token) for lease, *_ in settlings])
    revisions = {row["lane"]: row["revision"] for row in db.execute(Q["fence"], {"leases": tokens})}
    mine = [settling for settling in settlings if settling[0].lane in revisions]
    _write_outcomes(db, [one for _, settlements, *_ in mine for one in settlements], now)
    verdicts = [
        (lease.lane, verdict.wait, verdict.pause, *_facts(verdict.health))
        for lease, _, verdict, _ in mine
        if revisions[lease.lane] == lease.revision
    ]
    db.execute(Q["judge_lanes"], {"verdicts": as_json(verdicts), "now": now})
    db.execute(Q["keep_lanes"], {"lanes": as_json([(lease.lane, keep) for lease, *_, keep in mine]), "now": now})
    kept = read_leases(db, [lease.lane for lease, *_, keep in mine if keep > 0], now)
    return [kept.get(lane) for lane in lanes]


def read_leases(db: sqlite3.Connection, lanes: Collection[int], now: float) -> dict[int, Lease]:
    """How these lanes' leases stand, by lane."""
    rows = db.execute(Q["leased_lanes"], {"lanes": as_json(lanes), "now": now})
    return {row["lane"]: _lease(row) for row in rows}


def add_lanes(db: sqlite3.Connection, lanes: Collection[tuple[str, str]], now: float) -> None:
    """Make those of these lanes that never were, each an account and a consumer."""
    db.execute(Q["add_lanes"], {"lanes": as_json(sorted(lanes)), "now": now})


def promote(db: sqlite3.Connection, keys: Collection[tuple[int, str]]) -> None:
    """Make the first delivery of each key ready: lane and ordering key."""
    run_rows(db, "promote", sorted(keys))


def as_json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _write_outcomes(db: sqlite3.Connection, settlements: Sequence[Settlement], now: float) -> None:
    changes: list[Row] = []
    attempts: list[Row] = []
    settled_keys: set[tuple[int, str]] = set()
    for one in settlements:
        lane, seq, key, attempt = one.delivery.lane, one.delivery.seq, one.delivery.ordering_key, one.attempt
        pending = one.state == "pending"
        state, settled_at = ("ready", None) if pending else (one.state, now)
        changes.append((lane, seq, state, now + one.delay, one.attempts, one.strikes, attempt.outcome, settled_at))
        started_at, url, outcome, status, error_code, fix, phases, excerpt, resent = _facts(attempt)
        facts = (started_at, url, outcome, status, error_code, fix, as_json(phases), excerpt, resent)
        attempts.append((seq, lane, *facts, now, one.state))
        if key is not None and not pending:
            settled_keys.add((lane, key))
    run_rows(db, "settle_deliveries", changes)
    run_rows(db, "add_attempts", attempts)
    _count_settled(db, settlements, now)
    promote(db, settled_keys)


def _count_settled(db: sqlite3.Connection, settlements: Sequence[Settlement], now: float) -> None:
    counts: dict[int, list[int]] = {}
    for settlement in settlements:
        count = counts.setdefault(settlement.delivery.lane, [0, 0, 0])
        count[0] += settlement.attempt.outcome == "delivered"
        count[1] += settlement.attempt.outcome == "failed"
        count[2] += settlement.state == "dead"
    if counts:
        rows = [(lane, *count) for lane, count in counts.items()]
        db.execute(Q["count_settled"], {"counts": as_json(rows), "now": now})


def _lease(row: dict[str, Any]) -> Lease:
    row["open"] = bool(row["open"])
    row["signing_keys"] = tuple((row["signing_keys"] or "").split())
    row["limits"] = Limits(in_flight=row.pop("in_flight"), per_second=row.pop("per_second"))
    row["health"] = read_health(row)
    return Lease(**row)


def read_health(row: dict[str, Any]) -> Health:
    """A lane's health, taken out of its row."""
    return Health(**{name: row.pop(name) for name in ("failures", "window", "refused", "reason")})


_facts = msgspec.structs.astuple

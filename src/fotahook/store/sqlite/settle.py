"""Settling in the SQLite store: one statement for each table, however many lanes and messages there are."""

import sqlite3
from collections.abc import Sequence

import msgspec

from ..records import LaneVerdict, Lease, Settlement
from .connection import execute, run_rows
from .lanes import read_leases

SettleRequest = tuple[Lease, Sequence[Settlement], LaneVerdict, float]
"""A lease, the outcomes under it, the lane's verdict, and for how many seconds the lease is kept."""

_fields = msgspec.structs.astuple


Settled = tuple[Lease | None, bool]
"""The current lease, None if it is over, and whether the lane could be leased now."""


def settle_all(db: sqlite3.Connection, requests: Sequence[SettleRequest], now: float) -> list[Settled]:
    """Write outcomes and verdicts of the leases that are still valid."""
    lanes = [lease.lane for lease, *_ in requests]
    if len(lanes) > len(set(lanes)):
        # One after the other: the first may give the lane back.
        return [settled for request in requests for settled in settle_all(db, [request], now)]
    tokens = [(lease.lane, lease.token) for lease, *_ in requests]
    revisions = {row["lane"]: row["revision"] for row in execute(db, "fence", leases=tokens)}
    valid = [request for request in requests if request[0].lane in revisions]
    _write_outcomes(db, [settlement for _, settlements, *_ in valid for settlement in settlements], now)
    judged = [revisions[lease.lane] == lease.revision for lease, *_ in valid]
    verdicts = [
        (lease.lane, keep, is_judged, verdict.wait, verdict.pause, *_fields(verdict.health))
        for (lease, _, verdict, keep), is_judged in zip(valid, judged, strict=True)
    ]
    due = {row["id"] for row in execute(db, "keep_lanes", verdicts=verdicts, now=now) if row["is_due"]}
    kept = read_leases(db, [lease.lane for lease, *_, keep in valid if keep > 0], now)
    return [(kept.get(lane), lane in due) for lane in lanes]


def _write_outcomes(db: sqlite3.Connection, settlements: Sequence[Settlement], now: float) -> None:
    put_off: list[tuple[object, ...]] = []
    dead: list[tuple[object, ...]] = []
    ended: list[tuple[object, ...]] = []
    attempts: list[tuple[object, ...]] = []
    settled_keys: set[tuple[int, str]] = set()
    for one in settlements:
        lane, seq, key, attempt = one.delivery.lane, one.delivery.seq, one.delivery.ordering_key, one.attempt
        if one.state == "pending":
            put_off.append((lane, seq, now + one.delay, one.attempts, one.strikes))
        else:
            ended.append((lane, seq))
            if key is not None:
                settled_keys.add((lane, key))
        if one.state == "dead":
            dead.append((lane, seq, one.attempts, now))
        started_at, url, outcome, status, error_code, fix, phases, excerpt, resent = _fields(attempt)
        timings = msgspec.json.encode(phases).decode()
        fields = (started_at, url, outcome, status, error_code, fix, timings, excerpt, resent)
        attempts.append((seq, lane, *fields, now, one.state, one.attempts))
    run_rows(db, "put_off", put_off)
    run_rows(db, "bury", dead)
    run_rows(db, "end_pending", ended)
    run_rows(db, "add_attempts", attempts)
    _count(db, settlements, now)
    run_rows(db, "promote", sorted(settled_keys))


def _count(db: sqlite3.Connection, settlements: Sequence[Settlement], now: float) -> None:
    counts: dict[int, list[int]] = {}
    for settlement in settlements:
        count = counts.setdefault(settlement.delivery.lane, [0, 0, 0])
        count[0] += settlement.attempt.outcome == "delivered"
        count[1] += settlement.attempt.outcome == "failed"
        count[2] += settlement.state == "dead"
    if counts:
        execute(db, "count_settled", counts=[(lane, *count) for lane, count in counts.items()], now=now)

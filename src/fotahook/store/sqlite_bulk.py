"""Steps of the SQLite store that take many at once: a statement each, however many lanes and messages there are.

The rows are given to SQLite as JSON. It goes through them by itself, so that the writing thread neither holds up the
event loop nor waits for it between any two of them.
"""

import sqlite3
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final

import msgspec

from .base import Health, LaneVerdict, Lease, Limits, Settlement
from .queries import load_queries

Q: Final = load_queries("sqlite")

Settling = tuple[Lease, Sequence[Settlement], LaneVerdict, float]
"""A lease, the outcomes under it, what became of the lane, and for how long it is kept."""


def settle_all(db: sqlite3.Connection, settlings: Sequence[Settling], now: float) -> list[Lease | None]:
    """Write outcomes and verdicts of those leases that still hold; how these stand now, if they are kept."""
    lanes = [lease.lane for lease, *_ in settlings]
    if len(lanes) > len(set(lanes)):
        # One after the other: the first may give the lane back.
        return [settled for settling in settlings for settled in settle_all(db, [settling], now)]
    tokens = as_json([(lease.lane, lease.token) for lease, *_ in settlings])
    revisions = {row["lane"]: row["revision"] for row in db.execute(Q["fence"], {"leases": tokens})}
    mine = [settling for settling in settlings if settling[0].lane in revisions]
    _write_outcomes(db, [(lease, one) for lease, settlements, *_ in mine for one in settlements], now)
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


def promote(db: sqlite3.Connection, keys: Collection[tuple[str, str, str]]) -> None:
    """Make the first delivery of each key ready: account, consumer and ordering key."""
    if keys:
        db.execute(Q["promote"], {"keys": as_json(sorted(keys))})


def as_json(rows: Iterable[object]) -> str:
    return msgspec.json.encode(rows).decode()


def _write_outcomes(db: sqlite3.Connection, outcomes: Sequence[tuple[Lease, Settlement]], now: float) -> None:
    rows = []
    settled_keys = set()
    for lease, settlement in outcomes:
        delivery, attempt = settlement.delivery, settlement.attempt
        pending = settlement.state == "pending"
        state = "ready" if pending else settlement.state
        place = (delivery.lane, delivery.seq, state, settlement.delay, settlement.attempts, settlement.strikes)
        rows.append((*place, *_facts(attempt)))
        if delivery.ordering_key is not None and not pending:
            settled_keys.add((lease.account, lease.consumer, delivery.ordering_key))
    if rows:
        change = {"outcomes": as_json(rows), "now": now}
        db.execute(Q["settle_deliveries"], change)
        db.execute(Q["add_attempts"], change)
        _count_settled(db, [settlement for _, settlement in outcomes], now)
    promote(db, settled_keys)


def _count_settled(db: sqlite3.Connection, settlements: Sequence[Settlement], now: float) -> None:
    counts: dict[int, list[int]] = {}
    for settlement in settlements:
        count = counts.setdefault(settlement.delivery.lane, [0, 0, 0])
        count[0] += settlement.attempt.outcome == "delivered"
        count[1] += settlement.attempt.outcome == "failed"
        count[2] += settlement.state == "dead"
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

"""Steps of the SQLite store's transactions, and how rows become records. Each runs inside somebody's transaction."""

import sqlite3
from typing import Any, Final

import msgspec

from .base import (
    Accepted,
    Credential,
    Delivery,
    Health,
    Lane,
    LaneState,
    Lease,
    Limits,
    NewMessage,
    Placement,
    Redelivery,
    Settlement,
)
from .queries import load_queries

Q: Final = load_queries("sqlite")

Lanes = dict[tuple[str, str], dict[str, Any]]
"""The lanes that a transaction has touched so far, by account and consumer."""


def next_revision(db: sqlite3.Connection, account: str) -> int:
    last: int = db.execute(Q["last_revision"], {"account": account}).fetchone()["revision"]
    return last + 1


def lane_of(db: sqlite3.Connection, account: str, consumer: str, now: float) -> dict[str, Any]:
    query = {"account": account, "consumer": consumer, "now": now}
    db.execute(Q["add_lane"], query)
    row: dict[str, Any] = db.execute(Q["lane"], query).fetchone()
    return row


def read_lease(db: sqlite3.Connection, lane: int, now: float) -> Lease:
    row = db.execute(Q["leased_lane"], {"lane": lane, "now": now}).fetchone()
    keys = tuple((row.pop("signing_keys") or "").split())
    open_now = bool(row.pop("open"))
    limits = Limits(in_flight=row.pop("in_flight"), per_second=row.pop("per_second"))
    return Lease(lane=row.pop("id"), open=open_now, signing_keys=keys, limits=limits, health=_health(row), **row)


def _health(row: dict[str, Any]) -> Health:
    return Health(**{name: row.pop(name) for name in ("failures", "window", "refused", "reason")})


def read_delivery(row: dict[str, Any]) -> Delivery:
    return Delivery(message=row.pop("id"), **row)


def settle_one(db: sqlite3.Connection, settlement: Settlement, now: float) -> None:
    delivery, attempt = settlement.delivery, settlement.attempt
    place: dict[str, Any] = {"lane": delivery.lane, "seq": delivery.seq, "now": now}
    change = place | {
        "state": "ready" if settlement.state == "pending" else settlement.state,
        "delay": settlement.delay,
        "attempts": settlement.attempts,
        "strikes": settlement.strikes,
        "outcome": attempt.outcome,
    }
    db.execute(Q["settle_delivery"], change)
    details = msgspec.structs.asdict(attempt) | {"phases": msgspec.json.encode(attempt.phases).decode()}
    db.execute(Q["add_attempt"], place | details)
    if delivery.ordering_key is not None and settlement.state != "pending":
        db.execute(Q["promote"], place | {"key": delivery.ordering_key})


def read_placement(row: dict[str, Any]) -> Placement:
    state = "pending" if row["state"] in ("ready", "behind") else row["state"]
    return Placement(**row | {"state": state})


def read_lane(row: dict[str, Any], now: float) -> Lane:
    paused, held, until = row.pop("paused"), row.pop("held"), row.pop("wait_until")
    state: LaneState = "paused" if paused else "held" if held else "waiting" if until > now else "open"
    return Lane(state=state, until=until if state == "waiting" else None, health=_health(row), **row)


def read_credential(row: dict[str, Any]) -> Credential:
    accounts = None if row["accounts"] is None else tuple(msgspec.json.decode(row["accounts"]))
    return Credential(**row | {"accounts": accounts, "scopes": tuple(row["scopes"].split())})


def accept_one(
    db: sqlite3.Connection, message: NewMessage, message_id: str, digest: bytes, lanes: Lanes, now: float
) -> Accepted:
    """Insert a message with its deliveries, unless its idempotency key is known. The lanes' due is left to the end."""
    if message.idempotency_key is not None:
        query = {"account": message.account, "idempotency_key": message.idempotency_key}
        known = db.execute(Q["known_message"], query).fetchone()
        if known is not None:
            db.execute(Q["count_duplicate"], {"seq": known["seq"]})
            return Accepted(id=known["id"], duplicate=True, conflict=known["sha256"] != digest)
    values = msgspec.structs.asdict(message) | {"id": message_id, "sha256": digest, "now": now}
    del values["consumers"]
    seq = db.execute(Q["add_message"], values).lastrowid
    for consumer in message.consumers:
        lane = lanes.get((message.account, consumer))
        if lane is None:
            lane = lanes[message.account, consumer] = lane_of(db, message.account, consumer, now)
        delivery = {"lane": lane["id"], "seq": seq, "key": message.ordering_key, "clock": lane["clock"]}
        db.execute(Q["add_delivery"], delivery | {"now": now})
    return Accepted(id=message_id)


def recompute_due(db: sqlite3.Connection, lanes: set[int]) -> None:
    """Make lanes due again after their deliveries changed."""
    db.executemany(Q["recompute_due"], [{"lane": lane} for lane in sorted(lanes)])


def redeliver_one(db: sqlite3.Connection, seq: int, state: str | None, now: float) -> None:
    """Put a settled message's deliveries (in this state, or all) to the tail of their keys."""
    place = db.execute(Q["next_place"]).fetchone()["seq"]
    change = {"seq": seq, "state": state, "place": place, "now": now}
    moved = db.execute(Q["redeliver"], change).fetchall()
    recompute_due(db, {row["lane"] for row in moved})


def copy_as_new(db: sqlite3.Connection, row: dict[str, Any], message_id: str, now: float) -> Redelivery:
    """Accept a stored message's bytes once more, under a new id, into the lanes of the old one."""
    consumers = tuple(found["consumer"] for found in db.execute(Q["consumers"], {"seq": row["seq"]}))
    message = NewMessage(
        account=row["account"],
        body=row["body"],
        type=row["type"],
        ordering_key=row["ordering_key"],
        consumers=consumers,
    )
    lanes: Lanes = {}
    accepted = accept_one(db, message, message_id, row["sha256"], lanes, now)
    recompute_due(db, {lane["id"] for lane in lanes.values()})
    return Redelivery(id=accepted.id)


def step_redelivery(db: sqlite3.Connection, limit: int, now: float) -> bool:
    """Send some more messages of the oldest wish for many; whether there was such a wish."""
    wish = db.execute(Q["next_redelivery"]).fetchone()
    if wish is None:
        return False
    found = db.execute(Q["redeliverable"], wish | {"limit": limit}).fetchall()
    for row in found:
        redeliver_one(db, row["seq"], wish["state"], now)
    if len(found) < limit:
        db.execute(Q["end_redelivery"], {"id": wish["id"]})
    else:
        db.execute(Q["advance_redelivery"], {"id": wish["id"], "done": found[-1]["seq"]})
    return True

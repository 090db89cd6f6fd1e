"""Steps of the SQLite store's transactions, and how rows become records. Each runs inside somebody's transaction."""

import sqlite3
from typing import Any, Final

import msgspec

from ..ids import MessageIds
from ..queries import load_queries
from ..records import Credential, Delivery, DeliveryStatus, Lane, LaneState, Lease, NewMessage, Redelivery
from .accept import accept_all
from .bulk import read_health

Q: Final = load_queries("sqlite")

_Fetched = tuple[int, str, str | None, str | None, str, float, int, int, float, int]
_FETCHED: Final = msgspec.json.Decoder(list[_Fetched])


def next_revision(db: sqlite3.Connection, account: str) -> int:
    last: int = db.execute(Q["last_revision"], {"account": account}).fetchone()["revision"]
    return last + 1


def read_deliveries(lease: Lease, fetched: str) -> list[Delivery]:
    """The deliveries of a leased lane, out of what `fetch` found."""
    return [_read_delivery(lease, facts) for facts in _FETCHED.decode(fetched)]


def _read_delivery(lease: Lease, facts: _Fetched) -> Delivery:
    seq, message, type_, ordering_key, body, accepted_at, attempts, strikes, age, followed = facts
    return Delivery(
        lane=lease.lane,
        seq=seq,
        message=message,
        account=lease.account,
        type=type_,
        ordering_key=ordering_key,
        body=bytes.fromhex(body),
        accepted_at=accepted_at,
        attempts=attempts,
        strikes=strikes,
        age=age,
        followed=bool(followed),
    )


def read_placement(row: dict[str, Any]) -> DeliveryStatus:
    state = "pending" if row["state"] in ("ready", "behind") else row["state"]
    return DeliveryStatus(**row | {"state": state, "stopped": bool(row["stopped"])})


def read_lane(row: dict[str, Any], now: float) -> Lane:
    paused, held, until = row.pop("paused"), row.pop("held"), row.pop("wait_until")
    state: LaneState = "paused" if paused else "held" if held else "waiting" if until > now else "open"
    return Lane(state=state, until=until if state == "waiting" else None, health=read_health(row), **row)


def read_credential(row: dict[str, Any]) -> Credential:
    accounts = None if row["accounts"] is None else tuple(msgspec.json.decode(row["accounts"]))
    return Credential(**row | {"accounts": accounts, "scopes": tuple(row["scopes"].split())})


def find_credential(db: sqlite3.Connection, kind: str, credential_id: str, now: float) -> Credential | None:
    row = db.execute(Q["credential"], {"kind": kind, "id": credential_id, "now": now}).fetchone()
    return read_credential(row) if row else None


def write_credential(db: sqlite3.Connection, credential: Credential) -> None:
    values = msgspec.structs.asdict(credential)
    values["accounts"] = None if credential.accounts is None else msgspec.json.encode(credential.accounts).decode()
    values["scopes"] = " ".join(credential.scopes)
    db.execute(Q["save_credential"], values)


def recompute_due(db: sqlite3.Connection, lanes: set[int]) -> None:
    """Make lanes due again after their deliveries changed."""
    db.executemany(Q["recompute_due"], [{"lane": lane} for lane in sorted(lanes)])


def hurry(db: sqlite3.Connection, account: str, consumer: str, now: float) -> None:
    """Make due at once what waited for an endpoint in trouble."""
    change = {"account": account, "consumer": consumer, "now": now}
    recompute_due(db, {row["lane"] for row in db.execute(Q["hurry"], change).fetchall()})


def redeliver_one(db: sqlite3.Connection, seq: int, state: str | None, now: float) -> None:
    """Put a settled message's deliveries (in this state, or all) to the tail of their keys."""
    place = db.execute(Q["next_place"]).fetchone()["seq"]
    change = {"seq": seq, "state": state, "place": place, "now": now}
    moved = db.execute(Q["redeliver"], change).fetchall()
    recompute_due(db, {row["lane"] for row in moved})


def copy_as_new(db: sqlite3.Connection, row: dict[str, Any], ids: MessageIds, now: float) -> Redelivery:
    """Accept a stored message's bytes once more, under a new id, into the lanes of the old one."""
    consumers = tuple(found["consumer"] for found in db.execute(Q["consumers"], {"seq": row["seq"]}))
    message = NewMessage(
        account=row["account"],
        body=row["body"],
        type=row["type"],
        ordering_key=row["ordering_key"],
        consumers=consumers,
    )
    [[accepted]] = accept_all(db, [[message]], ids, now)
    return Redelivery(id=accepted.id)

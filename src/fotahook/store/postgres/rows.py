"""Steps of the PostgreSQL store's transactions, and how rows become records."""

import hashlib
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from typing import Final

import msgspec

from ..records import (
    Accepted,
    Attempt,
    Credential,
    Delivery,
    DeliveryStatus,
    Health,
    Lane,
    LaneState,
    LaneVerdict,
    Lease,
    Limits,
    NewMessage,
    Settlement,
)
from .connection import Db, Row, rows

GROUP_LIMIT: Final = 1000
"""Messages and outcomes that share one transaction at the most, so that the first of them does not wait too long."""
LARGE: Final = 16 * 1024
"""So many bytes of bodies weigh as much as another message."""


_UNHOLDABLE: Final = re.compile("[\0\ud800-\udfff]")


class Accept(msgspec.Struct, frozen=True, eq=False):
    """A caller's messages, with the ids they get if they are new, and the keys of those that may be repetitions."""

    messages: Sequence[NewMessage]
    ids: Sequence[str]
    digests: Sequence[bytes]
    keys: Sequence[str | None]


class Settle(msgspec.Struct, frozen=True, eq=False):
    """A dispatcher's outcomes of one lane."""

    lease: Lease
    settlements: Sequence[Settlement]
    verdict: LaneVerdict
    keep: float


class Settled(msgspec.Struct, frozen=True, eq=False):
    """What became of it: the lease as it stands, None if it is over, and whether somebody could lease the lane now."""

    lease: Lease | None
    is_due: bool


Part = Accept | Settle
Answer = list[Accepted] | Settled

LOST: Final = Settled(None, False)

_BYTES: Final = "\x01"
"""Begins the key by which a message is found that is known by its bytes: no key that anybody gives begins so."""


def weight(part: Part) -> int:
    if isinstance(part, Settle):
        return len(part.settlements)
    return len(part.messages) + sum(len(message.body) for message in part.messages) // LARGE


def settled_lane(part: Part) -> int | None:
    """The lane that a part settles: once in a transaction, for the second settling builds on the first."""
    return part.lease.lane if isinstance(part, Settle) else None


def to_accept(messages: Sequence[NewMessage], ids: Sequence[str]) -> Accept:
    digests = [hashlib.sha256(message.body).digest() for message in messages]
    return Accept(messages, ids, digests, list(map(_key, messages, digests)))


def _key(message: NewMessage, digest: bytes) -> str | None:
    return f"{_BYTES}{digest.hex()}" if message.deduplicated_by_bytes else message.idempotency_key


def read_key(key: str | None) -> str | None:
    """The idempotency key that a message was given."""
    return None if key is None or key.startswith(_BYTES) else key


async def commit_group(db: Db, parts: Sequence[Part]) -> list[Answer]:
    """Accept and settle what several callers handed over, in one go."""
    accepts = [part for part in parts if isinstance(part, Accept)]
    settles = [part for part in parts if isinstance(part, Settle)]
    names = {
        (message.account, consumer) for part in accepts for message in part.messages for consumer in message.consumers
    }
    locked = await lock_lanes(db, names, [part.lease.lane for part in settles])
    lanes = {(lane["account"], lane["consumer"]): lane["id"] for lane in locked}
    accepted = iter(await _accept(db, accepts, lanes))
    tokens = {lane["id"]: lane["token"] for lane in locked if lane["leased_until"] > 0}
    settled = await _settle(db, [part for part in settles if tokens.get(part.lease.lane) == part.lease.token])
    return [
        [next(accepted) for _ in part.messages] if isinstance(part, Accept) else settled.get(part.lease.lane, LOST)
        for part in parts
    ]


async def lock_lanes(db: Db, names: Set[tuple[str, str]], ids: Collection[int] = ()) -> list[Row]:
    """Lock lanes by account and consumer, made where there were none, and others by their ids."""
    accounts, consumers = [account for account, _ in names], [consumer for _, consumer in names]
    locked = await rows(db, "lock_lanes", accounts=accounts, consumers=consumers, ids=ids)
    if not names <= {(lane["account"], lane["consumer"]) for lane in locked}:
        await rows(db, "add_lanes", accounts=accounts, consumers=consumers)
        locked = await rows(db, "lock_lanes", accounts=accounts, consumers=consumers, ids=ids)
    return locked


async def _accept(db: Db, accepts: Sequence[Accept], lanes: Mapping[tuple[str, str], int]) -> list[Accepted]:
    messages = [message for part in accepts for message in part.messages]
    if not messages:
        return []
    ids = [message_id for part in accepts for message_id in part.ids]
    digests = [digest for part in accepts for digest in part.digests]
    keys = [key for part in accepts for key in part.keys]
    await _forget_keys(db, zip(messages, keys, strict=True))
    stored = await rows(
        db,
        "add_messages",
        ids=ids,
        accounts=[message.account for message in messages],
        types=[message.type for message in messages],
        ordering_keys=[message.ordering_key for message in messages],
        idempotency_keys=keys,
        bodies=[message.body for message in messages],
        digests=digests,
    )
    new: dict[str, int] = {row["id"]: row["seq"] for row in stored}
    placed = [
        (lanes[message.account, consumer], new[message_id], message.ordering_key)
        for message_id, message in zip(ids, messages, strict=True)
        if message_id in new
        for consumer in message.consumers
    ]
    await rows(
        db,
        "add_deliveries",
        lanes=[lane for lane, _, _ in placed],
        seqs=[seq for _, seq, _ in placed],
        keys=[key for _, _, key in placed],
    )
    known = await _count_duplicates(
        db,
        (
            (message.account, key)
            for message_id, message, key in zip(ids, messages, keys, strict=True)
            if message_id not in new
        ),
    )
    return [
        Accepted(id=message_id) if message_id in new else _duplicate(known[message.account, key], digest)
        for message_id, message, key, digest in zip(ids, messages, keys, digests, strict=True)
    ]


async def _forget_keys(db: Db, keys: Iterable[tuple[NewMessage, str | None]]) -> None:
    """Free the idempotency keys of these messages where the time is over for which they were to be known."""
    windowed = [(message, key) for message, key in keys if message.idempotency_window is not None]
    if windowed:
        await rows(
            db,
            "forget_keys",
            accounts=[message.account for message, _ in windowed],
            idempotency_keys=[key for _, key in windowed],
            windows=[message.idempotency_window for message, _ in windowed],
        )


async def _count_duplicates(db: Db, keys: Iterable[tuple[str, str | None]]) -> dict[tuple[str, str | None], Row]:
    times = Counter(keys)
    if not times:
        return {}
    known = await rows(
        db,
        "count_duplicates",
        accounts=[account for account, _ in times],
        idempotency_keys=[key for _, key in times],
        times=list(times.values()),
    )
    return {(row["account"], row["idempotency_key"]): row for row in known}


def _duplicate(known: Row, digest: bytes) -> Accepted:
    return Accepted(id=known["id"], duplicate=True, conflict=known["sha256"] != digest)


async def _settle(db: Db, settles: Sequence[Settle]) -> dict[int, Settled]:
    if not settles:
        return {}
    settlements = [settlement for part in settles for settlement in part.settlements]
    if settlements:
        await _write_outcomes(db, settlements)
    health = [part.verdict.health for part in settles]
    kept = await rows(
        db,
        "keep_lanes",
        lanes=[part.lease.lane for part in settles],
        revisions=[part.lease.revision for part in settles],
        keeps=[part.keep for part in settles],
        waits=[part.verdict.wait for part in settles],
        pauses=[part.verdict.pause for part in settles],
        failures=[each.failures for each in health],
        windows=[each.window for each in health],
        refusals=[each.refused for each in health],
        reasons=[each.reason for each in health],
    )
    over = {part.lease.lane for part in settles if part.keep <= 0}
    return {row["lane"]: Settled(None if row["lane"] in over else read_lease(row), bool(row["is_due"])) for row in kept}


async def _write_outcomes(db: Db, settlements: Sequence[Settlement]) -> None:
    deliveries = [settlement.delivery for settlement in settlements]
    attempts = [settlement.attempt for settlement in settlements]
    await rows(
        db,
        "settle",
        lanes=[delivery.lane for delivery in deliveries],
        seqs=[delivery.seq for delivery in deliveries],
        states=["ready" if each.state == "pending" else each.state for each in settlements],
        delays=[each.delay for each in settlements],
        attempts=[each.attempts for each in settlements],
        strikes=[each.strikes for each in settlements],
        started=[attempt.started_at for attempt in attempts],
        urls=[_holdable(attempt.url) for attempt in attempts],
        outcomes=[attempt.outcome for attempt in attempts],
        statuses=[attempt.status for attempt in attempts],
        error_codes=[attempt.error_code for attempt in attempts],
        fixes=[_holdable(attempt.fix) for attempt in attempts],
        phases=[msgspec.json.encode(attempt.phases).decode() for attempt in attempts],
        excerpts=[_holdable(attempt.excerpt) for attempt in attempts],
        resent=[attempt.resent for attempt in attempts],
    )
    freed = {
        (each.delivery.lane, each.delivery.ordering_key)
        for each in settlements
        if each.delivery.ordering_key is not None and each.state != "pending"
    }
    if freed:
        await rows(db, "promote", lanes=[lane for lane, _ in freed], keys=[key for _, key in freed])


def _holdable(text: str | None) -> str | None:
    """The text with what no PostgreSQL text can hold replaced: a receiver's answer must not make settling fail."""
    return None if text is None else _UNHOLDABLE.sub("\ufffd", text)


def read_lease(row: Row) -> Lease:
    return Lease(
        lane=row["lane"],
        token=row["token"],
        account=row["account"],
        consumer=row["consumer"],
        open=row["open"],
        url=row["url"],
        revision=row["revision"],
        signing_keys=tuple(row["signing_keys"]),
        limits=Limits(in_flight=row["in_flight"], per_second=row["per_second"]),
        health=_read_health(row),
    )


def _read_health(row: Row) -> Health:
    return Health(failures=row["failures"], window=row["window"], refused=row["refused"], reason=row["reason"])


def read_delivery(row: Row) -> Delivery:
    values = dict(row)
    del values["number"]
    return Delivery(message=values.pop("id"), **values)


def read_placement(row: Row) -> DeliveryStatus:
    values = dict(row)
    del values["seq"]
    state = "pending" if row["state"] in ("ready", "behind") else row["state"]
    return DeliveryStatus(**values | {"state": state})


def read_attempt(row: Row) -> Attempt:
    return Attempt(**dict(row) | {"phases": msgspec.json.decode(row["phases"])})


def read_lane(row: Row) -> Lane:
    state: LaneState = "open"
    if row["paused"]:
        state = "paused"
    elif row["held"]:
        state = "held"
    elif row["waiting"]:
        state = "waiting"
    return Lane(
        consumer=row["consumer"],
        state=state,
        until=row["wait_until"] if state == "waiting" else None,
        health=_read_health(row),
        pending=row["pending"],
        dead=row["dead"],
        oldest_accepted_at=row["oldest_accepted_at"],
    )


def read_credential(row: Row) -> Credential:
    accounts = None if row["accounts"] is None else tuple(row["accounts"])
    return Credential(**dict(row) | {"accounts": accounts, "scopes": tuple(row["scopes"])})

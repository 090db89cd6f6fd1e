"""Accepting into the SQLite store: a statement for each table, however many messages there are.

The writing thread needs Python's lock anew after each statement, which the event loop may hold for long: so there are
few of them, and what is seldom needed (a new lane, a repetition, two messages of one key) has statements of its own.
"""

import hashlib
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Final

import msgspec

from .base import Accepted, NewMessage
from .ids import MessageIds
from .sqlite_bulk import Q, add_lanes, as_json, promote

PORTION_BYTES: Final = 16 << 20
"""Bodies that go into one statement, unless one alone is longer: SQLite takes a gigabyte."""

Place = tuple[str, str]
"""An account, and a consumer or an idempotency key of it."""


class Known(msgspec.Struct, frozen=True):
    """What is stored under an idempotency key."""

    id: str
    sha256: bytes


class Lane(msgspec.Struct, frozen=True):
    """A lane that messages go into."""

    id: int
    due: bool
    """Whether it is due already, so that more in it changes nothing."""
    clock: float
    """The lane's own time."""


class Fresh(msgspec.Struct, frozen=True):
    """A message that is stored, with its id and the hash of its body."""

    id: str
    sha256: bytes
    message: NewMessage


def accept_all(
    db: sqlite3.Connection, batches: Sequence[Sequence[NewMessage]], ids: MessageIds, now: float
) -> list[list[Accepted]]:
    """Insert messages with their deliveries, but for those whose idempotency key is known; an answer for each."""
    messages = (message for batch in batches for message in batch)
    answers = iter([answer for portion in _portions(messages) for answer in _accept(db, portion, ids, now)])
    return [list(islice(answers, len(batch))) for batch in batches]


def _portions(messages: Iterable[NewMessage]) -> Iterator[list[NewMessage]]:
    portion: list[NewMessage] = []
    size = 0
    for message in messages:
        if portion and size + len(message.body) > PORTION_BYTES:
            yield portion
            portion, size = [], 0
        portion.append(message)
        size += len(message.body)
    if portion:
        yield portion


def _accept(db: sqlite3.Connection, messages: Sequence[NewMessage], ids: MessageIds, now: float) -> list[Accepted]:
    known = _known(db, messages, now)
    answers: list[Accepted] = []
    fresh: list[Fresh] = []
    for message in messages:
        digest = hashlib.sha256(message.body).digest()
        if message.idempotency_key is not None:
            place = (message.account, message.idempotency_key)
            if (earlier := known.get(place)) is not None:
                answers.append(Accepted(id=earlier.id, duplicate=True, conflict=earlier.sha256 != digest))
                continue
            message_id = ids.next()
            known[place] = Known(message_id, digest)
        else:
            message_id = ids.next()
        answers.append(Accepted(id=message_id))
        fresh.append(Fresh(message_id, digest, message))
    if fresh:
        first = _add_messages(db, fresh, now)
        _add_deliveries(db, [one.message for one in fresh], first, now)
    if len(fresh) < len(messages):
        repeated = Counter(answer.id for answer in answers if answer.duplicate)
        db.execute(Q["count_duplicates"], {"repeated": as_json(list(repeated.items()))})
    return answers


def _known(db: sqlite3.Connection, messages: Iterable[NewMessage], now: float) -> dict[Place, Known]:
    """What is stored under the idempotency keys of these messages; a key whose time is over is forgotten."""
    keys = [
        (message.account, message.idempotency_key, message.idempotency_window)
        for message in messages
        if message.idempotency_key is not None
    ]
    if not keys:
        return {}
    rows = db.execute(Q["known_messages"], {"keys": as_json(keys), "now": now}).fetchall()
    if lapsed := [row["id"] for row in rows if row["lapsed"]]:
        db.execute(Q["forget_keys"], {"ids": as_json(lapsed)})
    return {
        (row["account"], row["idempotency_key"]): Known(row["id"], row["sha256"]) for row in rows if not row["lapsed"]
    }


def _add_messages(db: sqlite3.Connection, fresh: Sequence[Fresh], now: float) -> int:
    """The number of the first; the others follow it."""
    rows = []
    # JSON holds no bytes: bodies, each with its hash behind it, go beside it as one value, of which SQLite takes parts.
    content = bytearray()
    for one in fresh:
        message = one.message
        facts = (message.account, message.type, message.ordering_key, message.idempotency_key)
        rows.append((one.id, len(content) + 1, len(message.body), *facts))
        content += message.body
        content += one.sha256
    last = db.execute(Q["add_messages"], {"messages": as_json(rows), "content": content, "now": now}).lastrowid
    assert last is not None
    # SQLite's JSON ends a text at a NUL. Keys and names have none, but a type may be any text.
    cut = [{"id": one.id, "type": one.message.type} for one in fresh if "\0" in (one.message.type or "")]
    if cut:
        db.executemany(Q["set_type"], cut)
    return last - len(fresh) + 1


def _add_deliveries(db: sqlite3.Connection, messages: Sequence[NewMessage], first: int, now: float) -> None:
    places = Counter((message.account, consumer) for message in messages for consumer in message.consumers)
    if not places:
        return
    lanes = _lanes(db, places, now)
    same_key = Counter((message.account, message.ordering_key) for message in messages)
    rows = []
    together = set()
    for number, message in enumerate(messages, first):
        key = message.ordering_key
        alone = key is None or same_key[message.account, key] == 1
        for consumer in message.consumers:
            lane = lanes[message.account, consumer]
            rows.append((lane.id, number, key, alone, lane.clock))
            if key is not None and not alone:
                together.add((message.account, consumer, key))
    db.execute(Q["add_deliveries"], {"deliveries": as_json(rows), "now": now})
    promote(db, together)
    if idle := [lane.id for lane in lanes.values() if not lane.due]:
        db.execute(Q["make_due"], {"lanes": as_json(idle)})
    counts = [(lanes[place].id, count) for place, count in places.items()]
    db.execute(Q["count_accepted"], {"counts": as_json(counts), "now": now})


def _lanes(db: sqlite3.Connection, places: Collection[Place], now: float) -> Mapping[Place, Lane]:
    """The lanes of these accounts and consumers, made where there were none."""
    lanes = _find_lanes(db, places, now)
    if len(lanes) < len(places):
        add_lanes(db, places, now)
        lanes = _find_lanes(db, places, now)
    return lanes


def _find_lanes(db: sqlite3.Connection, places: Collection[Place], now: float) -> Mapping[Place, Lane]:
    rows = db.execute(Q["find_lanes"], {"lanes": as_json(list(places)), "now": now})
    return {(row["account"], row["consumer"]): Lane(row["id"], bool(row["is_due"]), row["clock"]) for row in rows}

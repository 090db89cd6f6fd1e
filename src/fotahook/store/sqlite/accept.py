"""Accepting into the SQLite store: a statement for each table, however many messages there are.

The writing thread needs Python's lock anew after each statement, which the event loop may hold for long: so there are
few of them, and what is seldom needed (a new lane, a repetition, two messages of one key) has statements of its own.
"""

import hashlib
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Final

import msgspec

from ..ids import MessageIds
from ..records import Accepted, NewMessage
from .bulk import ROWS_LIMIT, Q, Row, add_lanes, as_json, promote, run_rows
from .schema import key_hash, short_hash

PORTION_BYTES: Final = 256 << 10
"""Bodies that go into one statement, unless one alone is longer: SQLite keeps them until it is run again."""

Place = tuple[str, str]
"""An account and a consumer."""
Mark = tuple[str, str | bytes]
"""What may be repeated: an account, and an idempotency key of it or the hash of a message's bytes."""


class Lane(msgspec.Struct, frozen=True):
    """A lane that messages go into."""

    id: int
    due: bool
    """Whether it is due already, so that more in it changes nothing."""
    clock: float
    """The lane's own time."""


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
        size += len(message.body)
        if portion and (size > PORTION_BYTES or len(portion) == ROWS_LIMIT):
            yield portion
            portion, size = [], len(message.body)
        portion.append(message)
    if portion:
        yield portion


def _accept(db: sqlite3.Connection, messages: Sequence[NewMessage], ids: MessageIds, now: float) -> list[Accepted]:
    digests = [hashlib.sha256(message.body).digest() for message in messages]
    marks = list(map(_mark, messages, digests))
    hashes = [None if mark is None else _hash(mark) for mark in marks]
    known = _known(db, messages, marks, hashes, now)
    answers: list[Accepted] = []
    fresh: list[NewMessage] = []
    rows: list[Row] = []
    for message, digest, mark, number, message_id in zip(
        messages, digests, marks, hashes, ids.take(len(messages)), strict=True
    ):
        if mark is not None:
            earlier_id, earlier_digest = known.setdefault(mark, (message_id, digest))
            if earlier_id != message_id:
                answers.append(Accepted(id=earlier_id, duplicate=True, conflict=earlier_digest != digest))
                continue
        answers.append(Accepted(id=message_id))
        fresh.append(message)
        facts = (message_id, message.account, message.type, message.ordering_key, message.idempotency_key, number)
        rows.append((*facts, message.body, len(message.body), digest, now))
    if fresh:
        (added,) = run_rows(db, "add_messages", rows)
        assert added.lastrowid is not None
        _add_deliveries(db, fresh, added.lastrowid - len(fresh) + 1, now)
    if len(fresh) < len(messages):
        repeated = Counter(answer.id for answer in answers if answer.duplicate)
        db.execute(Q["count_duplicates"], {"repeated": as_json(list(repeated.items()))})
    return answers


def _mark(message: NewMessage, digest: bytes) -> Mark | None:
    key = digest if message.deduplicated_by_bytes else message.idempotency_key
    return None if key is None else (message.account, key)


def _hash(mark: Mark) -> int:
    account, key = mark
    return short_hash(key) if isinstance(key, bytes) else key_hash(account, key)


def _known(
    db: sqlite3.Connection,
    messages: Sequence[NewMessage],
    marks: Sequence[Mark | None],
    hashes: Sequence[int | None],
    now: float,
) -> dict[Mark, tuple[str, bytes]]:
    """Id and hash of the stored messages that these may repeat; one whose time is over is found no more."""
    windows = dict(zip(marks, [message.idempotency_window for message in messages], strict=True))
    rows = [(number,) for number in hashes if number is not None]
    known: dict[Mark, tuple[str, bytes]] = {}
    lapsed: list[str] = []
    for row in chain.from_iterable(run_rows(db, "known_messages", rows)):
        key, digest = row["idempotency_key"], row["sha256"]
        mark = (row["account"], digest if key is None else key)
        if mark not in windows:  # nothing but the hash is the same
            continue
        window = windows[mark]
        if window is not None and row["accepted_at"] + window <= now:
            lapsed.append(row["id"])
        else:
            known[mark] = row["id"], digest
    if lapsed:
        db.execute(Q["forget_keys"], {"ids": as_json(lapsed)})
    return known


def _add_deliveries(db: sqlite3.Connection, messages: Sequence[NewMessage], first: int, now: float) -> None:
    """Put messages, of which the first has this number, into their lanes."""
    places = Counter([(message.account, consumer) for message in messages for consumer in message.consumers])
    if not places:
        return
    lanes = _lanes(db, places, now)
    same_key = Counter([(message.account, message.ordering_key) for message in messages])
    rows: list[Row] = []
    together: set[tuple[int, str]] = set()
    for number, message in enumerate(messages, first):
        account, key = message.account, message.ordering_key
        alone = key is None or same_key[account, key] == 1
        for consumer in message.consumers:
            lane = lanes[account, consumer]
            rows.append((lane.id, number, key, alone, now, lane.clock))
            if not alone and key is not None:
                together.add((lane.id, key))
    run_rows(db, "add_deliveries", rows)
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

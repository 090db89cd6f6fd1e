"""Accepting into the SQLite store: one statement for each table, however many messages there are.

The writing thread competes with the event loop for Python's lock after each statement, so there are few of them; rare
cases (a new lane, a duplicate, two messages of one key) have statements of their own.
"""

import hashlib
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Final

from ..handing import Handing
from ..ids import MessageIds
from ..ledger import record_reports
from ..records import Accepted, NewMessage, Note
from ..session import LaneName, Row
from .connection import ROWS_LIMIT, execute, run_rows
from .lanes import read_leases
from .schema import key_hash
from .session import SqliteSession, run_to_end

CHUNK_BYTES: Final = 256 << 10
"""Bodies in one statement, unless a single one is longer: SQLite keeps them in memory until it runs again."""

DedupKey = tuple[str, str]
"""An account, and an idempotency key."""


def accept_all(
    db: sqlite3.Connection, batches: Sequence[Sequence[NewMessage]], ids: MessageIds, handing: Handing, now: float
) -> list[list[Accepted]]:
    """Insert messages with their deliveries, except duplicates; a result for each message."""
    messages = (message for batch in batches for message in batch)
    results = iter([result for chunk in _chunks(messages) for result in _accept(db, chunk, ids, handing, now)])
    return [list(islice(results, len(batch))) for batch in batches]


def _chunks(messages: Iterable[NewMessage]) -> Iterator[list[NewMessage]]:
    chunk: list[NewMessage] = []
    size = 0
    for message in messages:
        size += len(message.body)
        if chunk and (size > CHUNK_BYTES or len(chunk) == ROWS_LIMIT):
            yield chunk
            chunk, size = [], len(message.body)
        chunk.append(message)
    if chunk:
        yield chunk


def _accept(
    db: sqlite3.Connection, messages: Sequence[NewMessage], ids: MessageIds, handing: Handing, now: float
) -> list[Accepted]:
    digests = [hashlib.sha256(message.body).digest() for message in messages]
    keys = [None if (own := message.idempotency_key) is None else (message.account, own) for message in messages]
    hashes = [None if key is None else key_hash(*key) for key in keys]
    known = _known(db, messages, keys, hashes, now)
    results: list[Accepted] = []
    new: list[tuple[str, NewMessage]] = []
    values: list[tuple[object, ...]] = []
    for message, digest, key, number, message_id in zip(
        messages, digests, keys, hashes, ids.take(len(messages)), strict=True
    ):
        if key is not None:
            earlier_id, earlier_digest = known.setdefault(key, (message_id, digest))
            if earlier_id != message_id:
                results.append(Accepted(id=earlier_id, duplicate=True, conflict=earlier_digest != digest))
                continue
        results.append(Accepted(id=message_id))
        new.append((message_id, message))
        columns = (message_id, message.account, message.type, message.ordering_key, message.idempotency_key, number)
        values.append((*columns, len(message.body), digest, now))
    if new:
        first: int = execute(db, "next_seq").fetchone()["seq"]
        run_rows(db, "add_messages", [(seq, *row) for seq, row in enumerate(values, first)])
        run_rows(db, "add_bodies", [(seq, message.body) for seq, (_, message) in enumerate(new, first)])
        numbered = [(number, message) for number, (_, message) in enumerate(new, first) if message.reports]
        notes = run_to_end(record_reports(SqliteSession(db, now), numbered)) if numbered else {}
        _add_deliveries(db, new, first, handing, notes, now)
    if len(new) < len(messages):
        repeated = Counter(result.id for result in results if result.duplicate)
        execute(db, "count_duplicates", repeated=list(repeated.items()))
    return results


def _known(
    db: sqlite3.Connection,
    messages: Sequence[NewMessage],
    keys: Sequence[DedupKey | None],
    hashes: Sequence[int | None],
    now: float,
) -> dict[DedupKey, tuple[str, bytes]]:
    """Id and hash of the stored messages that these may duplicate; those whose window is over lose their key."""
    windows = dict(zip(keys, [message.idempotency_window for message in messages], strict=True))
    numbers = [(number,) for number in hashes if number is not None]
    known: dict[DedupKey, tuple[str, bytes]] = {}
    expired: list[str] = []
    for row in chain.from_iterable(run_rows(db, "known_messages", numbers)):
        dedup_key, digest = (row["account"], row["idempotency_key"]), row["sha256"]
        if dedup_key not in windows:  # only the hash is the same
            continue
        window = windows[dedup_key]
        if window is not None and row["accepted_at"] + window <= now:
            expired.append(row["id"])
        else:
            known[dedup_key] = row["id"], digest
    if expired:
        execute(db, "forget_keys", ids=expired)
    return known


def _add_deliveries(
    db: sqlite3.Connection,
    messages: Sequence[tuple[str, NewMessage]],
    first: int,
    handing: Handing,
    notes: Mapping[int, Note],
    now: float,
) -> None:
    """Put messages, numbered from `first`, into their lanes."""
    counts = Counter([(message.account, consumer) for _, message in messages for consumer in message.consumers])
    if not counts:
        return
    lanes = _lanes(db, counts, now)
    taken = [lane["id"] for lane in lanes.values() if handing.begin(lane["id"], lane["token"], lane["use"])]
    same_key = Counter([(message.account, message.ordering_key) for _, message in messages])
    values: list[tuple[object, ...]] = []
    shared_keys: set[tuple[int, str]] = set()
    for number, (message_id, message) in enumerate(messages, first):
        account, key = message.account, message.ordering_key
        alone = key is None or same_key[account, key] == 1
        for consumer in message.consumers:
            lane = lanes[account, consumer]
            values.append((lane["id"], number, key, alone, now, lane["clock"]))
            handing.add(lane["id"], number, message_id, message, now, notes.get(number))
            if not alone and key is not None:
                shared_keys.add((lane["id"], key))
    run_rows(db, "add_pending", values)
    run_rows(db, "promote", sorted(shared_keys))
    if taken:
        execute(db, "take_lanes", lanes=taken, seconds=handing.request.seconds, now=now)
        handing.leases |= read_leases(db, taken, now)
    if idle := [lane["id"] for lane in lanes.values() if not lane["is_due"] and lane["id"] not in taken]:
        execute(db, "make_due", lanes=idle)
    execute(db, "count_accepted", counts=[(lanes[name]["id"], count) for name, count in counts.items()], now=now)


def _lanes(db: sqlite3.Connection, names: Collection[LaneName], now: float) -> Mapping[LaneName, Row]:
    """The lanes with these names, created where they are missing."""
    found = execute(db, "find_lanes", lanes=list(names), now=now).fetchall()
    if len(found) < len(names):
        execute(db, "add_lanes", lanes=sorted(names), now=now)
        return _lanes(db, names, now)
    return {(row["account"], row["consumer"]): row for row in found}

"""Reading messages from the SQLite store, one by one or in pages."""

import heapq
import sqlite3
from collections.abc import Sequence
from itertools import islice
from typing import Final

import msgspec

from ..records import SCAN_LIMIT, Delivery, Lease, Message, MessageFilter, Page
from ..rows import Row, read_messages
from .connection import row, rows

_Fetched = tuple[int, str, str | None, str | None, str, float, int, int, float, int]
_DECODER: Final = msgspec.json.Decoder(list[_Fetched])


def find_message(db: sqlite3.Connection, message_id: str, now: float) -> Message | None:
    found = row(db, "message", id=message_id)
    return None if found is None else _messages(db, [found], now)[0]


def list_messages(
    db: sqlite3.Connection, account: str, matching: MessageFilter, before: int | None, limit: int, now: float
) -> Page:
    """The matching messages among the newest candidates."""
    seqs = _candidates(db, account, matching, (1 << 63) - 1 if before is None else before)
    found = rows(db, "matching", seqs=seqs, limit=limit, **msgspec.structs.asdict(matching))
    more = found[-1]["seq"] if len(found) == limit else seqs[-1] if len(seqs) == SCAN_LIMIT else None
    return Page(messages=tuple(_messages(db, found, now)), next=more)


def _messages(db: sqlite3.Connection, found: Sequence[Row], now: float) -> list[Message]:
    return read_messages(found, rows(db, "delivery_statuses", seqs=[each["seq"] for each in found], now=now))


def _candidates(db: sqlite3.Connection, account: str, matching: MessageFilter, before: int) -> list[int]:
    if matching.state not in ("pending", "dead"):
        return [found["seq"] for found in rows(db, "recent", account=account, before=before, limit=SCAN_LIMIT)]
    # These have an index in each lane, so that a few dead ones among many messages are found at once.
    lanes = rows(db, "lanes_of_account", account=account)
    recent = [rows(db, f"recent_{matching.state}", lane=lane["id"], before=before, limit=SCAN_LIMIT) for lane in lanes]
    newest = heapq.merge(*([found["seq"] for found in each] for each in recent), reverse=True)
    return list(islice(dict.fromkeys(newest), SCAN_LIMIT))


def read_deliveries(lease: Lease, fetched: str) -> list[Delivery]:
    """The deliveries of a leased lane in the JSON that `fetch` returns."""
    return [_read_delivery(lease, columns) for columns in _DECODER.decode(fetched)]


def _read_delivery(lease: Lease, columns: _Fetched) -> Delivery:
    seq, message, type_, ordering_key, body, accepted_at, attempts, strikes, age, followed = columns
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

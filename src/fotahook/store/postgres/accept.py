"""Accepting into the PostgreSQL store."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from ..records import Accepted, NewMessage
from ..rows import Row
from .connection import Db, rows
from .lanes import LaneName

_BYTES: Final = "\x01"
"""Begins the stored key of a message that is deduplicated by its bytes; no publisher's key begins with it."""


class AcceptRequest(msgspec.Struct, frozen=True, eq=False):
    """A caller's messages, with their ids if they are new, and the keys by which duplicates are found."""

    messages: Sequence[NewMessage]
    ids: Sequence[str]
    digests: Sequence[bytes]
    keys: Sequence[str | None]

    @classmethod
    def of(cls, messages: Sequence[NewMessage], ids: Sequence[str]) -> "AcceptRequest":
        digests = [hashlib.sha256(message.body).digest() for message in messages]
        return cls(messages, ids, digests, list(map(_dedup_key, messages, digests)))


def _dedup_key(message: NewMessage, digest: bytes) -> str | None:
    return f"{_BYTES}{digest.hex()}" if message.deduplicated_by_bytes else message.idempotency_key


async def accept_all(db: Db, requests: Sequence[AcceptRequest], lanes: Mapping[LaneName, int]) -> list[Accepted]:
    """Insert the messages of all requests, except duplicates; a result for each message. The lanes are locked."""
    messages = [message for request in requests for message in request.messages]
    if not messages:
        return []
    ids = [message_id for request in requests for message_id in request.ids]
    digests = [digest for request in requests for digest in request.digests]
    keys = [key for request in requests for key in request.keys]
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
    added = [
        (lanes[message.account, consumer], new[message_id], message.ordering_key)
        for message_id, message in zip(ids, messages, strict=True)
        if message_id in new
        for consumer in message.consumers
    ]
    await rows(
        db,
        "add_deliveries",
        lanes=[lane for lane, _, _ in added],
        seqs=[seq for _, seq, _ in added],
        keys=[key for _, _, key in added],
    )
    given = list(zip(ids, messages, keys, digests, strict=True))
    known = await _count_duplicates(
        db, [(message.account, key) for message_id, message, key, _ in given if message_id not in new]
    )
    return [
        Accepted(id=message_id) if message_id in new else _duplicate(known[message.account, key], digest)
        for message_id, message, key, digest in given
    ]


async def _forget_keys(db: Db, keys: Iterable[tuple[NewMessage, str | None]]) -> None:
    """Free the idempotency keys of these messages whose window is over."""
    windowed = [(message, key) for message, key in keys if message.idempotency_window is not None]
    if windowed:
        await rows(
            db,
            "forget_keys",
            accounts=[message.account for message, _ in windowed],
            idempotency_keys=[key for _, key in windowed],
            windows=[message.idempotency_window for message, _ in windowed],
        )


async def _count_duplicates(db: Db, keys: Sequence[tuple[str, str | None]]) -> dict[tuple[str, str | None], Row]:
    """Count these duplicates; the stored messages that they repeat, by account and key."""
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

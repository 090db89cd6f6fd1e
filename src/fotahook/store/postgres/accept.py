"""Accepting into the PostgreSQL store."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ..handing import Handing
from ..ledger import record_reports
from ..records import Accepted, LeaseRequest, NewMessage, Note
from ..rows import read_lease
from ..session import LaneName, Row, Session


class Candidate(NamedTuple):
    """A message that is stored unless it is a duplicate: its id then, and its hash."""

    id: str
    message: NewMessage
    digest: bytes

    @property
    def key(self) -> str | None:
        """The key to find duplicates by."""
        return self.message.idempotency_key


class AcceptRequest(NamedTuple):
    """The messages of one caller, and what a dispatcher wants handed over."""

    candidates: Sequence[Candidate]
    lease: LeaseRequest | None


def candidates(messages: Sequence[NewMessage], ids: Sequence[str]) -> list[Candidate]:
    """Messages to accept, with fresh ids."""
    digests = [hashlib.sha256(message.body).digest() for message in messages]
    return list(map(Candidate, ids, messages, digests))


async def accept_all(
    db: Session, given: Sequence[Candidate], lanes: Mapping[LaneName, Row], handing: Handing
) -> list[Accepted]:
    """Insert messages except duplicates; a result for each. The lanes are locked."""
    if not given:
        return []
    await _forget_keys(db, given)
    stored = await db.rows(
        "add_messages",
        ids=[each.id for each in given],
        accounts=[each.message.account for each in given],
        types=[each.message.type for each in given],
        ordering_keys=[each.message.ordering_key for each in given],
        idempotency_keys=[each.key for each in given],
        bodies=[each.message.body for each in given],
        digests=[each.digest for each in given],
    )
    new = {row["id"]: row for row in stored}
    added = [
        (lanes[each.message.account, consumer], new[each.id], each)
        for each in given
        if each.id in new
        for consumer in each.message.consumers
    ]
    reporting = [(new[each.id]["seq"], each.message) for each in given if each.id in new and each.message.reports]
    notes = await record_reports(db, reporting) if reporting else {}
    if added:
        await _add_deliveries(db, added, handing, notes)
    known = await _count_duplicates(db, [(each.message.account, each.key) for each in given if each.id not in new])
    return [
        Accepted(id=each.id) if each.id in new else _duplicate(known[each.message.account, each.key], each.digest)
        for each in given
    ]


async def _add_deliveries(
    db: Session, added: Sequence[tuple[Row, Row, Candidate]], handing: Handing, notes: Mapping[int, Note]
) -> None:
    """Put messages into their lanes, by number."""
    lanes = {lane["id"]: lane for lane, _, _ in added}
    taken = [number for number, lane in lanes.items() if handing.begin(number, lane["token"], lane["use"])]
    for lane, row, each in added:
        handing.add(lane["id"], row["seq"], each.id, each.message, row["accepted_at"], notes.get(row["seq"]))
    leased = await db.rows(
        "add_pending",
        lanes=[lane["id"] for lane, _, _ in added],
        seqs=[row["seq"] for _, row, _ in added],
        keys=[each.message.ordering_key for _, _, each in added],
        taken=taken,
        seconds=handing.request.seconds,
    )
    handing.leases |= {row["lane"]: read_lease(row) for row in leased}


async def _forget_keys(db: Session, given: Sequence[Candidate]) -> None:
    """Free the idempotency keys of these messages whose window is over."""
    windowed = [each for each in given if each.message.idempotency_window is not None]
    if windowed:
        await db.rows(
            "forget_keys",
            accounts=[each.message.account for each in windowed],
            idempotency_keys=[each.key for each in windowed],
            windows=[each.message.idempotency_window for each in windowed],
        )


async def _count_duplicates(db: Session, keys: Sequence[tuple[str, str | None]]) -> dict[tuple[str, str | None], Row]:
    """Count these duplicates; the stored messages that they repeat, by account and key."""
    times = Counter(keys)
    if not times:
        return {}
    known = await db.rows(
        "count_duplicates",
        accounts=[account for account, _ in times],
        idempotency_keys=[key for _, key in times],
        times=list(times.values()),
    )
    return {(row["account"], row["idempotency_key"]): row for row in known}


def _duplicate(known: Row, digest: bytes) -> Accepted:
    return Accepted(id=known["id"], duplicate=True, conflict=known["sha256"] != digest)

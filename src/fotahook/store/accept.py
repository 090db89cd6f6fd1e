"""Accepting messages, in a transaction that holds the lanes they go into."""

import hashlib
from collections.abc import Mapping, Sequence

from .handing import Handing
from .ledger import record_reports
from .records import Accepted, NewMessage
from .rows import Row, read_lease
from .session import Candidate, LaneName, Session


def candidates(messages: Sequence[NewMessage], ids: Sequence[str]) -> list[Candidate]:
    """Messages to accept, with fresh ids."""
    digests = [hashlib.sha256(message.body).digest() for message in messages]
    return list(map(Candidate, ids, messages, digests))


async def accept_all(
    db: Session, given: Sequence[Candidate], lanes: Mapping[LaneName, Row], handing: Handing
) -> list[Accepted]:
    """Insert messages with their deliveries, except duplicates; a result for each."""
    if not given:
        return []
    numbers, at, known = await db.add_messages(given)
    new = [(numbers[each.id], each) for each in given if each.id in numbers]
    reporting = [(number, each.message) for number, each in new if each.message.reports]
    notes = await record_reports(db, reporting) if reporting else {}
    added = [
        (lanes[each.message.account, consumer], number, each)
        for number, each in new
        for consumer in each.message.consumers
    ]
    if added:
        taken = handing.begin({lane["id"]: lane for lane, _, _ in added}.values())
        for lane, number, each in added:
            handing.add(lane["id"], number, each, at, notes.get(number))
        pending = [(lane["id"], number, each.message.ordering_key) for lane, number, each in added]
        leased = await db.add_pending(pending, taken, handing.request.seconds)
        handing.leases |= {row["lane"]: read_lease(row) for row in leased}
    return [
        Accepted(id=each.id)
        if (key := each.key) is None or each.id in numbers
        else Accepted(id=known[key][0], duplicate=True, conflict=known[key][1] != each.digest)
        for each in given
    ]

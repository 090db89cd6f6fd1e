"""Settling deliveries, in a transaction that holds their lanes."""

import re
from collections.abc import Sequence
from typing import Final

import msgspec

from .records import LaneVerdict, Lease, Settlement
from .rows import read_lease
from .session import Session

_fields = msgspec.structs.astuple
_NOT_STORABLE: Final = re.compile("[\0\ud800-\udfff]")


class SettleRequest(msgspec.Struct, frozen=True, eq=False):
    """A dispatcher's outcomes of one lane."""

    lease: Lease
    settlements: Sequence[Settlement]
    verdict: LaneVerdict
    keep: float


class Settled(msgspec.Struct, frozen=True, eq=False):
    """The current lease, None if it is over, and whether the lane could be leased now."""

    lease: Lease | None
    is_due: bool


async def settle_all(db: Session, requests: Sequence[SettleRequest]) -> dict[int, Settled]:
    """Write the outcomes and verdicts of valid leases; the results by lane."""
    settlements = [settlement for request in requests for settlement in request.settlements]
    if settlements:
        await db.settle([_outcome(settlement) for settlement in settlements])
        await db.bulk(
            "promote",
            [
                (one.delivery.lane, one.delivery.ordering_key, one.delivery.seq)
                for one in settlements
                if one.delivery.ordering_key is not None and one.state != "pending"
            ],
        )
    if not requests:
        return {}
    verdicts = [
        (
            one.lease.lane,
            one.lease.revision,
            one.keep,
            one.verdict.wait,
            one.verdict.pause,
            *_fields(one.verdict.health),
        )
        for one in requests
    ]
    over = {each.lease.lane for each in requests if each.keep <= 0}
    return {
        row["lane"]: Settled(None if row["lane"] in over else read_lease(row), bool(row["is_due"]))
        for row in await db.keep_lanes(verdicts)
    }


def _outcome(one: Settlement) -> tuple[object, ...]:
    to, attempt = one.delivery, one.attempt
    delivery = (to.lane, to.seq, one.state, one.delay, one.attempts, one.strikes, to.accepted_at)
    request = (attempt.started_at, _storable(attempt.url), attempt.outcome, attempt.status, attempt.error_code)
    phases = msgspec.json.encode(attempt.phases).decode()
    return (*delivery, *request, _storable(attempt.fix), phases, _storable(attempt.excerpt), attempt.resent)


def _storable(text: str | None) -> str | None:
    """Without characters that PostgreSQL rejects: a receiver's response must not make settling fail."""
    if text is None or (text.isascii() and "\0" not in text):
        return text
    return _NOT_STORABLE.sub("\ufffd", text)

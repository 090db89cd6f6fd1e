"""Settling in the PostgreSQL store."""

import re
from collections.abc import Sequence
from typing import Final

import msgspec

from ..records import LaneVerdict, Lease, Settlement
from ..rows import read_lease
from ..session import Session

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
    """Write the outcomes and verdicts of valid leases, whose lanes are locked; the results by lane."""
    if not requests:
        return {}
    settlements = [settlement for request in requests for settlement in request.settlements]
    if settlements:
        await _write_outcomes(db, settlements)
    health = [request.verdict.health for request in requests]
    kept = await db.rows(
        "keep_lanes",
        lanes=[request.lease.lane for request in requests],
        revisions=[request.lease.revision for request in requests],
        keeps=[request.keep for request in requests],
        waits=[request.verdict.wait for request in requests],
        pauses=[request.verdict.pause for request in requests],
        failures=[each.failures for each in health],
        windows=[each.window for each in health],
        refusals=[each.refused for each in health],
        reasons=[each.reason for each in health],
        succeeded=[each.succeeded for each in health],
        failed=[each.failed for each in health],
        latencies=[each.latency for each in health],
    )
    over = {request.lease.lane for request in requests if request.keep <= 0}
    return {row["lane"]: Settled(None if row["lane"] in over else read_lease(row), bool(row["is_due"])) for row in kept}


async def _write_outcomes(db: Session, settlements: Sequence[Settlement]) -> None:
    deliveries = [settlement.delivery for settlement in settlements]
    attempts = [settlement.attempt for settlement in settlements]
    await db.rows(
        "settle",
        lanes=[delivery.lane for delivery in deliveries],
        seqs=[delivery.seq for delivery in deliveries],
        states=[each.state for each in settlements],
        delays=[each.delay for each in settlements],
        attempts=[each.attempts for each in settlements],
        strikes=[each.strikes for each in settlements],
        accepted=[delivery.accepted_at for delivery in deliveries],
        started=[attempt.started_at for attempt in attempts],
        urls=[_storable(attempt.url) for attempt in attempts],
        outcomes=[attempt.outcome for attempt in attempts],
        statuses=[attempt.status for attempt in attempts],
        error_codes=[attempt.error_code for attempt in attempts],
        fixes=[_storable(attempt.fix) for attempt in attempts],
        phases=[msgspec.json.encode(attempt.phases).decode() for attempt in attempts],
        excerpts=[_storable(attempt.excerpt) for attempt in attempts],
        resent=[attempt.resent for attempt in attempts],
    )
    ended = [
        each.delivery for each in settlements if each.delivery.ordering_key is not None and each.state != "pending"
    ]
    if ended:
        await db.rows(
            "promote",
            lanes=[delivery.lane for delivery in ended],
            keys=[delivery.ordering_key for delivery in ended],
            seqs=[delivery.seq for delivery in ended],
        )


def _storable(text: str | None) -> str | None:
    """The text without characters that PostgreSQL rejects: a receiver's response must not make settling fail."""
    return None if text is None else _NOT_STORABLE.sub("\ufffd", text)

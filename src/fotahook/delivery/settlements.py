"""Outcomes as the store keeps them."""

import msgspec

from fotahook.store.records import Attempt, Delivery, Settlement

from .outcomes import DELIVERED, EXPIRED, Outcome
from .policy import Decision


class Finished(msgspec.Struct, frozen=True):
    """An attempt: when it started (wall clock), how long it took, on which revision of the callback, its outcome."""

    started_at: float
    seconds: float
    revision: int
    outcome: Outcome


def settlement_of(delivery: Delivery, decision: Decision, finished: Finished) -> Settlement:
    """What the store writes of an attempt."""
    outcome = finished.outcome
    delivered = decision.state == "delivered"
    return Settlement(
        delivery=delivery,
        state=decision.state,
        attempts=decision.attempts,
        strikes=decision.strikes,
        delay=decision.delay,
        attempt=Attempt(
            started_at=finished.started_at,
            url=outcome.url,
            outcome=DELIVERED if delivered else "failed",
            status=outcome.status,
            error_code=None if delivered else outcome.code,
            fix=outcome.fix,
            phases=outcome.phases,
            excerpt=outcome.excerpt,
            resent=outcome.resent,
        ),
    )


def expiry_of(delivery: Delivery, now: float) -> Settlement:
    """The end of a message that outlived its time to live, without an attempt."""
    outcome = Outcome(code=EXPIRED)
    return Settlement(
        delivery=delivery,
        state="dead",
        attempts=delivery.attempts,
        strikes=delivery.strikes,
        attempt=Attempt(started_at=now, url=None, outcome=EXPIRED, error_code=EXPIRED, fix=outcome.fix),
    )


def promotes(settlement: Settlement) -> bool:
    """Whether writing it makes the next of its key ready, so that the lane is worth keeping."""
    return settlement.state != "pending" and settlement.delivery.followed

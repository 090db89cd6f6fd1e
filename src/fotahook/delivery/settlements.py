"""Outcomes as the store keeps them, and as the log tells them."""

import logging
from collections.abc import Sequence
from typing import Final

import msgspec

from fotahook.contract.urls import origin
from fotahook.store.records import Attempt, Delivery, Health, Lease, Settlement

from .outcomes import DELIVERED, EXPIRED, Outcome
from .policy import Decision

log = logging.getLogger("fotahook.delivery")

SETTLE_DELIVERIES: Final = 16
SETTLE_SECONDS: Final = 0.02
"""Outcomes are written when there are so many, or after so long, while other attempts run."""


class Backoff(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint failure that stops the lane until a time. `health_before` is the lane's health before the failure."""

    health_before: Health
    until: float


def settlement_of(delivery: Delivery, decision: Decision, outcome: Outcome, started_at: float) -> Settlement:
    """What the store writes of an attempt that started at this time of the wall clock."""
    delivered = decision.state == "delivered"
    return Settlement(
        delivery=delivery,
        state=decision.state,
        attempts=decision.attempts,
        strikes=decision.strikes,
        delay=decision.delay,
        attempt=Attempt(
            started_at=started_at,
            url=outcome.url,
            outcome=DELIVERED if delivered else "failed",
            status=outcome.status,
            error_code=None if delivered else outcome.code,
            fix=None if delivered else outcome.fix,
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


def log_failure(lease: Lease, delivery: Delivery, decision: Decision, outcome: Outcome) -> None:
    """Say which attempt failed, and what follows."""
    log.warning(
        "attempt failed: message %s of %s to %s: %s; %s",
        delivery.message,
        delivery.account,
        lease.consumer if outcome.url is None else origin(outcome.url),
        outcome.code,
        "the message is dead" if decision.state == "dead" else outcome.fix or "it is retried",
    )


def is_time(settlements: Sequence[Settlement], *, idle: bool, seconds: float) -> bool:
    """Whether to write these outcomes, `seconds` after the last ones; `idle`: no attempt runs.

    Many together cost less, but the next message of a key waits for the one before it.
    """
    if not settlements:
        return False
    many = idle or len(settlements) >= SETTLE_DELIVERIES or seconds >= SETTLE_SECONDS
    return many or settlements[-1].delivery.ordering_key is not None

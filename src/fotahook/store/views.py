"""Records as operators are told of them, by a service or out of an inbox."""

from collections.abc import Callable
from datetime import UTC, datetime

import msgspec

from fotahook.contract import operator
from fotahook.contract.operator import DeliveryState, MessageState

from .records import CALLBACK_CONSUMER, Attempt, Message, Placement


def moment(seconds: float) -> datetime:
    """A time of the store as answers have it; JSON writes it by RFC 3339."""
    return datetime.fromtimestamp(seconds, UTC)


def moment_or_none(seconds: float | None) -> datetime | None:
    return None if seconds is None else moment(seconds)


def lane_name(account: str, consumer: str) -> str:
    """The lane to the callback is named by its account."""
    return account if consumer == CALLBACK_CONSUMER else consumer


def message_state(message: Message, expires_at: Callable[[Placement], float | None]) -> MessageState:
    """A message and where it stands; `expires_at` is the time when a delivery will have waited for too long."""
    return MessageState(
        id=message.id,
        account=message.account,
        type=message.type,
        ordering_key=message.ordering_key,
        size=message.size,
        sha256=message.sha256.hex(),
        accepted_at=moment(message.accepted_at),
        deliveries=[
            DeliveryState(
                lane=lane_name(message.account, place.consumer),
                state=place.state,
                attempts=place.attempts,
                due=moment(place.due) if place.state == "pending" else None,
                expires_at=moment_or_none(expires_at(place)),
                last_outcome=place.last_outcome,
            )
            for place in message.placements
        ],
    )


def attempt(number: int, made: Attempt) -> operator.Attempt:
    """One attempt in a message's history."""
    return operator.Attempt(
        number=number,
        started_at=moment(made.started_at),
        outcome=made.outcome,
        url=made.url,
        http_status=made.status,
        error_code=made.error_code,
        fix=made.fix,
        phases=msgspec.convert(made.phases, operator.Phases),
        excerpt=made.excerpt,
        resent=made.resent or msgspec.UNSET,
    )

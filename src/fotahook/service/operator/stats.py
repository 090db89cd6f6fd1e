"""How much happened, minute by minute, in the caller's accounts."""

from typing import Annotated

from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from ...contract.operator import Counts, MinuteCounts, Stats
from ...store import events
from ...store.views import to_datetime
from .. import access, errors, requests
from ..context import Service
from ..requests import Asked


class StatsAsked(Asked, frozen=True):
    """How many minutes, of which the last one is the present."""

    minutes: Annotated[int, Meta(ge=1, le=events.STATS_MINUTES)] = 60


async def show(service: Service, request: Request) -> Response:
    """How much happened in the last minutes, in all and minute by minute."""
    caller = await access.bearer(service, request)
    caller.need("operate")
    asked = requests.query(request, StatsAsked)
    found = await service.store.stats(asked.minutes, among=caller.accounts)
    return errors.answer(_stats(found, asked.minutes))


def _stats(found: events.Stats, minutes: int) -> Stats:
    known = {counts.minute: counts for counts in found.minutes}
    span = range(found.now - minutes + 1, found.now + 1)
    return Stats(
        totals=Counts(
            accepted=sum(one.accepted for one in found.minutes),
            delivered=sum(one.delivered for one in found.minutes),
            failed=sum(one.failed for one in found.minutes),
            dead=sum(one.dead for one in found.minutes),
        ),
        minutes=[_minute(minute, known.get(minute)) for minute in span],
    )


def _minute(minute: int, counts: events.MinuteCounts | None) -> MinuteCounts:
    at = to_datetime(60.0 * minute)
    if counts is None:
        return MinuteCounts(at=at)
    return MinuteCounts(
        at=at, accepted=counts.accepted, delivered=counts.delivered, failed=counts.failed, dead=counts.dead
    )

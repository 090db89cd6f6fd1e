"""Counts of what happened in the caller's accounts, minute by minute."""

from typing import Annotated

from msgspec import Meta
from msgspec.structs import astuple

from ...contract.operator import Counts, MinuteCounts, Stats
from ...store.events import STATS_MINUTES
from ...store.views import to_datetime
from ..requests import Params
from ..routing import Call, Endpoint


class StatsQuery(Params, frozen=True):
    """How many minutes, the present one included."""

    minutes: Annotated[int, Meta(ge=1, le=STATS_MINUTES)] = 60


@Endpoint("GET", "/v1/stats", query=StatsQuery)
async def show(call: Call) -> Stats:
    """What happened in the last minutes, in total and minute by minute."""
    span = call.query(StatsQuery).minutes
    found = await call.service.store.stats(span, among=call.caller.accounts)
    known = {
        one.minute: Counts(accepted=one.accepted, delivered=one.delivered, failed=one.failed, dead=one.dead)
        for one in found.minutes
    }
    totals = {name: sum(getattr(one, name) for one in known.values()) for name in Counts.__struct_fields__}
    minutes = [
        MinuteCounts(to_datetime(60.0 * minute), *astuple(known.get(minute, Counts())))
        for minute in range(found.now - span + 1, found.now + 1)
    ]
    return Stats(totals=Counts(**totals), minutes=minutes)

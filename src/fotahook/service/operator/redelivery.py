"""Redelivery: of one message, or of all messages of an account that are in a state."""

from typing import Final, Literal

from starlette.responses import Response

from ...contract.operator import Redelivered, Redeliveries
from .. import errors
from ..errors import answer
from ..requests import Params, Time
from ..routing import Call, Endpoint
from .accounts import PATH
from .messages import find

_END_OF_TIME: Final = 253_402_300_799.0
"""The last second that a date can name."""


class Redelivery(Params, frozen=True):
    """`asNew`: under a new id, so that receivers take it for another message."""

    as_new: bool = False


class Redeliver(Params, frozen=True):
    """Which messages to redeliver, those accepted at `until` excluded. `dryRun`: only count them."""

    state: Literal["dead", "delivered"]
    since: Time | None = None
    until: Time | None = None
    dry_run: bool = False


@Endpoint("POST", "/v1/messages/{id}/redeliver", body=Redelivery, body_optional=True, status=202, also=(409, 410))
async def redeliver_one(call: Call) -> Redelivered:
    """Sends a message again, at the tail of its key, with new attempts and a new time to live."""
    message = await find(call)
    wanted = await call.json(Redelivery, optional=True)
    redelivery = await call.service.store.redeliver(message.id, as_new=wanted.as_new)
    if redelivery.refused == "pending":
        raise errors.CONFLICT("The message is not settled yet; GET …/why says what it waits for.")
    if redelivery.refused == "pruned":
        raise errors.GONE("Retention removed the message's bytes; publish it again.")
    return Redelivered(id=redelivery.id or message.id)


@Endpoint("POST", f"{PATH}/redeliver", body=Redeliver, status=202, answer=Redeliveries, also=(200,))
async def redeliver_many(call: Call) -> Response:
    """Redelivers many messages and returns their number; they are sent in small steps, after a restart too."""
    wanted = await call.json(Redeliver)
    count = await call.service.store.redeliver_all(
        call.account,
        wanted.state,
        since=wanted.since.timestamp() if wanted.since else 0.0,
        until=wanted.until.timestamp() if wanted.until else _END_OF_TIME,
        dry_run=wanted.dry_run,
    )
    return answer(Redeliveries(count=count), 200 if wanted.dry_run else 202)

"""Sending messages once more: one, or all of an account that are in a state and of a time."""

from typing import Final, Literal

from starlette.requests import Request
from starlette.responses import Response

from ...contract.operator import Redelivered, Redeliveries
from .. import errors, requests
from ..context import Service
from ..requests import Asked, Moment
from .accounts import enter
from .messages import find

_EVER: Final = 253_402_300_799.0
"""The last second that a date can name: the end of a span without one."""


class Redelivery(Asked, frozen=True):
    """`asNew`: under a new id, so that receivers take it for another message."""

    as_new: bool = False


class Redeliver(Asked, frozen=True):
    """Which messages to send once more; `until` itself is no part of the span. `dryRun`: only count them."""

    state: Literal["dead", "delivered"]
    since: Moment | None = None
    until: Moment | None = None
    dry_run: bool = False


async def redeliver_one(service: Service, request: Request) -> Response:
    """The message once more, to the tail of its key, with attempts and time to live afresh."""
    message = await find(service, request)
    wanted = await requests.json_or_default(request, service.settings.body_limit, Redelivery)
    redelivery = await service.store.redeliver(message.id, as_new=wanted.as_new)
    if redelivery.refused == "pending":
        raise errors.conflict("The message is not settled yet: it is being delivered; ask why it is not there.")
    if redelivery.refused == "pruned":
        raise errors.gone("The message's bytes were removed by retention; publish it anew.")
    return errors.answer(Redelivered(id=redelivery.id or message.id), 202)


async def redeliver_many(service: Service, request: Request) -> Response:
    """How many messages are sent once more; that they will be is on disk, and is done in small steps."""
    account = await enter(service, request)
    wanted = requests.json_object(await requests.body(request, service.settings.body_limit), Redeliver)
    count = await service.store.redeliver_all(
        account,
        wanted.state,
        since=0.0 if wanted.since is None else wanted.since.timestamp(),
        until=_EVER if wanted.until is None else wanted.until.timestamp(),
        dry_run=wanted.dry_run,
    )
    return errors.answer(Redeliveries(count=count), 200 if wanted.dry_run else 202)

"""The doctor over HTTP: checks an account's callback URL, or one that may become it, from where deliveries are sent."""

import asyncio
from typing import Final

import msgspec

from ...contract.operator import Checks
from .. import errors
from ..routing import Call, Endpoint
from ..thingspace.callbacks import checked_url
from .accounts import PATH

LIMIT_SECONDS: Final = 60.0


class Proposal(msgspec.Struct, frozen=True):
    """The URL to check; None for the one that is registered."""

    url: str | None = None


@Endpoint("POST", f"{PATH}/check", body=Proposal)
async def check(call: Call) -> Checks:
    """Checks a URL as `fotahook doctor` does: with up to four test messages of type fotahookDoctor. One at a time."""
    service, url = call.service, (await call.json(Proposal, optional=True)).url
    check_receiver = service.settings.check_receiver
    if check_receiver is None:
        raise errors.CONFLICT("This service sends nothing; run fotahook doctor where deliveries are sent from.")
    if url is None:
        callback = await service.store.callback(call.account)
        if callback is None:
            raise errors.CONFLICT("No callback is registered; name a url to check.")
        url = callback.url
    url = checked_url(url, service.settings)
    if service.doctor_lock.locked():
        raise errors.BUSY()
    async with service.doctor_lock:
        try:
            async with asyncio.timeout(LIMIT_SECONDS):
                return await check_receiver(url, call.account)
        except TimeoutError:
            raise errors.CONFLICT(f"The checks took more than {LIMIT_SECONDS:g} s; run fotahook doctor {url}") from None

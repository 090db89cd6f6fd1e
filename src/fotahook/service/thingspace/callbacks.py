"""ThingSpace's four calls: the one callback URL of an account (docs/thingspace.md, The four calls)."""

from functools import partial

import msgspec
from starlette.responses import Response

from ...contract.models import (
    CallbackSummary,
    FotaV2CallbackRegistrationRequest,
    FotaV2CallbackRegistrationResult,
    FotaV2SuccessResult,
)
from ...contract.urls import account_warning, origin, port_warning, url_refusal
from ...store.records import Callback
from .. import errors
from ..context import Settings
from ..routing import Call, Endpoint


class Registration(msgspec.Struct, frozen=True):
    """The body of POST and PUT. The URL may be any value: the rules for URLs say what is wrong with it.

    PUT's documentation names the field `callback` in its table and `url` in its example.
    """

    url: object = None
    callback: object = None


_endpoint = partial(Endpoint, path="/api/fota/v2/callbacks/{account}", by="both tokens", scope="callbacks")


@_endpoint("GET")
async def list_callback(call: Call) -> Response:
    """The account's callback; 200 without a body if none is registered."""
    callback = await call.service.store.callback(call.account)
    return Response(b"") if callback is None else errors.answer(CallbackSummary(callback.url))


@_endpoint("POST", body=FotaV2CallbackRegistrationRequest)
async def register_callback(call: Call) -> Response:
    """Registers the URL of the body, in place of an earlier one."""
    return await _replace(call, (await call.json(Registration)).url)


@_endpoint("PUT", body=FotaV2CallbackRegistrationRequest)
async def update_callback(call: Call) -> Response:
    """Registers the URL of the body, under either of PUT's names for it."""
    update = await call.json(Registration)
    return await _replace(call, update.callback if update.url is None else update.url)


@_endpoint("DELETE")
async def deregister_callback(call: Call) -> FotaV2SuccessResult:
    """Removes the callback; a success even if none is registered."""
    await call.audited("callback.deregister").deregister(call.account, actor=call.caller.name)
    return FotaV2SuccessResult(success=True)


async def _replace(call: Call, given: object) -> Response:
    url = checked_url(given, call.service.settings)
    callback = await register(call, url)
    warnings = [text for text in (port_warning(url), account_warning(call.account)) if text is not None]
    # RFC 7234, section 5.5. 299: a persistent warning without a code of its own.
    headers = {"Warning": ", ".join(f'299 fotahook "{text}"' for text in warnings)} if warnings else {}
    return errors.answer(FotaV2CallbackRegistrationResult(callback.url), headers=headers)


async def register(call: Call, url: str) -> Callback:
    """Register a checked URL; an ApiError if it is new and does not answer the challenge, where one is asked for."""
    store, challenge = call.audited("callback.register", detail=origin(url)), call.service.settings.challenge_receiver
    if challenge is not None:
        known = await store.callback(call.account)
        if known is None or known.url != url:
            keys = [key.id for key in await store.credentials("signing_key", call.account)]
            if (reason := await challenge(url, call.account, keys)) is not None:
                raise errors.NO_ANSWER(reason)
    return await store.register(call.account, url, actor=call.caller.name)


def checked_url(url: object, settings: Settings) -> str:
    """The URL of a registration; an ApiError says which rule it breaks."""
    if url is None:
        raise errors.INVALID('The body needs a url, such as {"url": "https://example.com/callbacks"}.')
    reason = url_refusal(url, allow_http=settings.allow_http, allowed=settings.allowed_networks)
    if reason is not None or not isinstance(url, str):
        raise errors.INVALID(f"{reason}.")
    return url

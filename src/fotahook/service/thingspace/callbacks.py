"""ThingSpace's four calls: the one callback URL of an account (docs/thingspace.md, The four calls)."""

import msgspec
from starlette.responses import Response

from ...contract.models import (
    CallbackSummary,
    FotaV2CallbackRegistrationRequest,
    FotaV2CallbackRegistrationResult,
    FotaV2SuccessResult,
)
from ...contract.urls import account_warning, port_warning, url_refusal
from .. import errors
from ..context import Service
from ..errors import answer
from ..routing import Call, Endpoint

PATH = "/api/fota/v2/callbacks/{account}"


class Registration(msgspec.Struct, frozen=True):
    """The body of POST and PUT. The URL may be any value: the rules for URLs say what is wrong with it."""

    url: object = None


class Update(Registration, frozen=True):
    """The body of PUT, whose documentation names the field `callback` in its table and `url` in its example."""

    callback: object = None


@Endpoint("GET", PATH, by="both tokens", scope="callbacks", answer=CallbackSummary)
async def list_callback(call: Call) -> Response:
    """The account's callback; 200 without a body if none is registered."""
    callback = await call.service.store.callback(call.account)
    return Response(b"") if callback is None else answer(CallbackSummary(callback.url))


@Endpoint(
    "POST",
    PATH,
    by="both tokens",
    scope="callbacks",
    body=FotaV2CallbackRegistrationRequest,
    answer=FotaV2CallbackRegistrationResult,
)
async def register_callback(call: Call) -> Response:
    """Registers the URL of the body, in place of an earlier one."""
    registration = await call.json(Registration)
    return await _replace(call, registration.url)


@Endpoint(
    "PUT",
    PATH,
    by="both tokens",
    scope="callbacks",
    body=FotaV2CallbackRegistrationRequest,
    answer=FotaV2CallbackRegistrationResult,
)
async def update_callback(call: Call) -> Response:
    """Registers the URL of the body, under either of PUT's names for it."""
    update = await call.json(Update)
    return await _replace(call, update.callback if update.url is None else update.url)


@Endpoint("DELETE", PATH, by="both tokens", scope="callbacks")
async def deregister_callback(call: Call) -> FotaV2SuccessResult:
    """Removes the callback; a success even if none is registered."""
    await call.service.store.deregister(call.account, actor=call.caller.name)
    return FotaV2SuccessResult(success=True)


async def _replace(call: Call, url: object) -> Response:
    checked = _checked(call.service, url)
    callback = await call.service.store.register(call.account, checked, actor=call.caller.name)
    result = FotaV2CallbackRegistrationResult(callback.url)
    return answer(result, headers=_warnings(call.account, callback.url))


def _warnings(account: str, url: str) -> dict[str, str]:
    """A Warning header (RFC 7234, section 5.5) for what is registered but may be a mistake."""
    found = [text for text in (port_warning(url), account_warning(account)) if text is not None]
    # 299: a persistent warning without a code of its own.
    return {"Warning": ", ".join(f'299 fotahook "{text}"' for text in found)} if found else {}


def _checked(service: Service, url: object) -> str:
    settings = service.settings
    if url is None:
        raise errors.INVALID('The body needs a url, such as {"url": "https://example.com/callbacks"}.')
    reason = url_refusal(url, allow_http=settings.allow_http, allowed=settings.allowed_networks)
    if reason is not None or not isinstance(url, str):
        raise errors.INVALID(f"{reason}.")
    return url

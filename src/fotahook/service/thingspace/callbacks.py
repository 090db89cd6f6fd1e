"""ThingSpace's four calls: the one callback URL of an account (docs/thingspace.md, The four calls)."""

from collections.abc import Callable

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from ...contract.models import CallbackSummary, FotaV2CallbackRegistrationResult, FotaV2SuccessResult
from ...contract.urls import account_warning, port_warning, url_refusal
from .. import access, errors, requests
from ..access import Caller
from ..context import Service


class Registration(msgspec.Struct, frozen=True):
    """What POST and PUT send. Any value may stand here: the rules for URLs say what is wrong with it."""

    url: object = None


class Update(Registration, frozen=True):
    """PUT's page names the field `callback` in its table and `url` in its example."""

    callback: object = None


async def list_callback(service: Service, request: Request) -> Response:
    """The callback of the account; 200 and no body where nothing is registered."""
    _, account = await _enter(service, request)
    callback = await service.store.callback(account)
    return Response(b"") if callback is None else errors.answer(CallbackSummary(callback.url))


async def register_callback(service: Service, request: Request) -> Response:
    """The URL from the body, registered in place of an earlier one."""
    return await _replace(service, request, lambda content: requests.json_object(content, Registration).url)


async def update_callback(service: Service, request: Request) -> Response:
    """The same, under PUT's two names for the URL."""

    def url(content: bytes) -> object:
        update = requests.json_object(content, Update)
        return update.callback if update.url is None else update.url

    return await _replace(service, request, url)


async def deregister_callback(service: Service, request: Request) -> Response:
    """Success, whether or not a callback was registered."""
    caller, account = await _enter(service, request)
    await service.store.deregister(account, actor=caller.name)
    return errors.answer(FotaV2SuccessResult(success=True))


async def _enter(service: Service, request: Request) -> tuple[Caller, str]:
    """Who calls and for which account, once that is known to be in order."""
    caller = await access.both_tokens(service, request)
    caller.need("callbacks")
    account = requests.account(request)
    if not caller.has(account):
        raise errors.no_callback_account()
    return caller, account


async def _replace(service: Service, request: Request, read: Callable[[bytes], object]) -> Response:
    caller, account = await _enter(service, request)
    url = read(await requests.body(request, service.settings.body_limit))
    callback = await service.store.register(account, _checked(service, url), actor=caller.name)
    return errors.answer(FotaV2CallbackRegistrationResult(callback.url), headers=_warnings(account, callback.url))


def _warnings(account: str, url: str) -> dict[str, str]:
    """What is registered all the same, but may not be meant: a Warning header (RFC 7234, section 5.5)."""
    found = [text for text in (port_warning(url), account_warning(account)) if text is not None]
    # 299: lasting, and of no code of its own.
    return {"Warning": ", ".join(f'299 fotahook "{text}"' for text in found)} if found else {}


def _checked(service: Service, url: object) -> str:
    settings = service.settings
    if url is None:
        raise errors.invalid('The body needs a url, such as {"url": "https://example.com/callbacks"}.')
    reason = url_refusal(url, allow_http=settings.allow_http, allowed=settings.allowed_networks)
    if reason is not None or not isinstance(url, str):
        raise errors.invalid(f"{reason}.")
    return url

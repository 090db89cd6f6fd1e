"""Accounts as their operator sees them: what they are, what they may, and whether anything is sent to them."""

from itertools import zip_longest
from typing import Annotated, Final, Literal

from msgspec import UNSET, Meta, UnsetType
from starlette.requests import Request
from starlette.responses import Response

from ...contract.operator import AccountPage, AccountState, CallbackHistory
from ...store import views
from ...store.records import CALLBACK_CONSUMER, Account, Limits, MessageFilter
from .. import access, errors, requests
from ..context import Service
from ..requests import Asked, PageLimit

IN_FLIGHT_LIMIT: Final = 256
PER_SECOND_LEAST: Final = 0.001
PER_SECOND_LIMIT: Final = 10_000.0
HISTORY_LIMIT: Final = 1000

PerSecond = Annotated[float, Meta(ge=PER_SECOND_LEAST, le=PER_SECOND_LIMIT)]


class AccountsAsked(Asked, frozen=True):
    """Which accounts to list. `trouble`: the endpoint fails or is gone, or messages wait for a callback."""

    state: Literal["trouble", "open", "waiting", "held", "paused"] | None = None
    cursor: str | None = None
    limit: PageLimit = 50


class NewLimits(Asked, frozen=True):
    """The limits to change; null takes one away, one that is left out stays."""

    in_flight: Annotated[int, Meta(ge=1, le=IN_FLIGHT_LIMIT)] | UnsetType | None = UNSET
    per_second: PerSecond | UnsetType | None = UNSET


class AccountChange(Asked, frozen=True):
    """What to change of an account."""

    limits: NewLimits


async def show(service: Service, request: Request) -> Response:
    """The account's callback, its lane, what is not delivered, and its limits."""
    account = await enter(service, request)
    return errors.answer(await _state(service, account))


async def list_accounts(service: Service, request: Request) -> Response:
    """The accounts that have a callback, or ever had one or a message, by name."""
    caller = await access.bearer(service, request)
    caller.need("operate")
    asked = requests.query(request, AccountsAsked)
    found = await service.store.accounts(
        state=asked.state,
        among=caller.accounts,
        after=requests.cursor(asked.cursor) or "",
        limit=asked.limit,
    )
    more = requests.new_cursor(found[-1].account) if len(found) == asked.limit else None
    states = [views.account_state(one, known=await _is_known(service, one)) for one in found]
    return errors.answer(AccountPage(accounts=states, cursor=more))


async def change(service: Service, request: Request) -> Response:
    """Other limits for the account; it is answered as it stands then."""
    account = await enter(service, request)
    content = await requests.body(request, service.settings.body_limit)
    wanted = requests.json_object(content, AccountChange).limits
    async with service.changing:
        now = await service.store.limits(account)
        changed = Limits(
            in_flight=now.in_flight if wanted.in_flight is UNSET else wanted.in_flight,
            per_second=now.per_second if wanted.per_second is UNSET else wanted.per_second,
        )
        await service.store.set_limits(account, changed)
    return errors.answer(await _state(service, account))


async def pause(service: Service, request: Request) -> Response:
    """Nothing is sent to the account until it is resumed; everything is kept, and its time to live stands still."""
    account = await enter(service, request)
    await service.store.pause(account)
    return errors.answer(await _state(service, account))


async def resume(service: Service, request: Request) -> Response:
    """The end of a pause, or of a wait for an endpoint in trouble."""
    account = await enter(service, request)
    await service.store.resume(account)
    return errors.answer(await _state(service, account))


async def callback_history(service: Service, request: Request) -> Response:
    """Who registered, replaced and deregistered the account's callback, newest first."""
    account = await enter(service, request)
    # One more than is shown: what it was before tells what the oldest change was.
    changes = await service.store.callback_history(account, HISTORY_LIMIT + 1)
    told = [views.callback_change(change, before) for change, before in zip_longest(changes, changes[1:])]
    return errors.answer(CallbackHistory(history=told[:HISTORY_LIMIT]))


async def enter(service: Service, request: Request) -> str:
    """The account that the path names, if it is one of the caller's and the caller may operate it."""
    caller = await access.bearer(service, request)
    caller.need("operate")
    account = requests.account(request)
    if not caller.has(account):
        raise errors.no_account()
    return account


async def _state(service: Service, account: str) -> AccountState:
    lanes = await service.store.lanes(account)
    lane = next((lane for lane in lanes if lane.consumer == CALLBACK_CONSUMER), None)
    limits = await service.store.limits(account)
    if lane is None:
        return views.unknown_account_state(account, limits)
    callback = await service.store.callback(account)
    found = Account(account=account, callback=callback, lane=lane, limits=limits)
    return views.account_state(found, known=await _is_known(service, found))


async def _is_known(service: Service, found: Account) -> bool:
    """Whether the account ever had a callback or a message; pausing it is not enough."""
    if found.callback is not None or found.lane.pending or found.lane.dead:
        return True
    if await service.store.callback_history(found.account, 1):
        return True
    return bool((await service.store.messages(found.account, MessageFilter(), limit=1)).messages)

"""The search over everything, answered by indexes and bounded looks."""

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Annotated, Final, get_args

import msgspec
from msgspec import Meta

from ...contract.campaigns import CampaignState, Found, FoundDevice
from ...contract.operator import MessageStateName
from ...store import views
from ...store.ledger import storable
from ...store.records import Account, Message, MessageFilter
from ...store.views import to_datetime
from .. import errors
from ..requests import Params, Time
from ..routing import Call, Endpoint
from .messages import read_page

FOUND: Final = 10
_FIRST_TEXT: Final = "\U0010ffff"
_AGE: Final = re.compile(r"(\d{1,6})([smhdw])")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_FILTERS: Final = ("type", "state", "since", "until")


class SearchQuery(Params, frozen=True):
    """An account or a campaign by its beginning, a message or a device by its id; or messages by filters.

    Filters: `type:`, `state:` (pending, delivered, dead), `since:` and `until:` (RFC 3339, or an age such as 1h or 2d).
    Beside them may stand the beginning of an account's name.
    """

    q: Annotated[str, Meta(min_length=1, max_length=256, pattern="^[^\\u0000]*$")]


def parse_search(text: str, now: datetime) -> tuple[str, MessageFilter | None]:
    """The words of a search that are no filter, and its filters; an ApiError for a filter that means nothing."""
    words, given = [], dict[str, str]()
    for word in text.split():
        name, colon, value = word.partition(":")
        if not colon or name not in _FILTERS:
            words.append(word)
        elif not value or name in given:
            raise errors.INVALID(f"The search needs one value after {name}:.")
        else:
            given[name] = value
    if not given:
        return text, None
    if given.get("state") not in (None, *get_args(MessageStateName)):
        raise errors.INVALID("The search knows state:pending, state:delivered and state:dead.")
    since, until = (_time(name, given[name], now) if name in given else None for name in ("since", "until"))
    # One of the known names, or None.
    state: MessageStateName | None = given.get("state")  # type: ignore[assignment]
    return " ".join(words), MessageFilter(state=state, type=given.get("type"), since=since, until=until)


def _time(name: str, value: str, now: datetime) -> float:
    try:
        if (age := _AGE.fullmatch(value)) is not None:
            return (now - timedelta(**{_UNITS[age[2]]: int(age[1])})).timestamp()
        return msgspec.convert(value, Time).timestamp()
    except (msgspec.ValidationError, OverflowError):
        raise errors.INVALID(f"Write {name}: as a time (2026-11-25T20:00:00Z) or an age (30m, 1h, 2d).") from None


@Endpoint("GET", "/v1/search", query=SearchQuery, scope="read")
async def search(call: Call) -> Found:
    """What is called like this, or matches the filters: accounts, campaigns, devices and messages of the caller."""
    text, matching = parse_search(call.query(SearchQuery).q, to_datetime(call.service.now()))
    if matching is not None:
        return await _filtered(call, text, matching)
    store, among = call.service.store, call.caller.accounts
    message = await store.message(text)
    messages = [] if message is None or not call.caller.has(message.account) else [message]
    accounts = await _accounts(call, text)
    if not messages and len(accounts) == 1 and accounts[0].account == text:
        messages = list((await store.messages(text, MessageFilter(), limit=FOUND)).messages)
    campaigns = await store.latest_campaigns(among=among, campaign=text, limit=FOUND)
    devices = await store.find_device(storable(text), among=among, limit=FOUND)
    return Found(
        accounts=[views.account_state(one, known=True) for one in accounts],
        messages=[views.message_state(one) for one in messages],
        devices=[
            FoundDevice(one.account, one.campaign, one.device, one.status, to_datetime(one.at)) for one in devices
        ],
        campaigns=[CampaignState(account=one.account, campaign_id=one.campaign) for one in campaigns],
    )


async def _filtered(call: Call, text: str, matching: MessageFilter) -> Found:
    """The newest messages that match, of the accounts whose names begin with a text, if there is one."""
    accounts = await _accounts(call, text) if text else []
    names = [one.account for one in accounts] if text else call.caller.accounts
    store, found = call.service.store, list[Message]()
    if names is not None and len(names) == 1:
        found, _ = await read_page(partial(store.messages, names[0], matching), None, FOUND)
    elif names is None or names:
        found, _ = await read_page(partial(store.search_messages, matching, among=names), None, FOUND)
    return Found(
        accounts=[views.account_state(one, known=True) for one in accounts],
        messages=[views.message_state(one) for one in found],
        devices=[],
        campaigns=[],
    )


async def _accounts(call: Call, text: str) -> Sequence[Account]:
    """Those whose names begin with a text."""
    found = await call.service.store.accounts(
        among=call.caller.accounts, after=_before(text), consumer=call.service.settings.consumer, limit=FOUND
    )
    return [one for one in found if one.account.startswith(text)]


def _before(text: str) -> str:
    """A text that sorts just before another one."""
    return text[:-1] + (chr(ord(text[-1]) - 1) + _FIRST_TEXT if text[-1] > " " else "")

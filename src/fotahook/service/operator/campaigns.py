"""Campaigns and their devices, by the ledger, and the search over everything: by indexes and in bounded looks."""

import re
from functools import partial
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta
from msgspec.structs import asdict, replace

from ...contract import operator
from ...contract.messages import FAILED, FINAL_RANK, place
from ...store import views
from ...store.ledger import LedgerCampaign, LedgerDevice, LedgerReport, storable
from ...store.records import Message, MessageFilter
from ...store.views import to_datetime_or_none
from .. import errors, requests
from ..requests import Params, Time
from ..routing import Call, Endpoint
from .accounts import PATH as ACCOUNT_PATH
from .messages import READS_PER_PAGE, read_page

PATH: Final = f"{ACCOUNT_PATH}/campaigns/{{campaign}}"
CAMPAIGNS: Final = 20
REASONS: Final = 20
SLOTS: Final = 60
DEVICES_PER_READ: Final = 1000
_Text = Annotated[str, Meta(max_length=256, pattern="^[^\\u0000]*$")]


class CampaignListQuery(Params, frozen=True):
    """From where on."""

    cursor: str | None = None


class CampaignDevicesQuery(Params, frozen=True):
    """Which devices: of a kind, and the one with an id."""

    status: Literal["", "succeeded", "failed", "silent", "overdue"] = ""
    device: _Text = ""
    cursor: str | None = None
    limit: requests.PageSize = 50


@Endpoint("GET", "/v1/campaigns", query=CampaignListQuery, scope="read")
async def list_campaigns(call: Call) -> operator.CampaignPage:
    """The campaigns that messages named, newest first."""
    store, before = call.store, call.service.cursors.open_number(call.query(CampaignListQuery).cursor)
    found = await store.latest_campaigns(among=call.caller.accounts, before=before, limit=CAMPAIGNS)
    more = call.service.cursors.seal(found[-1].id) if len(found) == CAMPAIGNS else None
    return operator.CampaignPage(campaigns=[await _state(call, one) for one in found], cursor=more)


@Endpoint("GET", PATH, scope="read")
async def show_campaign(call: Call) -> operator.CampaignDetails:
    """A campaign: its devices by what became of them, when they said so, and why some failed."""
    found, store = await _campaign(call), call.store
    return operator.CampaignDetails(
        **asdict(await _state(call, found)),
        reasons=await store.campaign_reasons(found.id, limit=REASONS),
        timeline=await store.campaign_timeline(found.id, slots=SLOTS),
    )


@Endpoint("GET", f"{PATH}/devices", query=CampaignDevicesQuery, scope="read")
async def list_devices(call: Call) -> operator.DevicePage:
    """A campaign's devices in order; a page may be short although there is a cursor."""
    query, found, store = call.query(CampaignDevicesQuery), await _campaign(call), call.store
    is_over = _is_over(call, found)
    if query.status == "overdue" and not is_over:
        return operator.DevicePage(devices=[])
    kind = "silent" if query.status == "overdue" else query.status or None
    if query.device:
        reports = await store.find_device(storable(query.device), among=[call.account], limit=DEVICES_PER_READ)
        named = [_device(one, is_over=is_over) for one in reports if one.campaign == found.campaign]
        return operator.DevicePage(devices=named)
    devices: list[LedgerDevice] = []
    after = call.service.cursors.open(query.cursor)
    # Each read is short, so that other calls get their turn in between.
    for _ in range(READS_PER_PAGE):
        page, after = await store.ledger_devices(found.id, kind=kind, after=after or "", limit=DEVICES_PER_READ)
        devices += page
        if after is None or len(devices) > query.limit:
            break
    if len(devices) > query.limit:
        devices, after = devices[: query.limit], devices[query.limit - 1].device
    cursor = None if after is None else call.service.cursors.seal(after)
    return operator.DevicePage(devices=[_device(one, is_over=is_over) for one in devices], cursor=cursor)


async def _campaign(call: Call) -> LedgerCampaign:
    name = storable(requests.segment(call.request, "campaign"))
    found = await call.store.ledger_campaigns(name=(call.account, name), limit=1)
    if not found:
        raise errors.NOT_FOUND("No message named this campaign; check its id.")
    return found[0]


def _is_over(call: Call, campaign: LedgerCampaign) -> bool:
    return campaign.ends_at is not None and campaign.ends_at <= call.service.now()


async def _state(call: Call, campaign: LedgerCampaign) -> operator.CampaignState:
    counts = await call.store.ledger_counts(campaign.id)
    failed = sum(one.devices for one in counts if one.status in FAILED)
    final = sum(one.devices for one in counts if one.is_final)
    silent = sum(one.devices for one in counts if not one.status)
    pending = sum(one.devices for one in counts if not one.is_final)
    overdue, repaired = pending if _is_over(call, campaign) else 0, sum(one.repairs for one in counts)
    numbers = (final - failed, failed, pending - silent, silent, overdue, repaired)
    until, at = to_datetime_or_none(campaign.ends_at), to_datetime_or_none(campaign.at)
    return operator.CampaignState(campaign.account, campaign.campaign, *numbers, campaign.status, until, at)


def _device(one: LedgerDevice | LedgerReport, *, is_over: bool) -> operator.DeviceState:
    if one.status is not None and place(one.status)[1] >= FINAL_RANK:
        kind = "failed" if one.status in FAILED else "succeeded"
    else:
        kind = "overdue" if is_over else "silent" if one.status is None else "other"
    at, reason = to_datetime_or_none(one.at), one.detail
    state = operator.DeviceState(device_id=one.device, kind=kind, status=one.status, reason=reason, at=at)
    if isinstance(one, LedgerReport) or one.status is None:
        return state
    return replace(state, source="report" if one.by_report else "callback", message_id=one.message)


FOUND: Final = 10
_AGE: Final = re.compile(r"(\d{1,6})([smhdw])")
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_FILTERS: Final = ("type", "state", "since", "until")


class SearchQuery(Params, frozen=True):
    """An account or a campaign by its beginning, a message or a device by its id; or messages by filters.

    Filters: `type:`, `state:` (pending, delivered, dead), `since:` and `until:` (RFC 3339, or an age such as 1h or 2d).
    Beside them may stand the beginning of an account's name.
    """

    q: Annotated[str, Meta(min_length=1, max_length=256, pattern="^[^\\u0000]*$")]


def parse_search(text: str, now: float) -> tuple[str, MessageFilter | None]:
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
    since, until = (_time(name, given.get(name), now) for name in ("since", "until"))
    try:
        state = msgspec.convert(given.get("state"), operator.MessageStateName | None)
    except msgspec.ValidationError:
        raise errors.INVALID("The search knows state:pending, state:delivered and state:dead.") from None
    return " ".join(words), MessageFilter(state=state, type=given.get("type"), since=since, until=until)


def _time(name: str, value: str | None, now: float) -> float | None:
    if value is None:
        return None
    age = _AGE.fullmatch(value)
    if age is not None and (time := now - int(age[1]) * _UNITS[age[2]]) >= 0:
        return time
    try:
        return msgspec.convert(value, Time).timestamp()
    except (msgspec.ValidationError, OverflowError):
        raise errors.INVALID(f"Write {name}: as a time (2026-11-25T20:00:00Z) or an age (30m, 1h, 2d).") from None


@Endpoint("GET", "/v1/search", query=SearchQuery, scope="read")
async def search(call: Call) -> operator.Found:
    """What is called like this, or matches the filters: accounts, campaigns, devices and messages of the caller."""
    text, matching = parse_search(call.query(SearchQuery).q, call.service.now())
    store, among = call.store, call.caller.accounts
    accounts = list[operator.AccountState]()
    if text:
        before = text[:-1] + (chr(ord(text[-1]) - 1) + "\U0010ffff" if text[-1] > " " else "")
        behind = await call.service.accounts(among=among, after=before, limit=FOUND)
        accounts = [one for one in behind if one.account.startswith(text)]
    messages, named, devices = list[Message](), list[LedgerCampaign](), list[LedgerReport]()
    if matching is None:
        message = await store.message(text)
        if message is not None and call.caller.has(message.account):
            messages = [message]
        elif len(accounts) == 1 and accounts[0].account == text:
            messages = list((await store.messages(text, MessageFilter(), limit=FOUND)).messages)
        named = await store.latest_campaigns(among=among, campaign=text, limit=FOUND)
        devices = await store.find_device(storable(text), among=among, limit=FOUND)
    else:
        names = [one.account for one in accounts] if text else among
        if names is not None and len(names) == 1:
            messages, _ = await read_page(partial(store.messages, names[0], matching), None, FOUND)
        elif names is None or names:
            messages, _ = await read_page(partial(store.search_messages, matching, among=names), None, FOUND)
    read = partial(views.read, operator.FoundDevice)
    return operator.Found(
        accounts=accounts,
        messages=[views.message_state(one) for one in messages],
        devices=[read(asdict(one), campaign_id=one.campaign, device_id=one.device) for one in devices],
        campaigns=[operator.CampaignState(account=one.account, campaign_id=one.campaign) for one in named],
    )

"""Campaigns and their devices, by the ledger."""

from collections.abc import Sequence
from typing import Annotated, Final, Literal

from msgspec import Meta
from msgspec.structs import asdict

from ...contract.campaigns import (
    CampaignDetails,
    CampaignPage,
    CampaignState,
    DevicePage,
    DeviceState,
    FailureReason,
)
from ...contract.life_cycle import FAILED, FINAL_RANK, place
from ...store.ledger import storable
from ...store.ledger_records import CampaignDevice, LedgerCampaign, LedgerCount
from ...store.views import to_datetime, to_datetime_or_none
from .. import errors, requests
from ..requests import Params
from ..routing import Call, Endpoint
from .accounts import PATH as ACCOUNT_PATH

PATH: Final = f"{ACCOUNT_PATH}/campaigns/{{campaign}}"
CAMPAIGNS: Final = 20
REASONS: Final = 20
SCAN: Final = 1000
"""Devices that one read looks at."""
READS_PER_PAGE: Final = 20
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
async def list_campaigns(call: Call) -> CampaignPage:
    """The campaigns that messages named, newest first."""
    store, before = call.service.store, call.service.cursors.open_number(call.query(CampaignListQuery).cursor)
    found = await store.latest_campaigns(among=call.caller.accounts, before=before, limit=CAMPAIGNS)
    states = [_state(call, one, await store.ledger_counts(one.id)) for one in found]
    more = call.service.cursors.seal(found[-1].id) if len(found) == CAMPAIGNS else None
    return CampaignPage(campaigns=states, cursor=more)


@Endpoint("GET", PATH, scope="read")
async def show_campaign(call: Call) -> CampaignDetails:
    """A campaign: its devices by what became of them, and why some failed."""
    found = await _campaign(call)
    state = _state(call, found, await call.service.store.ledger_counts(found.id))
    reasons = await call.service.store.campaign_reasons(found.id, limit=REASONS)
    return CampaignDetails(**asdict(state), reasons=[FailureReason(reason, count) for reason, count in reasons])


@Endpoint("GET", f"{PATH}/devices", query=CampaignDevicesQuery, scope="read")
async def list_devices(call: Call) -> DevicePage:
    """A campaign's devices in order; a page may be short although there is a cursor."""
    query, found, store = call.query(CampaignDevicesQuery), await _campaign(call), call.service.store
    is_over = found.ends_at is not None and found.ends_at <= call.service.now()
    if query.status == "overdue" and not is_over:
        return DevicePage(devices=[])
    kind = "silent" if query.status == "overdue" else query.status or None
    if query.device:
        reports = await store.find_device(storable(query.device), among=[call.account], limit=SCAN)
        return DevicePage(
            devices=[
                DeviceState(
                    one.device, _kind(one.status, is_over=is_over), one.status, one.detail, None, to_datetime(one.at)
                )
                for one in reports
                if one.campaign == found.campaign
            ]
        )
    devices: list[CampaignDevice] = []
    after: str | None = call.service.cursors.open(query.cursor) or ""
    # Each read is short, so that other calls get their turn in between.
    for _ in range(READS_PER_PAGE):
        page = await store.campaign_devices(found.id, kind=kind, after=after or "", limit=SCAN)
        devices, after = [*devices, *page.devices], page.next
        if after is None or len(devices) > query.limit:
            break
    if len(devices) > query.limit:
        devices = devices[: query.limit]
        after = devices[-1].device
    cursor = None if after is None else call.service.cursors.seal(after)
    return DevicePage(devices=[_device(one, is_over=is_over) for one in devices], cursor=cursor)


async def _campaign(call: Call) -> LedgerCampaign:
    name = storable(requests.segment(call.request, "campaign") or "")
    found = await call.service.store.ledger_campaigns(name=(call.account, name), limit=1)
    if not found:
        raise errors.NOT_FOUND("No message named this campaign; check its id.")
    return found[0]


def _state(call: Call, campaign: LedgerCampaign, counts: Sequence[LedgerCount]) -> CampaignState:
    failed = sum(one.devices for one in counts if one.status in FAILED)
    final = sum(one.devices for one in counts if one.is_final)
    silent = sum(one.devices for one in counts if not one.status)
    pending = sum(one.devices for one in counts if not one.is_final)
    is_over = campaign.ends_at is not None and campaign.ends_at <= call.service.now()
    return CampaignState(
        account=campaign.account,
        campaign_id=campaign.campaign,
        succeeded=final - failed,
        failed=failed,
        other=pending - silent,
        silent=silent,
        overdue=pending if is_over else 0,
        repaired=sum(one.repairs for one in counts),
        status=campaign.status,
        until=to_datetime_or_none(campaign.ends_at),
        last_at=to_datetime_or_none(campaign.at),
    )


def _device(one: CampaignDevice, *, is_over: bool) -> DeviceState:
    return DeviceState(
        device_id=one.device,
        kind=_kind(one.status, is_over=is_over),
        status=one.status,
        reason=one.detail,
        source=None if one.status is None else "report" if one.by_report else "callback",
        at=to_datetime_or_none(one.at),
        message_id=one.message,
    )


def _kind(status: str | None, *, is_over: bool) -> str:
    if status is not None and place(status)[1] >= FINAL_RANK:
        return "failed" if status in FAILED else "succeeded"
    return "overdue" if is_over else "silent" if status is None else "other"

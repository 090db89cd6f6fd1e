"""ThingSpace's reads of campaigns and devices, answered from what was published (docs/service.md, Reads)."""

from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Final, TypeVar

import msgspec
from msgspec import Meta
from starlette.responses import Response

from ...contract.life_cycle import place
from ...contract.models import (
    CampaignSoftware,
    CheckInHistoryItem,
    DeviceSoftwareUpgrade,
    V2CampaignDevice,
    V2CampaignHistory,
    V2CampaignMetaInfo,
    V2DeviceStatus,
)
from ...store.ledger import storable
from ...store.ledger_records import LedgerReport
from .. import errors, requests
from ..routing import Call, Endpoint

PAGE: Final = 1000
"""Devices or campaigns in one answer; ThingSpace's number."""
_BASE: Final = "/api/fota/v2"
_CLIENT: Final = "HTTP"
CampaignT = TypeVar("CampaignT", bound=CampaignSoftware)
Text = Annotated[str, Meta(max_length=1024, pattern="^[^\\u0000]*$")]

_endpoint = partial(Endpoint, "GET", by="both tokens", scope="callbacks")


class CampaignsQuery(msgspec.Struct, frozen=True, rename="camel"):
    """Which campaigns, behind which one."""

    campaign_status: Text
    last_seen_campaign_id: Text = ""


class DevicesQuery(msgspec.Struct, frozen=True, rename="camel"):
    """Behind which device."""

    last_seen_device_id: Text = ""


@_endpoint(f"{_BASE}/campaigns/{{account}}/{{campaign}}")
async def campaign_information(call: Call) -> CampaignSoftware:
    """A campaign: what its messages said of it."""
    campaign = _named(call, "campaign")
    reports = await call.service.store.reports_of_campaign(call.account, campaign, limit=1)
    if not reports:
        raise errors.NO_CAMPAIGN()
    return _campaign(CampaignSoftware, call.account, reports[0])


@_endpoint(f"{_BASE}/reports/{{account}}/campaigns", query=CampaignsQuery)
async def campaign_history(call: Call) -> V2CampaignHistory:
    """The account's campaigns with a status; a page may have few although there are more."""
    query = call.query(CampaignsQuery)
    reports = await call.service.store.reports_of_device(
        call.account, "", after=query.last_seen_campaign_id, limit=PAGE + 1
    )
    page = reports[:PAGE]
    wanted, _ = place(query.campaign_status)
    return V2CampaignHistory(
        has_more_data=len(reports) > PAGE,
        last_seen_campaign_id=page[-1].campaign if page else None,
        campaign_list=tuple(_campaign(V2CampaignMetaInfo, call.account, one) for one in page if one.status == wanted),
    )


@_endpoint(f"{_BASE}/reports/{{account}}/campaigns/{{campaign}}/devices", query=DevicesQuery)
async def campaign_devices(call: Call) -> V2CampaignDevice:
    """A page of a campaign's devices with the last status of each."""
    campaign = _named(call, "campaign")
    after = call.query(DevicesQuery).last_seen_device_id
    store = call.service.store
    reports = await store.reports_of_campaign(call.account, campaign, after=after, limit=PAGE + 1)
    found = await store.ledger_campaigns(name=(call.account, campaign), limit=1)
    if not found:
        raise errors.NO_CAMPAIGN()
    counts = await store.ledger_counts(found[0].id)
    page = reports[:PAGE]
    return V2CampaignDevice(
        total_device=sum(one.devices for one in counts),
        has_more_data=len(reports) > PAGE,
        last_seen_device_id=page[-1].device if page else None,
        max_page_size=PAGE,
        device_list=tuple(
            V2DeviceStatus(device_id=one.device, status=one.status, result_reason=one.detail) for one in page
        ),
    )


@_endpoint(f"{_BASE}/reports/{{account}}/devices/{{device}}")
async def device_history(call: Call) -> Response:
    """The campaigns of a device, and how each ended."""
    return errors.answer(
        [
            DeviceSoftwareUpgrade(
                device_id=one.device,
                id=one.campaign,
                account_name=call.account,
                software_name=(campaign := _campaign(CampaignSoftware, call.account, one)).software_name,
                start_date=campaign.start_date,
                status=one.status,
                reason=one.detail or "",
            )
            for one in await _of_device(call)
        ]
    )


@_endpoint(f"{_BASE}/logging/{{account}}/devices/{{device}}/checkInHistory")
async def check_ins(call: Call) -> Response:
    """The last check-in of a device in each campaign: when its message was published."""
    return errors.answer(
        [
            CheckInHistoryItem(
                device_id=one.device,
                client_type=_CLIENT,
                result=one.status,
                failure_type=one.detail or "",
                time_completed=datetime.fromtimestamp(one.at, UTC).isoformat(timespec="milliseconds"),
            )
            for one in await _of_device(call)
        ]
    )


async def _of_device(call: Call) -> list[LedgerReport]:
    device = _named(call, "device")
    return await call.service.store.reports_of_device(call.account, device, limit=PAGE) if device else []


def _named(call: Call, name: str) -> str:
    """The campaign or device in the path, as the ledger writes it; empty if it cannot be one."""
    return storable(requests.segment(call.request, name) or "")


def _campaign(kind: type[CampaignT], account: str, report: LedgerReport) -> CampaignT:
    """What was told of a campaign; its status only if a message was about itself."""
    told = report.told if report.device else report.detail
    campaign = kind() if told is None else msgspec.json.decode(told, type=kind)
    status = None if report.device else report.status
    return msgspec.structs.replace(campaign, id=report.campaign, account_name=account, status=status)

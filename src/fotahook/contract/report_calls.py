"""The calls that read campaigns and devices, and how to go from one page of devices to the next."""

from collections.abc import Callable
from typing import TypeVar

from .calls import Call, read_json, segment
from .errors import FotaV2ResultException, ResponseError
from .exchange import ApiResponse, Reply
from .models import (
    CampaignSoftware,
    CheckInHistoryItem,
    DeviceSoftwareUpgrade,
    V2CampaignDevice,
    V2CampaignHistory,
)
from .operator_calls import query_string
from .servers import Server

T = TypeVar("T")

FIRST_PAGE = "0"
"""The `lastSeenDeviceId` of the first page."""


def get_campaign_information(account: str, campaign_id: str) -> Call[CampaignSoftware]:
    """GET: a campaign."""
    read = read_json(CampaignSoftware, strict=False)
    return _get("/campaigns/{}/{}", read, account=account, campaign_id=campaign_id)


def get_campaign_history_by_status(
    account: str, campaign_status: str, last_seen_campaign_id: str | None
) -> Call[V2CampaignHistory]:
    """GET: a page of an account's campaigns that have a status."""
    last = _optional("last_seen_campaign_id", last_seen_campaign_id)
    segment("campaign_status", campaign_status)
    query = query_string(campaignStatus=campaign_status, lastSeenCampaignId=last)
    return _get("/reports/{}/campaigns", read_json(V2CampaignHistory, strict=False), query, account=account)


def get_campaign_device_status(
    account: str, campaign_id: str, last_seen_device_id: str | None
) -> Call[V2CampaignDevice]:
    """GET: a page of a campaign's devices."""
    query = query_string(lastSeenDeviceId=_optional("last_seen_device_id", last_seen_device_id))
    read = read_json(V2CampaignDevice, strict=False)
    return _get("/reports/{}/campaigns/{}/devices", read, query, account=account, campaign_id=campaign_id)


def get_device_firmware_upgrade_history(account: str, device_id: str) -> Call[list[DeviceSoftwareUpgrade]]:
    """GET: the campaigns of a device."""
    read = _read_list(DeviceSoftwareUpgrade)
    return _get("/reports/{}/devices/{}", read, account=account, device_id=device_id)


def get_device_check_in_history(account: str, device_id: str) -> Call[list[CheckInHistoryItem]]:
    """GET: the check-ins of a device."""
    read = _read_list(CheckInHistoryItem)
    return _get("/logging/{}/devices/{}/checkInHistory", read, account=account, device_id=device_id)


def next_page(response: ApiResponse[V2CampaignDevice], last_seen_device_id: str | None) -> str | None:
    """The `lastSeenDeviceId` of the page after this one, None after the last page.

    ResponseError if it would be this page again, since that would never end.
    """
    page = response.data
    if not page.has_more_data:
        return None
    last = page.last_seen_device_id or (page.device_list[-1].device_id if page.device_list else None)
    if last in (None, last_seen_device_id):
        text = f"a page of devices says that there are more, but its lastSeenDeviceId is {last!r} again"
        reply = Reply(response.status_code, response.reason_phrase, response.headers, response.raw_body)
        raise ResponseError(text, request=response.request, reply=reply)
    return last


def _get(path: str, read: Callable[[bytes], T], query: str = "", **segments: str) -> Call[T]:
    path = path.format(*(segment(name, value) for name, value in segments.items())) + query
    server = Server.SOFTWARE_MANAGEMENT_V2
    return Call("GET", server, path, read, session=True, error_400=FotaV2ResultException)


def _optional(name: str, value: str | None) -> str | None:
    if value is not None:
        # The same checks as for a part of the path: a number would lose its leading zeros.
        segment(name, value)
    return value


def _read_list(item: type[T]) -> Callable[[bytes], list[T]]:
    read = read_json(list[item], strict=False)  # type: ignore[valid-type]  # a type that is known at run time
    # An empty body is no list, as it is no callback in `list_registered_callbacks`.
    return lambda body: read(body) if body.strip() else []

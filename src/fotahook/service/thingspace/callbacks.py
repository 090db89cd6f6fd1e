"""ThingSpace's four calls: the one callback URL of an account (docs/thingspace.md, The four calls). And its reads of
campaigns and devices, answered from what was published (docs/service.md, Reads)."""

from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Final, TypeVar

import msgspec
from msgspec import Meta
from starlette.responses import Response

from ...contract import models
from ...contract.addresses import account_warning, origin, port_warning, url_refusal
from ...contract.messages import place
from ...store.ledger import LedgerReport, storable
from .. import errors, requests
from ..context import Settings
from ..routing import Call, Endpoint


class Registration(msgspec.Struct, frozen=True):
    """The body of POST and PUT. The URL may be any value: the rules for URLs say what is wrong with it.

    PUT's documentation names the field `callback` in its table and `url` in its example.
    """

    url: object = None
    callback: object = None


_endpoint = partial(Endpoint, by="both tokens", scope="callbacks")
_BASE: Final = "/api/fota/v2"
_CALLBACK: Final = f"{_BASE}/callbacks/{{account}}"
PAGE: Final = 1000
"""Devices or campaigns in one answer; ThingSpace's number."""
CampaignT = TypeVar("CampaignT", bound=msgspec.Struct)
Text = Annotated[str, Meta(max_length=1024, pattern="^[^\\u0000]*$")]


@_endpoint("GET", _CALLBACK)
async def list_callback(call: Call) -> Response:
    """The account's callback; 200 without a body if none is registered."""
    callback = await call.store.callback(call.account)
    return Response(b"") if callback is None else errors.answer(models.CallbackSummary(callback.url))


@_endpoint("POST", _CALLBACK, body=models.FotaV2CallbackRegistrationRequest)
async def register_callback(call: Call) -> Response:
    """Registers the URL of the body, in place of an earlier one."""
    return await replace(call, (await call.json(Registration)).url)


@_endpoint("PUT", _CALLBACK, body=models.FotaV2CallbackRegistrationRequest)
async def update_callback(call: Call) -> Response:
    """Registers the URL of the body, under either of PUT's names for it."""
    update = await call.json(Registration)
    return await replace(call, update.callback if update.url is None else update.url)


@_endpoint("DELETE", _CALLBACK)
async def deregister_callback(call: Call) -> models.FotaV2SuccessResult:
    """Removes the callback; a success even if none is registered."""
    await call.audited("callback.deregister").deregister(call.account, actor=call.caller.name)
    return models.FotaV2SuccessResult(success=True)


async def replace(call: Call, given: object) -> Response:
    """Register a URL; an ApiError if it is new and does not answer the challenge, where one is asked for."""
    url = checked_url(given, call.service.settings)
    store, challenge = call.audited("callback.register", detail=origin(url)), call.service.settings.challenge_receiver
    if challenge is not None:
        known = await store.callback(call.account)
        if known is None or known.url != url:
            keys = [key.id for key in await store.credentials("signing_key", call.account)]
            if (reason := await challenge(url, call.account, keys)) is not None:
                raise errors.NO_ANSWER(reason)
    callback = await store.register(call.account, url, actor=call.caller.name)
    warnings = [text for text in (port_warning(url), account_warning(call.account)) if text is not None]
    # RFC 7234, section 5.5. 299: a persistent warning without a code of its own.
    headers = {"Warning": ", ".join(f'299 fotahook "{text}"' for text in warnings)} if warnings else {}
    return errors.answer(models.FotaV2CallbackRegistrationResult(callback.url), headers=headers)


def checked_url(url: object, settings: Settings) -> str:
    if url is None:
        raise errors.INVALID('The body needs a url, such as {"url": "https://example.com/callbacks"}.')
    reason = url_refusal(url, allow_http=settings.allow_http, allowed=settings.allowed_networks)
    if reason is not None or not isinstance(url, str):
        raise errors.INVALID(f"{reason}.")
    return url


class CampaignsQuery(msgspec.Struct, frozen=True, rename="camel"):
    """Which campaigns, behind which one."""

    campaign_status: Text
    last_seen_campaign_id: Text = ""


class DevicesQuery(msgspec.Struct, frozen=True, rename="camel"):
    """Behind which device."""

    last_seen_device_id: Text = ""


@_endpoint("GET", f"{_BASE}/campaigns/{{account}}/{{campaign}}")
async def campaign_information(call: Call) -> models.CampaignSoftware:
    """A campaign: what its messages said of it."""
    reports = await call.store.reports_of_campaign(call.account, _named(call, "campaign"), limit=1)
    if not reports:
        raise errors.NO_CAMPAIGN()
    return _campaign(models.CampaignSoftware, call.account, reports[0])


@_endpoint("GET", f"{_BASE}/reports/{{account}}/campaigns", query=CampaignsQuery)
async def campaign_history(call: Call) -> models.V2CampaignHistory:
    """The account's campaigns with a status; a page may have few although there are more."""
    query = call.query(CampaignsQuery)
    reports = await call.store.reports_of_device(call.account, "", after=query.last_seen_campaign_id, limit=PAGE + 1)
    page, more = reports[:PAGE], len(reports) > PAGE
    wanted, _ = place(query.campaign_status)
    found = [_campaign(models.V2CampaignMetaInfo, call.account, one) for one in page if one.status == wanted]
    last = page[-1].campaign if page else None
    return models.V2CampaignHistory(has_more_data=more, last_seen_campaign_id=last, campaign_list=tuple(found))


@_endpoint("GET", f"{_BASE}/reports/{{account}}/campaigns/{{campaign}}/devices", query=DevicesQuery)
async def campaign_devices(call: Call) -> models.V2CampaignDevice:
    """A page of a campaign's devices with the last status of each."""
    campaign, store, after = _named(call, "campaign"), call.store, call.query(DevicesQuery).last_seen_device_id
    reports = await store.reports_of_campaign(call.account, campaign, after=after, limit=PAGE + 1)
    known = await store.ledger_campaigns(name=(call.account, campaign), limit=1)
    if not known:
        raise errors.NO_CAMPAIGN()
    counts, page = await store.ledger_counts(known[0].id), reports[:PAGE]
    devices = [models.V2DeviceStatus(device_id=one.device, status=one.status, result_reason=one.detail) for one in page]
    return models.V2CampaignDevice(
        total_device=sum(one.devices for one in counts),
        has_more_data=len(reports) > PAGE,
        last_seen_device_id=page[-1].device if page else None,
        max_page_size=PAGE,
        device_list=tuple(devices),
    )


@_endpoint("GET", f"{_BASE}/reports/{{account}}/devices/{{device}}")
async def device_history(call: Call) -> Response:
    """The campaigns of a device, and how each ended."""
    reports = await _of_device(call)
    told = [_campaign(models.DeviceSoftwareUpgrade, call.account, one) for one in reports]
    ends = [{"device_id": one.device, "status": one.status, "reason": one.detail or ""} for one in reports]
    return errors.answer([msgspec.structs.replace(one, **end) for one, end in zip(told, ends, strict=True)])


@_endpoint("GET", f"{_BASE}/logging/{{account}}/devices/{{device}}/checkInHistory")
async def check_ins(call: Call) -> Response:
    """The last check-in of a device in each campaign: when its message was published."""
    items = [
        models.CheckInHistoryItem(
            device_id=one.device,
            client_type="HTTP",
            result=one.status,
            failure_type=one.detail or "",
            time_completed=datetime.fromtimestamp(one.at, UTC).isoformat(timespec="milliseconds"),
        )
        for one in await _of_device(call)
    ]
    return errors.answer(items)


async def _of_device(call: Call) -> list[LedgerReport]:
    device = _named(call, "device")
    return await call.store.reports_of_device(call.account, device, limit=PAGE) if device else []


def _named(call: Call, name: str) -> str:
    """The campaign or device in the path, as the ledger writes it; empty if it cannot be one."""
    return storable(requests.segment(call.request, name))


def _campaign(kind: type[CampaignT], account: str, report: LedgerReport) -> CampaignT:
    told = report.told if report.device else report.detail
    campaign = kind() if told is None else msgspec.json.decode(told, type=kind)
    status = None if report.device else report.status
    return msgspec.structs.replace(campaign, id=report.campaign, account_name=account, status=status)

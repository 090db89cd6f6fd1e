"""The controllers of ThingSpace's calls, for threads and for tasks, and what moves a callback."""

from functools import partial
from typing import Final, TypeAlias, Unpack

from ..contract import models
from ..contract.calls import (
    FIRST_PAGE,
    Registration,
    callback_call,
    devices_call,
    encode_registration,
    next_page,
    read_json,
    read_summary,
    report_call,
)
from ..contract.errors import ResponseError
from ..contract.exchange import ApiResponse
from ..contract.urls import same_url
from ._base import AsyncMethods, Methods, SyncMethods, operation
from ._flow import Pipeline
from ._pages import Listing, paged
from ._settings import CallOptions, Limits

READ_BACK_SECONDS: Final = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
"""The waits before the reads that look for the new URL: ThingSpace shows a registration a while after it was made."""

Registered: TypeAlias = ApiResponse[models.FotaV2CallbackRegistrationResult]
_read_registered = read_json(models.FotaV2CallbackRegistrationResult)


class _Callbacks(Methods):
    """The four calls; each `account` has one callback URL.

    `timeout` (seconds for the whole call, retries included) and `max_retries` override the client's. Bad arguments
    raise TypeError or ValueError, a 400 raises FotaV2ResultException, and other failures what `fotahook.FotahookError`
    lists. The methods of AsyncClient's controller are coroutines.
    """

    @operation
    async def list_registered_callbacks(
        self, account: str, **options: Unpack[CallOptions]
    ) -> ApiResponse[models.CallbackSummary | None]:
        """The callback registered for an account; `data` is None if there is none."""
        return await self._perform(callback_call("GET", account, read_summary), **options)

    @operation
    async def update_callback(self, account: str, body: Registration, **options: Unpack[CallOptions]) -> Registered:
        """Replace the callback URL of an account."""
        return await self._perform(
            callback_call("PUT", account, _read_registered, encode_registration(body)), **options
        )

    @operation
    async def register_callback(self, account: str, body: Registration, **options: Unpack[CallOptions]) -> Registered:
        """Register the callback URL of an account, in place of an earlier one."""
        return await self._perform(
            callback_call("POST", account, _read_registered, encode_registration(body)), **options
        )

    @operation
    async def deregister_callback(
        self, account: str, **options: Unpack[CallOptions]
    ) -> ApiResponse[models.FotaV2SuccessResult]:
        """Remove the callback URL of an account.

        ThingSpace keeps no messages for an account without one: what it would send meanwhile is lost.
        """
        return await self._perform(callback_call("DELETE", account, read_json(models.FotaV2SuccessResult)), **options)


class _Campaigns(Methods):
    """Campaigns. Options and errors are those of the callback calls."""

    @operation
    async def get_campaign_information(
        self, account: str, campaign_id: str, **options: Unpack[CallOptions]
    ) -> ApiResponse[models.CampaignSoftware]:
        """A campaign: its software, dates and status."""
        path = "/campaigns/{account}/{campaign_id}"
        return await self._perform(
            report_call(path, models.CampaignSoftware, account=account, campaign_id=campaign_id), **options
        )


class _Reports(Methods):
    """Reports on campaigns and devices. Options and errors are those of the callback calls."""

    @operation
    async def get_campaign_history_by_status(
        self,
        account: str,
        campaign_status: str,
        last_seen_campaign_id: str | None = None,
        **options: Unpack[CallOptions],
    ) -> ApiResponse[models.V2CampaignHistory]:
        """A page of the account's campaigns that have a status, such as `CampaignEnded`."""
        path = "/reports/{account}/campaigns?campaignStatus={campaign_status}"
        values = {"account": account, "campaign_status": campaign_status}
        if last_seen_campaign_id is not None:
            path += "&lastSeenCampaignId={last_seen_campaign_id}"
            values["last_seen_campaign_id"] = last_seen_campaign_id
        return await self._perform(report_call(path, models.V2CampaignHistory, **values), **options)

    @operation
    async def get_campaign_device_status(
        self, account: str, campaign_id: str, last_seen_device_id: str | None = None, **options: Unpack[CallOptions]
    ) -> ApiResponse[models.V2CampaignDevice]:
        """A page of a campaign's devices: up to 1,000 with ids above `last_seen_device_id`."""
        return await self._perform(devices_call(account, campaign_id, last_seen_device_id), **options)

    @operation
    async def get_device_firmware_upgrade_history(
        self, account: str, device_id: str, **options: Unpack[CallOptions]
    ) -> ApiResponse[list[models.DeviceSoftwareUpgrade]]:
        """The campaigns of a device, and how each ended."""
        path, kind = "/reports/{account}/devices/{device_id}", list[models.DeviceSoftwareUpgrade]
        return await self._perform(report_call(path, kind, account=account, device_id=device_id), **options)

    @paged
    def iter_campaign_devices(
        self, account: str, campaign_id: str, last_seen_device_id: str = FIRST_PAGE, **options: Unpack[CallOptions]
    ) -> Listing[models.V2CampaignDevice, models.V2DeviceStatus]:
        """All devices of a campaign, read page by page; only one page is in memory.

        `last_seen_device_id` continues behind a device. `timeout` and `max_retries` are for each page.
        """
        page_at = partial(devices_call, account, campaign_id)
        return Listing(page_at, lambda page: page.device_list or (), next_page, last_seen_device_id, options)


class _ServerLogging(Methods):
    """The server's log of a device. Options and errors are those of the callback calls."""

    @operation
    async def get_device_check_in_history(
        self, account: str, device_id: str, **options: Unpack[CallOptions]
    ) -> ApiResponse[list[models.CheckInHistoryItem]]:
        """The check-ins of a device."""
        path, kind = "/logging/{account}/devices/{device_id}/checkInHistory", list[models.CheckInHistoryItem]
        return await self._perform(report_call(path, kind, account=account, device_id=device_id), **options)


class SoftwareManagementCallbacksV2Controller(_Callbacks, SyncMethods): ...


class AsyncSoftwareManagementCallbacksV2Controller(_Callbacks, AsyncMethods): ...


class CampaignsV2Controller(_Campaigns, SyncMethods): ...


class AsyncCampaignsV2Controller(_Campaigns, AsyncMethods): ...


class SoftwareManagementReportsV2Controller(_Reports, SyncMethods): ...


class AsyncSoftwareManagementReportsV2Controller(_Reports, AsyncMethods): ...


class ServerLoggingController(_ServerLogging, SyncMethods): ...


class AsyncServerLoggingController(_ServerLogging, AsyncMethods): ...


async def move(pipeline: Pipeline, account: str, url: str, limits: Limits) -> models.Moved:
    """Replaces a callback without a gap, and reads back that it is replaced."""
    read, body = callback_call("GET", account, read_summary), encode_registration(url)
    found = (await pipeline.perform(read, limits)).data
    previous = None if found is None else found.url
    # Only POST is sure to register where nothing is registered. Nothing is ever removed first: see docs/sdk.md.
    method = "POST" if previous is None else "PUT"
    await pipeline.perform(callback_call(method, account, _read_registered, body), limits)
    for seconds in READ_BACK_SECONDS:
        await pipeline.transport.sleep(seconds)
        found = (await pipeline.perform(read, limits)).data
        if found is not None and same_url(found.url, url):
            return models.Moved(previous, url)
    raise ResponseError(
        f"the callback of account {account} was set, but does not read back: "
        "somebody else may have set it too, so read it again"
    )

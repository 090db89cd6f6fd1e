"""The controllers of the five reads: what ThingSpace knows of campaigns and devices."""

from typing import Unpack

from ..contract import report_calls as calls
from ..contract.calls import Call
from ..contract.exchange import ApiResponse
from ..contract.models import (
    CampaignSoftware,
    CheckInHistoryItem,
    DeviceSoftwareUpgrade,
    V2CampaignDevice,
    V2CampaignHistory,
    V2DeviceStatus,
)
from ._base import AsyncController, Operation, SyncController, operation, response_of
from ._pages import Listing, paged
from ._settings import CallOptions


class _Campaigns:
    """Campaigns. Options and errors are those of the callback calls."""

    @operation
    def get_campaign_information(
        self, account: str, campaign_id: str, **options: Unpack[CallOptions]
    ) -> Operation[ApiResponse[CampaignSoftware]]:
        """A campaign: its software, dates and status."""
        return response_of(calls.get_campaign_information(account, campaign_id), **options)


class _Reports:
    """Reports on campaigns and devices. Options and errors are those of the callback calls."""

    @operation
    def get_campaign_history_by_status(
        self,
        account: str,
        campaign_status: str,
        last_seen_campaign_id: str | None = None,
        **options: Unpack[CallOptions],
    ) -> Operation[ApiResponse[V2CampaignHistory]]:
        """A page of the account's campaigns that have a status, such as `CampaignEnded`."""
        call = calls.get_campaign_history_by_status(account, campaign_status, last_seen_campaign_id)
        return response_of(call, **options)

    @operation
    def get_campaign_device_status(
        self, account: str, campaign_id: str, last_seen_device_id: str | None = None, **options: Unpack[CallOptions]
    ) -> Operation[ApiResponse[V2CampaignDevice]]:
        """A page of a campaign's devices: up to 1,000 with ids above `last_seen_device_id`."""
        call = calls.get_campaign_device_status(account, campaign_id, last_seen_device_id)
        return response_of(call, **options)

    @operation
    def get_device_firmware_upgrade_history(
        self, account: str, device_id: str, **options: Unpack[CallOptions]
    ) -> Operation[ApiResponse[list[DeviceSoftwareUpgrade]]]:
        """The campaigns of a device, and how each ended."""
        return response_of(calls.get_device_firmware_upgrade_history(account, device_id), **options)

    @paged
    def iter_campaign_devices(
        self,
        account: str,
        campaign_id: str,
        last_seen_device_id: str = calls.FIRST_PAGE,
        **options: Unpack[CallOptions],
    ) -> Listing[V2CampaignDevice, V2DeviceStatus]:
        """All devices of a campaign, read page by page; only one page is in memory.

        `last_seen_device_id` continues behind a device. `timeout` and `max_retries` are for each page.
        """

        def page_at(last: str | None) -> Call[V2CampaignDevice]:
            return calls.get_campaign_device_status(account, campaign_id, last)

        return Listing(page_at, lambda page: page.device_list or (), calls.next_page, last_seen_device_id, options)


class _ServerLogging:
    """The server's log of a device. Options and errors are those of the callback calls."""

    @operation
    def get_device_check_in_history(
        self, account: str, device_id: str, **options: Unpack[CallOptions]
    ) -> Operation[ApiResponse[list[CheckInHistoryItem]]]:
        """The check-ins of a device."""
        return response_of(calls.get_device_check_in_history(account, device_id), **options)


class CampaignsV2Controller(_Campaigns, SyncController):
    __doc__ = _Campaigns.__doc__


class AsyncCampaignsV2Controller(_Campaigns, AsyncController):
    __doc__ = _Campaigns.__doc__


class SoftwareManagementReportsV2Controller(_Reports, SyncController):
    __doc__ = _Reports.__doc__


class AsyncSoftwareManagementReportsV2Controller(_Reports, AsyncController):
    __doc__ = _Reports.__doc__


class ServerLoggingController(_ServerLogging, SyncController):
    __doc__ = _ServerLogging.__doc__


class AsyncServerLoggingController(_ServerLogging, AsyncController):
    __doc__ = _ServerLogging.__doc__

"""The models of ThingSpace's calls, named as in Verizon's published SDKs.

Unknown fields are ignored, as a newer service may add some. In the models of the reads every field may be missing.
"""

from .exchange import Model


class CallbackSummary(Model, frozen=True):
    """The callback registered for an account; `url` is unchanged, such as an `http://` URL registered with V1."""

    url: str | None = None


class FotaV2CallbackRegistrationRequest(Model, frozen=True):
    """The body of `register_callback` and `update_callback`: the HTTPS URL that receives the messages."""

    url: str


class FotaV2CallbackRegistrationResult(Model, frozen=True):
    """The response to `register_callback` and `update_callback`: the registered URL."""

    url: str | None = None


class FotaV2SuccessResult(Model, frozen=True):
    """The response to `deregister_callback`."""

    success: bool


class Moved(Model, frozen=True):
    """The result of `move_callback`: the URL that was registered before, None if there was none, and the new one."""

    previous: str | None
    url: str


class V2TimeWindow(Model, frozen=True, omit_defaults=True):
    """Hours of the day in which devices may download or install: from `start_time`, before `end_time`."""

    start_time: int | None = None
    end_time: int | None = None


class CampaignSoftware(Model, frozen=True, kw_only=True, omit_defaults=True):
    """A campaign, as `get_campaign_information` returns it. Dates are texts, as ThingSpace sends them: `YYYY-MM-DD`."""

    id: str | None = None
    account_name: str | None = None
    campaign_name: str | None = None
    software_name: str | None = None
    distribution_type: str | None = None
    make: str | None = None
    model: str | None = None
    software_from: str | None = None
    software_to: str | None = None
    start_date: str | None = None
    end_date: str | None = None
    download_after_date: str | None = None
    download_time_window_list: tuple[V2TimeWindow, ...] | None = None
    install_after_date: str | None = None
    install_time_window_list: tuple[V2TimeWindow, ...] | None = None
    status: str | None = None


class V2CampaignMetaInfo(CampaignSoftware, frozen=True, kw_only=True, omit_defaults=True):
    """A campaign in a V2CampaignHistory. The fields are those of CampaignSoftware."""


class V2CampaignHistory(Model, frozen=True, kw_only=True, omit_defaults=True):
    """A page of campaigns; pass its `last_seen_campaign_id` for the next one."""

    has_more_data: bool | None = None
    last_seen_campaign_id: str | None = None
    campaign_list: tuple[V2CampaignMetaInfo, ...] | None = None


class V2DeviceStatus(Model, frozen=True, kw_only=True, omit_defaults=True):
    """A device's status in a campaign."""

    device_id: str | None = None
    status: str | None = None
    result_reason: str | None = None


class V2CampaignDevice(Model, frozen=True, kw_only=True, omit_defaults=True):
    """A page of a campaign's devices; pass its `last_seen_device_id` for the next one."""

    total_device: int | None = None
    has_more_data: bool | None = None
    last_seen_device_id: str | None = None
    max_page_size: int | None = None
    device_list: tuple[V2DeviceStatus, ...] | None = None


class DeviceSoftwareUpgrade(Model, frozen=True, kw_only=True, omit_defaults=True):
    """A campaign in the history of a device."""

    device_id: str | None = None
    id: str | None = None
    account_name: str | None = None
    software_name: str | None = None
    start_date: str | None = None
    status: str | None = None
    reason: str | None = None


class CheckInHistoryItem(Model, frozen=True, kw_only=True, omit_defaults=True):
    """A check-in of a device. `time_completed` is the text that ThingSpace sent."""

    device_id: str | None = None
    client_type: str | None = None
    result: str | None = None
    failure_type: str | None = None
    time_completed: str | None = None

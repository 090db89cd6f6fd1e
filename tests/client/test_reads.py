"""The five reads: requests and models of the official SDK, tolerance, and pages of devices."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest
from verizon.models import (
    campaign_software,
    check_in_history_item,
    device_software_upgrade,
    v2_campaign_device,
    v2_campaign_history,
    v2_campaign_meta_info,
    v2_device_status,
    v2_time_window,
)

import fotahook
from tests.deadlines import DEADLINE

from .conftest import ACCOUNT, Chunks, OpenSdk, Peer, Received, respond
from .test_official import REQUIRED, official_client

CAMPAIGN = "60b5d639-ccdc-4db8-8824-069bd94c95bf"
IMEI = "354812345678902"
READS: dict[str, tuple[str, tuple[Any, ...]]] = {
    "get_campaign_information": ("campaigns_v2", (ACCOUNT, CAMPAIGN)),
    "get_campaign_history_by_status": ("software_management_reports_v2", (ACCOUNT, "CampaignEnded", "a/b c")),
    "get_campaign_device_status": ("software_management_reports_v2", (ACCOUNT, CAMPAIGN, IMEI)),
    "get_device_firmware_upgrade_history": ("software_management_reports_v2", (ACCOUNT, IMEI)),
    "get_device_check_in_history": ("server_logging", (ACCOUNT, IMEI)),
}
WINDOW = {"startTime": 3, "endTime": 4}
CAMPAIGN_BODY = {
    "id": CAMPAIGN,
    "accountName": ACCOUNT,
    "campaignName": "Autumn",
    "softwareName": "FOTA_Verizon_Model-A_02To03_HF",
    "distributionType": "HTTP",
    "make": "Verizon",
    "model": "Model-A",
    "softwareFrom": "FOTA_Verizon_Model-A_00To01_HF",
    "softwareTo": "FOTA_Verizon_Model-A_02To03_HF",
    "startDate": "2020-08-21",
    "endDate": "2020-08-22",
    "downloadAfterDate": "2020-08-21",
    "downloadTimeWindowList": [WINDOW],
    "installAfterDate": "2020-08-21",
    "installTimeWindowList": [WINDOW],
    "status": "CampaignEnded",
}
DEVICE = {"deviceId": IMEI, "status": "UpgradeFailed", "resultReason": "RovaClientDownloadFailed"}
BODIES: dict[str, Any] = {
    "get_campaign_information": CAMPAIGN_BODY,
    "get_campaign_history_by_status": {
        "hasMoreData": True,
        "lastSeenCampaignId": CAMPAIGN,
        "campaignList": [CAMPAIGN_BODY],
    },
    "get_campaign_device_status": {
        "totalDevice": 1,
        "hasMoreData": False,
        "lastSeenDeviceId": IMEI,
        "maxPageSize": 1000,
        "deviceList": [DEVICE],
    },
    "get_device_firmware_upgrade_history": [
        {
            "deviceId": IMEI,
            "id": CAMPAIGN,
            "accountName": ACCOUNT,
            "softwareName": "HF",
            "startDate": "2020-08-21",
            "status": "UpgradeSuccess",
            "reason": "success",
        }
    ],
    "get_device_check_in_history": [
        {
            "deviceId": IMEI,
            "clientType": "HTTP",
            "result": "pass",
            "failureType": "none",
            "timeCompleted": "2020-07-30T21:30:32.951Z",
        }
    ],
}


async def read(sdk: Any, name: str, *arguments: Any, **options: Any) -> Any:
    """Make a read with either client."""
    method = getattr(getattr(sdk.client, READS[name][0]), name)
    if isinstance(sdk.client, fotahook.Client):
        return await asyncio.to_thread(method, *arguments, **options)
    return await method(*arguments, **options)


def devices(sdk: Any, *arguments: Any, **options: Any) -> Any:
    return sdk.client.software_management_reports_v2.iter_campaign_devices(*arguments, **options)


async def collect(found: Any) -> list[str]:
    """The ids of the devices that an iterator of either client yields."""
    if isinstance(found, Iterable):
        return await asyncio.to_thread(lambda: [device.device_id for device in found])
    return [device.device_id async for device in found]


@pytest.mark.parametrize("name", READS)
async def test_each_read_sends_what_the_official_sdk_sends_and_returns_the_same_fields(
    peer: Peer, open_sdk: OpenSdk, name: str
) -> None:
    controller, arguments = READS[name]
    peer.routes["/fota/v2/"] = lambda _: respond(body=BODIES[name])
    with official_client(peer) as official:
        theirs = getattr(getattr(official, controller), name)(*arguments).body
    async with open_sdk() as sdk:
        ours = (await read(sdk, name, *arguments)).data
    first, second = (seen for seen in peer.seen if "/fota/v2/" in seen.target)
    assert (first.method, first.target) == (second.method, second.target)
    assert set(second.headers) >= REQUIRED
    assert json.loads(msgspec.json.encode(ours)) == BODIES[name]
    assert_same(ours, theirs)


def assert_same(ours: Any, theirs: Any) -> None:
    """Ours has the attributes of theirs, with the same values; dates are texts in ours."""
    if isinstance(ours, list | tuple):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            assert_same(one, other)
    elif isinstance(ours, msgspec.Struct):
        assert type(ours).__name__ == type(theirs).__name__
        for name in ours.__struct_fields__:
            assert_same(getattr(ours, name), getattr(theirs, name))
    elif "Z" not in str(ours):
        assert str(ours) == str(theirs)


@pytest.mark.parametrize(
    "theirs",
    [
        campaign_software.CampaignSoftware,
        check_in_history_item.CheckInHistoryItem,
        device_software_upgrade.DeviceSoftwareUpgrade,
        v2_campaign_device.V2CampaignDevice,
        v2_campaign_history.V2CampaignHistory,
        v2_campaign_meta_info.V2CampaignMetaInfo,
        v2_device_status.V2DeviceStatus,
        v2_time_window.V2TimeWindow,
    ],
)
def test_the_models_have_the_official_sdks_names(theirs: Any) -> None:
    ours = getattr(fotahook, theirs.__name__)
    assert dict(zip(ours.__struct_fields__, ours.__struct_encode_fields__, strict=True)) == theirs._names
    assert all(getattr(ours(), name) is None for name in ours.__struct_fields__)


@pytest.mark.parametrize("name", READS)
async def test_missing_members_are_none_and_unknown_ones_are_ignored(peer: Peer, open_sdk: OpenSdk, name: str) -> None:
    is_list = isinstance(BODIES[name], list)
    members: dict[str, Any] = {"new": [1], **dict.fromkeys(("campaignList", "deviceList", "status", "id"))}
    peer.routes["/fota/v2/"] = lambda _: respond(body=[members] if is_list else members)
    async with open_sdk() as sdk:
        found = (await read(sdk, name, *READS[name][1])).data
    for model in found if is_list else [found]:
        assert model == type(model)()


async def test_the_first_page_needs_no_last_device(peer: Peer, open_sdk: OpenSdk) -> None:
    peer.routes["/fota/v2/"] = lambda _: respond(body={})
    async with open_sdk() as sdk:
        await read(sdk, "get_campaign_device_status", ACCOUNT, CAMPAIGN)
    assert peer.seen[-1].target.endswith("/devices")


async def test_hours_may_be_texts(peer: Peer, open_sdk: OpenSdk) -> None:
    window = {"startTime": "3", "endTime": "4"}
    peer.routes["/fota/v2/"] = lambda _: respond(body={"installTimeWindowList": [window]})
    async with open_sdk() as sdk:
        found = (await read(sdk, "get_campaign_information", ACCOUNT, CAMPAIGN)).data
    assert found.install_time_window_list == (fotahook.V2TimeWindow(3, 4),)


@pytest.mark.parametrize("name", ["get_device_firmware_upgrade_history", "get_device_check_in_history"])
async def test_an_empty_body_is_an_empty_history(peer: Peer, open_sdk: OpenSdk, name: str) -> None:
    peer.routes["/fota/v2/"] = lambda _: respond()
    async with open_sdk() as sdk:
        assert (await read(sdk, name, ACCOUNT, IMEI)).data == []


@pytest.mark.parametrize("name", READS)
async def test_a_400_is_a_fota_v2_result_exception(peer: Peer, open_sdk: OpenSdk, name: str) -> None:
    error = {"errorCode": "INVALID_PARAMETER", "errorMessage": "Invalid uuid"}
    peer.routes["/fota/v2/"] = lambda _: respond(400, error)
    async with open_sdk() as sdk:
        with pytest.raises(fotahook.FotaV2ResultException, match="Invalid uuid"):
            await read(sdk, name, *READS[name][1])


@pytest.mark.parametrize("name", READS)
async def test_arguments_are_texts(open_sdk: OpenSdk, name: str) -> None:
    async with open_sdk() as sdk:
        for place in range(len(READS[name][1])):
            arguments: list[Any] = list(READS[name][1])
            arguments[place] = 123456
            with pytest.raises(TypeError, match="must be a str, not int"):
                await read(sdk, name, *arguments)


def report(total: int, size: int = 1000) -> Callable[[Received], Any]:
    """A campaign's report of so many devices, in pages, as ThingSpace sends them."""

    def page(seen: Received) -> Any:
        (last,) = parse_qs(urlsplit(seen.target).query)["lastSeenDeviceId"]
        first = int(last) + 1
        ids = [f"{number:015d}" for number in range(first, min(first + size, total + 1))]
        listed = [{"deviceId": one, "status": "UpgradeSuccess"} for one in ids]
        more = bool(ids) and int(ids[-1]) < total
        return respond(body={"hasMoreData": more, "lastSeenDeviceId": ids[-1] if ids else last, "deviceList": listed})

    return page


async def test_an_iterator_reads_all_pages(peer: Peer, open_sdk: OpenSdk) -> None:
    peer.routes["/devices"] = report(25, size=10)
    async with open_sdk() as sdk:
        assert await collect(devices(sdk, ACCOUNT, CAMPAIGN)) == [f"{number:015d}" for number in range(1, 26)]
        assert await collect(devices(sdk, ACCOUNT, CAMPAIGN, "000000000000024", timeout=5)) == ["000000000000025"]
    pages = [seen.target.partition("?")[2] for seen in peer.seen if "/devices" in seen.target]
    assert pages[:3] == [f"lastSeenDeviceId={last}" for last in ("0", "000000000000010", "000000000000020")]


async def test_an_iterator_continues_behind_the_last_device_if_the_page_does_not_say(
    peer: Peer, open_sdk: OpenSdk
) -> None:
    bodies = iter([{"hasMoreData": True, "deviceList": [{"deviceId": "1"}]}, {"deviceList": [{"deviceId": "2"}]}])
    peer.routes["/devices"] = lambda _: respond(body=next(bodies))
    async with open_sdk() as sdk:
        assert await collect(devices(sdk, ACCOUNT, CAMPAIGN)) == ["1", "2"]
    assert peer.seen[-1].target.endswith("?lastSeenDeviceId=1")


@pytest.mark.parametrize(
    "page", [{"hasMoreData": True}, {"hasMoreData": True, "lastSeenDeviceId": "0", "deviceList": [DEVICE]}]
)
async def test_a_page_that_leads_to_itself_is_an_error(peer: Peer, open_sdk: OpenSdk, page: object) -> None:
    peer.routes["/devices"] = lambda _: respond(body=page)
    async with open_sdk() as sdk:
        with pytest.raises(fotahook.ResponseError, match="says that there are more") as caught:
            await collect(devices(sdk, ACCOUNT, CAMPAIGN))
    assert json.loads(caught.value.raw_body) == page


MEMORY = """
import resource, sys, fotahook

client = fotahook.Client(
    base_url=sys.argv[1],
    proxy="",
    thingspace_oauth_credentials=fotahook.ThingspaceOauthCredentials("an-id", "a-client-secret"),
    vz_m2m_token_credentials=fotahook.SessionCredentials("a-user", "a-password"),
)
devices = client.software_management_reports_v2.iter_campaign_devices("0000123456-00001", "c")
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
count = sum(1 for _, device in zip(range(20_000), devices))
early = peak()
count += sum(1 for device in devices)
print(count, int(peak() - early))
"""


def test_a_report_of_a_million_devices_needs_the_memory_of_a_page(peer: Peer) -> None:
    """Only so that it is quick, the peer sends the same devices in each page, with new ids for the pages."""
    pages = iter(range(1, 1001))
    listed = json.dumps([{"deviceId": f"{number:015d}", "status": "UpgradeSuccess"} for number in range(1000)])

    def page(_: Received) -> Chunks:
        number = next(pages)
        more = json.dumps(number < 1000)
        return respond(body=f'{{"hasMoreData":{more},"lastSeenDeviceId":"{number}","deviceList":{listed}}}'.encode())

    peer.routes["/devices"] = page
    command = [sys.executable, "-c", MEMORY, peer.url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert done.stderr == ""
    count, grown = map(int, done.stdout.split())
    assert count == 1_000_000
    assert grown < 20

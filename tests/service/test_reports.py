"""ThingSpace's five reads, answered from what was published."""

from typing import Any

import msgspec

from fotahook.testing import Simulation, upgrade_progress, upgrade_scheduled

from .conftest import ACCOUNT, MESSAGES, Api, client_of

BASE = "/api/fota/v2"
DEVICES = f"{BASE}/reports/{ACCOUNT}/campaigns/{{}}/devices"


async def publish(api: Api, *messages: Any) -> None:
    for message in messages:
        body = message if isinstance(message, bytes) else msgspec.json.encode(message)
        assert (await api("POST", MESSAGES, body, api.bearer)).status == 202


async def read(api: Api, path: str) -> Any:
    answer = await api("GET", path, headers=api.both)
    assert answer.status == 200, answer
    return answer.json


async def refused(api: Api, path: str) -> tuple[int, str, str]:
    answer = await api("GET", path, headers=api.both)
    return answer.status, answer.json["errorCode"], answer.json["errorMessage"]


async def test_a_campaign_is_told_as_its_messages_told_it(api: Api) -> None:
    campaign = Simulation(ACCOUNT, devices=1)
    messages = [msgspec.json.decode(message.body) for message in campaign]
    await publish(api, *messages[:3])
    scheduled = await read(api, f"{BASE}/campaigns/{ACCOUNT}/{campaign.campaign_id}")
    told = messages[2]["campaign"]
    assert scheduled["status"] == "CampaignQueued"
    assert scheduled == {
        "id": campaign.campaign_id,
        "accountName": ACCOUNT,
        "softwareName": told["softwareName"],
        "distributionType": "HTTP",
        "make": "Maker",
        "model": "Model-1",
        "softwareFrom": told["softwareFrom"],
        "softwareTo": told["softwareTo"],
        "startDate": told["startDate"],
        "endDate": told["endDate"],
        "status": "CampaignQueued",
    }
    await publish(api, *messages[3:])
    assert (await read(api, f"{BASE}/campaigns/{ACCOUNT}/{campaign.campaign_id}"))["status"] == "CampaignEnded"


async def test_a_campaign_of_which_only_devices_told_is_known(api: Api) -> None:
    await publish(api, upgrade_progress(campaign="c-1", device="1"))
    found = await read(api, f"{BASE}/campaigns/{ACCOUNT}/c-1")
    assert found == {"id": "c-1", "accountName": ACCOUNT}
    assert (await read(api, f"{BASE}/reports/{ACCOUNT}/campaigns?campaignStatus=CampaignEnded"))["campaignList"] == []


async def test_campaigns_are_found_by_status_in_either_spelling(api: Api) -> None:
    for name, status in (("c-1", "CampaignEnded"), ("c-2", "CampaignQueued"), ("c-3", "CampaignEnded")):
        await publish(api, {"type": "campaign", "campaign": {"campaignId": name, "status": status}})
    path = f"{BASE}/reports/{ACCOUNT}/campaigns?campaignStatus="
    ended = await read(api, f"{path}CampaignEnded")
    assert [one["id"] for one in ended["campaignList"]] == ["c-1", "c-3"]
    assert (ended["hasMoreData"], ended["lastSeenCampaignId"]) == (False, "c-3")
    for spelling in ("CampaignQueued", "CampaignRequestQueued"):
        assert [one["id"] for one in (await read(api, path + spelling))["campaignList"]] == ["c-2"]
    behind = await read(api, f"{path}CampaignEnded&lastSeenCampaignId=c-1")
    assert [one["id"] for one in behind["campaignList"]] == ["c-3"]
    assert (await read(api, f"{path}Unknown"))["campaignList"] == []


async def test_devices_come_in_pages_of_a_thousand_in_the_order_of_their_ids(api: Api) -> None:
    ids = [f"{number:015d}" for number in range(2001)]
    listed = [{"deviceId": one, "status": "UpgradeSuccess", "resultReason": "done"} for one in reversed(ids)]
    await publish(api, {"upgradeProgress": {"campaignId": "c-1", "deviceList": listed}})
    found: list[str] = []
    last, more = "0", True
    while more:
        page = await read(api, f"{DEVICES.format('c-1')}?lastSeenDeviceId={last}")
        assert (page["totalDevice"], page["maxPageSize"]) == (2001, 1000)
        assert page["deviceList"][0]["resultReason"] == "done"
        found += [one["deviceId"] for one in page["deviceList"]]
        last, more = page["lastSeenDeviceId"], page["hasMoreData"]
    assert found == ids
    end = await read(api, f"{DEVICES.format('c-1')}?lastSeenDeviceId={ids[-1]}")
    assert end == {"totalDevice": 2001, "hasMoreData": False, "maxPageSize": 1000, "deviceList": []}


async def test_the_last_status_of_a_device_counts_and_none_goes_back(api: Api) -> None:
    for status in ("UpgradePending", "UpgradedFailed", "UpgradePending"):
        await publish(api, upgrade_progress(campaign="c-1", device="1", status=status, reason=status))
    page = await read(api, DEVICES.format("c-1"))
    assert page["deviceList"] == [{"deviceId": "1", "status": "UpgradeFailed", "resultReason": "UpgradedFailed"}]


async def test_a_device_has_a_history_in_each_campaign(api: Api) -> None:
    await publish(
        api,
        upgrade_progress(campaign="c-1", device="1", status="UpgradeFailed", reason="RovaClientDownloadFailed"),
        upgrade_progress(campaign="c-1", device="2"),
        upgrade_scheduled(campaign="c-2", device="1"),
    )
    history = await read(api, f"{BASE}/reports/{ACCOUNT}/devices/1")
    assert [(one["id"], one["status"], one["reason"]) for one in history] == [
        ("c-1", "UpgradeFailed", "RovaClientDownloadFailed"),
        ("c-2", "Accepted", ""),
    ]
    assert [(one.get("softwareName"), one.get("startDate")) for one in history] == [
        (None, None),
        ("Model-1_FW_1.0_to_2.0", "2026-02-01"),
    ]
    check_ins = await read(api, f"{BASE}/logging/{ACCOUNT}/devices/1/checkInHistory")
    assert [(one["deviceId"], one["result"], one["failureType"]) for one in check_ins] == [
        ("1", "UpgradeFailed", "RovaClientDownloadFailed"),
        ("1", "Accepted", ""),
    ]
    assert check_ins[0]["timeCompleted"].endswith("+00:00")
    for path in ("reports/{}/devices/9", "logging/{}/devices/9/checkInHistory", "reports/{}/devices/%00"):
        assert await read(api, f"{BASE}/{path.format(ACCOUNT)}") == []


async def test_what_does_not_exist_is_refused_as_thingspace_refuses_it(api: Api) -> None:
    unknown = (400, "INVALID_PARAMETER", "Invalid upgradeId")
    for campaign in ("c-9", "%00", "%FF", ""):
        assert await refused(api, f"{BASE}/campaigns/{ACCOUNT}/{campaign}") == unknown
        assert await refused(api, DEVICES.format(campaign)) == unknown
    assert (await refused(api, f"{BASE}/reports/{ACCOUNT}/campaigns"))[:2] == (400, "INVALID_PARAMETER")
    assert (await refused(api, f"{DEVICES.format('c-9')}?lastSeenDeviceId=%00"))[:2] == (400, "INVALID_PARAMETER")


async def test_the_reads_need_both_tokens_and_the_account(api: Api) -> None:
    await publish(api, upgrade_progress(campaign="c-1", device="1"))
    path = f"{BASE}/campaigns/{ACCOUNT}/c-1"
    assert (await api("GET", path, headers=api.bearer)).status == 401
    other = await client_of(api, accounts=["0000000001-00001"])
    assert (await api("GET", path, headers={**api.both, **other})).error[0] == 400


async def test_hostile_messages_are_told_as_far_as_they_are_texts(api: Api) -> None:
    await publish(
        api,
        {"campaign": {"campaignId": "c-1", "status": "CampaignEnded", "startDate": 5, "make": {"a": 1}, "id": "other"}},
        {"upgradeProgress": {"campaignId": "c-1", "deviceList": [{"deviceId": "1", "status": "X", "resultReason": 7}]}},
        b'{"upgradeProgress": {"campaignId": 5, "deviceList": 6}}',
    )
    assert await read(api, f"{BASE}/campaigns/{ACCOUNT}/c-1") == {
        "id": "c-1",
        "accountName": ACCOUNT,
        "status": "CampaignEnded",
    }
    assert (await read(api, DEVICES.format("c-1")))["deviceList"] == [{"deviceId": "1", "status": "X"}]

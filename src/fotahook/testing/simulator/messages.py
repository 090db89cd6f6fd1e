"""Single messages, to be changed and posted.

V1's envelope is published; what is *ours* is marked (docs/thingspace.md, Messages).
"""

from typing import Final

ACCOUNT: Final = "0000123456-00001"
DEVICE: Final = "990013907835573"
CAMPAIGN: Final = "60b5d639-ccdc-4db8-8824-069bd94c95bf"

JsonObject = dict[str, object]


def firmware_available(*, account: str = ACCOUNT, make: str = "Maker", model: str = "Model-1") -> JsonObject:
    """New firmware can be had: V1's ``firmwareList``; its ``type`` is *ours*."""
    firmware = {
        "firmwareName": "Model-1_FW_1.0_to_2.0",
        "participantName": account,
        "launchDate": "2026-01-15",
        "releaseNote": "",
        "model": model,
        "make": make,
        "fromVersion": "1.0",
        "toVersion": "2.0",
    }
    return {"accountName": account, "type": "firmwareList", "firmwareList": [firmware]}


def upgrade_scheduled(*, account: str = ACCOUNT, device: str = DEVICE, campaign: str = CAMPAIGN) -> JsonObject:
    """An upgrade is scheduled. *Ours*: ``campaignId``, ``status`` and ``deviceList``."""
    return _upgrade(account, "upgradeScheduled", campaign, "CampaignScheduled", device, "Accepted", None)


def upgrade_progress(
    *,
    account: str = ACCOUNT,
    device: str = DEVICE,
    campaign: str = CAMPAIGN,
    status: str = "UpgradeSuccess",
    reason: str | None = "DownloadInstallSucceeded",
) -> JsonObject:
    """What came of an upgrade. *Ours*: ``campaignId`` and ``deviceList``, with the values of V2's device models."""
    return _upgrade(account, "upgradeProgress", campaign, None, device, status, reason)


def _upgrade(
    account: str, kind: str, campaign: str, state: str | None, device: str, status: str, reason: str | None
) -> JsonObject:
    result = {"deviceId": device, "status": status} | ({"resultReason": reason} if reason else {})
    upgrade: JsonObject = {
        "firmwareName": "Model-1_FW_1.0_to_2.0",
        "upgradeId": campaign,
        "startDate": "2026-02-01",
        "campaignId": campaign,
        "deviceList": [result],
    }
    return {
        "accountName": account,
        "type": kind,
        "firmwareList": [],
        kind: upgrade | ({"status": state} if state else {}),
    }

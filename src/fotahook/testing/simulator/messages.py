"""Single messages for tests to change and post, in V1's envelope; what Verizon does not publish is marked as *ours*."""

from typing import Final

ACCOUNT: Final = "0000123456-00001"
DEVICE: Final = "990013907835573"
CAMPAIGN: Final = "60b5d639-ccdc-4db8-8824-069bd94c95bf"
_FIRMWARE: Final = "Model-1_FW_1.0_to_2.0"

JsonObject = dict[str, object]


def firmware_available(*, account: str = ACCOUNT, make: str = "Maker", model: str = "Model-1") -> JsonObject:
    """New firmware is available: V1's ``firmwareList``; its ``type`` is *ours*."""
    firmware = {
        "firmwareName": _FIRMWARE,
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
    devices = [{"deviceId": device, "status": "Accepted"}]
    return _message(account, "upgradeScheduled", campaign, deviceList=devices, status="CampaignScheduled")


def upgrade_progress(
    *,
    account: str = ACCOUNT,
    device: str = DEVICE,
    campaign: str = CAMPAIGN,
    status: str = "UpgradeSuccess",
    reason: str | None = "DownloadInstallSucceeded",
) -> JsonObject:
    """The result of an upgrade. *Ours*: ``campaignId`` and ``deviceList``, with the values of V2's device models."""
    result = {"deviceId": device, "status": status} | ({"resultReason": reason} if reason else {})
    return _message(account, "upgradeProgress", campaign, deviceList=[result])


def _message(account: str, kind: str, campaign: str, **fields: object) -> JsonObject:
    upgrade = {"firmwareName": _FIRMWARE, "upgradeId": campaign, "startDate": "2026-02-01", "campaignId": campaign}
    return {"accountName": account, "type": kind, "firmwareList": [], kind: {**upgrade, **fields}}

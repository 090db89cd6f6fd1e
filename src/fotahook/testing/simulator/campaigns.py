"""The messages of a campaign, the same for the same seed.

The envelope is V1's as Verizon publishes it; its last part is cut in every readable copy, and which step of a V2
campaign causes which message is published nowhere (docs/thingspace.md, Messages). *Ours*: one message per device and
step, and inside of them `campaignId`, `status` and `deviceList`, whose names and values are those of V2's campaign and
device models.
"""

from collections.abc import Iterator
from datetime import date, timedelta
from random import Random
from typing import Final

import msgspec

from .devices import Fleet

FAILURES: Final = (
    "RovaClientDidNotReportStatus",
    "RovaClientDownloadFailed",
    "RovaClientDownloadNotInstalledYet",
    "RovaClientDownloadedInstallFailed",
)
"""Why a device fails, as V2's campaign pages name it."""

STEPS: Final = 3
"""Messages of one device."""

_FIRST_DAY: Final = date(2026, 1, 1)


class CampaignMessage(msgspec.Struct, frozen=True, kw_only=True):
    """One message of a campaign: its bytes, and the device or campaign it is about, whose messages stay in order."""

    device: str
    step: int
    body: bytes

    @property
    def key(self) -> str:
        """Names the message within its campaign: good as an idempotency key."""
        return f"{self.device}:{self.step}"


def campaign(account: str, *, devices: int, failures: float = 0.02, seed: int | str = 0) -> Iterator[CampaignMessage]:
    """Three messages for each device: scheduled, under way, and how it ended; step by step over all devices.

    `failures` is the share of devices that fail; of two devices or more at least one does if it is above zero.
    ValueError for a share that is none, or less than one device.
    """
    chance = Random(f"fotahook {seed}")
    fleet = Fleet(chance, devices, failures)
    upgrade = _upgrade(chance)
    for step in range(STEPS):
        for number in range(devices):
            imei, failure = fleet.imei(number), fleet.failure(number)
            reason = None if failure is None else FAILURES[failure % len(FAILURES)]
            body = msgspec.json.encode({"accountName": account, **_content(step, imei, upgrade, reason)})
            yield CampaignMessage(device=imei, step=step, body=body)


def _content(step: int, imei: str, upgrade: dict[str, str], failure: str | None) -> dict[str, object]:
    if step == 0:
        return _scheduled(imei, upgrade)
    if step == 1:
        return _progress(imei, upgrade, "UpgradePending", None)
    if failure is not None:
        return _progress(imei, upgrade, "UpgradedFailed", failure)
    return _progress(imei, upgrade, "UpgradeSuccess", "DownloadInstallSucceeded")


def _upgrade(chance: Random) -> dict[str, str]:
    """What is the same in every message of the campaign; the first three names are published, the last is ours."""
    version = chance.randint(2, 9)
    return {
        "firmwareName": f"FOTA_Verizon_{version - 1}.0_to_{version}.0",
        "upgradeId": f"{chance.getrandbits(128):032x}",
        "startDate": start_date(chance).isoformat(),
        "campaignId": f"{chance.getrandbits(128):032x}",
    }


def start_date(chance: Random) -> date:
    """A day of a year that is always the same, so that the same seed gives the same bytes in any year."""
    return _FIRST_DAY + timedelta(days=chance.randrange(365))


def _scheduled(imei: str, upgrade: dict[str, str]) -> dict[str, object]:
    content = {**upgrade, "status": "CampaignScheduled", "deviceList": [{"deviceId": imei, "status": "Accepted"}]}
    return {"type": "upgradeScheduled", "firmwareList": [], "upgradeScheduled": content}


def _progress(imei: str, upgrade: dict[str, str], status: str, reason: str | None) -> dict[str, object]:
    device = {"deviceId": imei, "status": status} | ({"resultReason": reason} if reason else {})
    return {"type": "upgradeProgress", "firmwareList": [], "upgradeProgress": {**upgrade, "deviceList": [device]}}

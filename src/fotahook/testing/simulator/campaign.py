"""The messages of a simulated campaign, the same bytes for the same seed; and single messages to change and post.

Profile ``v1`` has the envelope and members that Verizon publishes for V1; ``deviceList`` and the spelling of the first
``type`` are *ours*. Profile ``v2`` is *ours*: Verizon publishes only that V2's structure differs and that every message
names the campaign. Its names, states and reasons are those of V2's campaign and device models
(docs/thingspace.md, Messages and Campaigns).
"""

from collections.abc import Callable, Iterator
from datetime import date, timedelta
from math import gcd
from random import Random
from typing import Final, Literal, NamedTuple
from uuid import UUID

import msgspec

Profile = Literal["v1", "v2"]
Content = dict[str, object]

FAILURES: Final = (
    "RovaClientDidNotReportStatus",
    "RovaClientDownloadFailed",
    "RovaClientDownloadNotInstalledYet",
    "RovaClientDownloadedInstallFailed",
)
"""Why an upgrade fails, as V2's campaign pages name it."""

REJECTIONS: Final = (
    "Device not found",
    "Device is already scheduled in another upgrade",
    "Device is not eligible",
    "Invalid IMEI",
    "Software prerequisite not met",
    "Make or model prerequisite not met",
    "Device is not active",
    "Internal error",
)
"""Why a device is rejected: the cases of V2's life cycle page, in words of *ours*."""

_REJECTED_OF: Final = 5
"""One of this many failing devices is rejected and never tries to upgrade."""


class CampaignMessage(msgspec.Struct, frozen=True, kw_only=True):
    """One message of a campaign. `device` is the IMEI or campaign that it is about: use it as the ordering key."""

    device: str
    step: int
    body: bytes

    @property
    def key(self) -> str:
        """Identifies the message within its campaign: use it as the idempotency key."""
        return f"{self.device}:{self.step}"


class _Statuses(NamedTuple):
    campaign: tuple[str, ...]
    device: tuple[str, ...]
    succeeded: tuple[str, str | None]
    failed: str
    rejected: str


_STATUSES: Final[dict[Profile, _Statuses]] = {
    "v1": _Statuses(("Queued", "Finished"), ("InProgress",), ("Finished", None), "UpgradeFailed", "RequestFailed"),
    "v2": _Statuses(
        ("CampaignRequestPending", "CampaignQueued", "CampaignScheduled", "CampaignEnded"),
        ("Accepted", "UpgradePending"),
        ("UpgradeSuccess", "DownloadInstallSucceeded"),
        "UpgradedFailed",
        "DeviceRejected",
    ),
}
_SERIALS: Final = 1_000_000
_FIRST_IMEI: Final = 1234567_000000
"""01234567 is no type that was ever allocated to a maker."""
_DOUBLED: Final = str.maketrans("0123456789", "0246813579")


class Simulation:
    """The messages of one campaign. It can be iterated repeatedly, and generates messages without storing them.

    The order is: announcement and schedule, then the devices' messages, step by step over all devices, then the end of
    the campaign. `failures` is the share of devices that fail: at least one of two devices or more, unless it is 0.
    Raises ValueError for a share outside 0 to 1, less than one device, or an unknown profile.
    """

    def __init__(
        self, account: str, *, devices: int = 1000, failures: float = 0.02, seed: int | str = 7, profile: Profile = "v2"
    ) -> None:
        if profile not in _STATUSES:
            raise ValueError(f"there is no profile {profile!r}; choose v1 or v2")
        if devices < 1 or not 0 <= failures <= 1:
            raise ValueError("a campaign has at least one device, and a share of failures between 0 and 1")
        rng = Random(f"fotahook simulation {seed}")
        self.account, self.profile, self._statuses, self._devices = account, profile, _STATUSES[profile], devices
        self._failed = max(round(devices * failures), 1 if failures > 0 and devices > 1 else 0)
        # Devices are computed from their number: a million take as much memory as one.
        self._serial, self._rank = _permutation(rng, max(devices, _SERIALS)), _permutation(rng, devices)
        self.campaign_id = str(UUID(int=rng.getrandbits(128), version=4))
        version = rng.randint(2, 9)
        # Always in the same year, so that a seed gives the same bytes in any year.
        start = date(2026, 1, 1) + timedelta(days=rng.randrange(365))
        self._start, self._end = start.isoformat(), (start + timedelta(days=7)).isoformat()
        self._versions = older, newer = f"{version - 1}.0", f"{version}.0"
        self._name = f"{'FOTA' if profile == 'v1' else 'SOTA'}_Model-1_{older}_to_{newer}"
        hour = rng.randrange(24)
        self._window = {"startTime": hour, "endTime": rng.randint(hour + 1, 24)}

    @property
    def count(self) -> int:
        """The number of messages."""
        steps = len(self._statuses.device)
        rejected = self._failed // _REJECTED_OF
        return 1 + len(self._statuses.campaign) + self._devices * (steps + 1) - rejected * steps

    def __iter__(self) -> Iterator[CampaignMessage]:
        *planned, ended = self._statuses.campaign
        yield self._message(self.campaign_id, 0, self._announcement())
        for step, status in enumerate(planned, 1):
            yield self._message(self.campaign_id, step, self._campaign(status))
        for step in range(len(self._statuses.device) + 1):
            for number in range(self._devices):
                if (result := self._result(step, self._rank(number))) is not None:
                    # Unique in the campaign: 14 digits and their Luhn digit.
                    digits = f"{_FIRST_IMEI + self._serial(number):014d}"
                    total = sum(map(int, digits[::2] + digits[1::2].translate(_DOUBLED)))
                    imei = f"{digits}{-total % 10}"
                    content = self._member("upgradeProgress", deviceList=[_device(imei, *result)])
                    yield self._message(imei, step, content)
        yield self._message(self.campaign_id, len(planned) + 1, self._campaign(ended))

    def _result(self, step: int, rank: int) -> tuple[str, str | None] | None:
        """What a device reports in a step, and why. The lowest ranks fail; a rejected one has no further step."""
        statuses = self._statuses
        is_failing = rank < self._failed
        if is_failing and rank % _REJECTED_OF == _REJECTED_OF - 1:
            return None if step else (statuses.rejected, REJECTIONS[rank // _REJECTED_OF % len(REJECTIONS)])
        if step < len(statuses.device):
            return statuses.device[step], None
        return (statuses.failed, FAILURES[rank % len(FAILURES)]) if is_failing else statuses.succeeded

    def _announcement(self) -> Content:
        release = _release(self._start, "Maker", "Model-1")
        if self.profile == "v1":
            return _firmware_list(self._name, self.account, release, *self._versions)
        software = {"softwareName": self._name, **release, "distributionType": "HTTP", "devicePlatformId": "Maker"}
        return {"type": "softwareList", "softwareList": [software]}

    def _campaign(self, status: str) -> Content:
        if self.profile == "v1":
            kind = "upgradeProgress" if status == self._statuses.campaign[-1] else "upgradeScheduled"
            return self._member(kind, status=status)
        older, newer = self._versions
        dates = {"endDate": self._end, "softwareFrom": older, "softwareTo": newer, "distributionType": "HTTP"}
        maker = {"make": "Maker", "model": "Model-1"}
        return self._member("campaign", status=status, **dates, **maker, campaignTimeWindowList=[self._window])

    def _member(self, kind: str, **fields: object) -> Content:
        """A message whose only member with content is about the upgrade."""
        if self.profile == "v1":
            return _upgrade(kind, self._name, self.campaign_id, self._start, **fields)
        upgrade = {"campaignId": self.campaign_id, "softwareName": self._name, "startDate": self._start}
        return {"type": kind, kind: {**upgrade, **fields}}

    def _message(self, about: str, step: int, content: Content) -> CampaignMessage:
        body = msgspec.json.encode({"accountName": self.account, **content})
        return CampaignMessage(device=about, step=step, body=body)


def campaign(account: str, *, devices: int, failures: float = 0.02, seed: int | str = 7) -> Iterator[CampaignMessage]:
    """The messages about devices of a ``Simulation``: ``Accepted``, ``UpgradePending`` and how the upgrade ended.

    A rejected device, one in five of those that fail, has ``DeviceRejected`` alone. Raises ValueError.
    """
    simulation = Simulation(account, devices=devices, failures=failures, seed=seed)
    return (message for message in simulation if message.device != simulation.campaign_id)


def _permutation(rng: Random, size: int) -> Callable[[int], int]:
    """Maps the numbers below `size` to another order of them, without a table."""
    factor = rng.randrange(size)
    while gcd(factor, size) != 1:
        factor = rng.randrange(size)
    shift = rng.randrange(size)
    return lambda number: (factor * number + shift) % size


def _release(launched: str, make: str, model: str) -> Content:
    return {"launchDate": launched, "releaseNote": "", "model": model, "make": make}


def _firmware_list(name: str, account: str, release: Content, older: str, newer: str) -> Content:
    versions = {"fromVersion": older, "toVersion": newer}
    firmware = {"firmwareName": name, "participantName": account, **release, **versions}
    return {"type": "firmwareList", "firmwareList": [firmware]}


def _upgrade(kind: str, name: str, campaign: str, start: str, **fields: object) -> Content:
    upgrade = {"firmwareName": name, "upgradeId": campaign, "startDate": start}
    return {"type": kind, "firmwareList": [], kind: {**upgrade, **fields}}


def _device(device: str, status: str, reason: str | None = None) -> Content:
    return {"deviceId": device, "status": status, **({"resultReason": reason} if reason else {})}


_NAME: Final = "Model-1_FW_1.0_to_2.0"
_ACCOUNT: Final = "0000123456-00001"
_DEVICE: Final = "990013907835573"
_CAMPAIGN: Final = "60b5d639-ccdc-4db8-8824-069bd94c95bf"


def firmware_available(*, account: str = _ACCOUNT, make: str = "Maker", model: str = "Model-1") -> Content:
    """New firmware is available: V1's ``firmwareList``; its ``type`` is *ours*."""
    release = _release("2026-01-15", make, model)
    return {"accountName": account, **_firmware_list(_NAME, account, release, "1.0", "2.0")}


def upgrade_scheduled(*, account: str = _ACCOUNT, device: str = _DEVICE, campaign: str = _CAMPAIGN) -> Content:
    """An upgrade is scheduled. *Ours*: ``campaignId``, ``status`` and ``deviceList``."""
    devices = [_device(device, "Accepted")]
    return _message(account, "upgradeScheduled", campaign, deviceList=devices, status="CampaignScheduled")


def upgrade_progress(
    *,
    account: str = _ACCOUNT,
    device: str = _DEVICE,
    campaign: str = _CAMPAIGN,
    status: str = "UpgradeSuccess",
    reason: str | None = "DownloadInstallSucceeded",
) -> Content:
    """The result of an upgrade. *Ours*: ``campaignId`` and ``deviceList``, with the values of V2's device models."""
    return _message(account, "upgradeProgress", campaign, deviceList=[_device(device, status, reason)])


def _message(account: str, kind: str, campaign: str, **fields: object) -> Content:
    return {"accountName": account, **_upgrade(kind, _NAME, campaign, "2026-02-01", campaignId=campaign, **fields)}

"""A campaign's life, message by message, the same bytes for the same seed.

Profile ``v1``: the envelope and the members that Verizon publishes for V1. *Ours*: ``deviceList``, and the spelling of
the first ``type``. Profile ``v2`` is *ours* as a whole: Verizon publishes that V2's structure differs and that the
campaign's id is in every message, and nothing else; the names and values here are those of V2's campaign and device
models, its states those of the campaign's life cycle (docs/thingspace.md, Messages and Campaigns).
"""

from collections.abc import Iterator
from datetime import timedelta
from random import Random
from typing import Final, Literal, get_args
from uuid import UUID

import msgspec

from .campaigns import FAILURES, CampaignMessage, start_date
from .devices import Fleet

Profile = Literal["v1", "v2"]

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
"""One of so many devices that fail is rejected, and never tries."""
_DAYS: Final = 7

Content = dict[str, object]


class Simulation:
    """The messages of one campaign. Iterate as often as you like; nothing is kept but the numbers it is made of.

    `count` messages, one after the other: first what is announced and planned, then what becomes of the devices, step
    by step over all of them, then the end. `failures` is the share of devices that fail. ValueError for a share that is
    none, less than one device, or another profile.
    """

    def __init__(
        self,
        account: str,
        *,
        devices: int = 1000,
        failures: float = 0.02,
        seed: int | str = 7,
        profile: Profile = "v2",
    ) -> None:
        if profile not in get_args(Profile):
            raise ValueError(f"there is no profile {profile!r}; choose v1 or v2")
        chance = Random(f"fotahook simulation {seed}")
        self.account = account
        self.profile = profile
        self._fleet = Fleet(chance, devices, failures)
        self.campaign_id = str(UUID(int=chance.getrandbits(128), version=4))
        version = chance.randint(2, 9)
        first = start_date(chance)
        self._dates = {"startDate": first.isoformat(), "endDate": (first + timedelta(days=_DAYS)).isoformat()}
        self._versions = f"{version - 1}.0", f"{version}.0"
        begins = chance.randrange(24)
        self._window = {"startTime": begins, "endTime": chance.randint(begins + 1, 24)}

    @property
    def count(self) -> int:
        """How many messages it has."""
        devices, rejected = self._fleet.size, self._fleet.failed // _REJECTED_OF
        # A device that is rejected says so once, and nothing after.
        return 3 + 2 * devices - rejected if self.profile == "v1" else 5 + 3 * devices - 2 * rejected

    def __iter__(self) -> Iterator[CampaignMessage]:
        return self._life_v1() if self.profile == "v1" else self._life_v2()

    # V1

    def _life_v1(self) -> Iterator[CampaignMessage]:
        yield self._of_campaign(0, {"type": "firmwareList", "firmwareList": [self._firmware()]})
        yield self._of_campaign(1, self._member("upgradeScheduled", status="Queued"))
        for step, number in self._steps(2):
            yield self._of_device(number, step, self._device_v1(number, step))
        yield self._of_campaign(2, self._member("upgradeProgress", status="Finished"))

    def _device_v1(self, number: int, step: int) -> Content:
        if self._rejection(number) is not None:
            return self._result(number, "RequestFailed", self._rejection(number))
        if step == 0:
            return self._result(number, "InProgress", None)
        failure = self._upgrade_failure(number)
        return self._result(number, "UpgradeFailed" if failure else "Finished", failure)

    def _firmware(self) -> Content:
        older, newer = self._versions
        return {
            "firmwareName": self._name("FOTA"),
            "participantName": self.account,
            "launchDate": self._dates["startDate"],
            "releaseNote": "",
            "model": "Model-1",
            "make": "Maker",
            "fromVersion": older,
            "toVersion": newer,
        }

    # V2

    def _life_v2(self) -> Iterator[CampaignMessage]:
        yield self._of_campaign(0, {"type": "softwareList", "softwareList": [self._software()]})
        for step, status in enumerate(("CampaignRequestPending", "CampaignQueued", "CampaignScheduled"), 1):
            yield self._of_campaign(step, self._campaign_v2(status))
        for step, number in self._steps(3):
            yield self._of_device(number, step, self._device_v2(number, step))
        yield self._of_campaign(4, self._campaign_v2("CampaignEnded"))

    def _device_v2(self, number: int, step: int) -> Content:
        if self._rejection(number) is not None:
            return self._result(number, "DeviceRejected", self._rejection(number))
        if step < 2:
            return self._result(number, ("Accepted", "UpgradePending")[step], None)
        if failure := self._upgrade_failure(number):
            return self._result(number, "UpgradedFailed", failure)
        return self._result(number, "UpgradeSuccess", "DownloadInstallSucceeded")

    def _campaign_v2(self, status: str) -> Content:
        older, newer = self._versions
        return self._member(
            "campaign",
            status=status,
            endDate=self._dates["endDate"],
            softwareFrom=older,
            softwareTo=newer,
            distributionType="HTTP",
            make="Maker",
            model="Model-1",
            campaignTimeWindowList=[self._window],
        )

    def _software(self) -> Content:
        return {
            "softwareName": self._name("SOTA"),
            "launchDate": self._dates["startDate"],
            "releaseNote": "",
            "model": "Model-1",
            "make": "Maker",
            "distributionType": "HTTP",
            "devicePlatformId": "Maker",
        }

    # Both

    def _steps(self, steps: int) -> Iterator[tuple[int, int]]:
        """Each step of each device, but for those after a rejection."""
        for step in range(steps):
            for number in range(self._fleet.size):
                if step == 0 or self._rejection(number) is None:
                    yield step, number

    def _rejection(self, number: int) -> str | None:
        failure = self._fleet.failure(number)
        if failure is None or failure % _REJECTED_OF < _REJECTED_OF - 1:
            return None
        return REJECTIONS[failure // _REJECTED_OF % len(REJECTIONS)]

    def _upgrade_failure(self, number: int) -> str | None:
        failure = self._fleet.failure(number)
        return None if failure is None else FAILURES[failure % len(FAILURES)]

    def _result(self, number: int, status: str, reason: str | None) -> Content:
        device = {"deviceId": self._fleet.imei(number), "status": status}
        return self._member("upgradeProgress", deviceList=[device | ({"resultReason": reason} if reason else {})])

    def _member(self, kind: str, **more: object) -> Content:
        """A message whose one member that is not empty is about the upgrade."""
        if self.profile == "v1":
            named = {"firmwareName": self._name("FOTA"), "upgradeId": self.campaign_id}
        else:
            named = {"campaignId": self.campaign_id, "softwareName": self._name("SOTA")}
        empty: Content = {"firmwareList": []} if self.profile == "v1" else {}
        return {"type": kind, **empty, kind: {**named, "startDate": self._dates["startDate"], **more}}

    def _name(self, kind: str) -> str:
        older, newer = self._versions
        return f"{kind}_Model-1_{older}_to_{newer}"

    def _of_campaign(self, step: int, content: Content) -> CampaignMessage:
        return CampaignMessage(device=self.campaign_id, step=step, body=self._encoded(content))

    def _of_device(self, number: int, step: int, content: Content) -> CampaignMessage:
        return CampaignMessage(device=self._fleet.imei(number), step=step, body=self._encoded(content))

    def _encoded(self, content: Content) -> bytes:
        return msgspec.json.encode({"accountName": self.account, **content})

"""Simulated campaigns: deterministic, of any size, and as the contract knows them."""

import hashlib
import subprocess
import sys
from collections import Counter
from itertools import islice

import pytest

from fotahook.contract.messages import CallbackMessage, parse_message
from fotahook.testing import Simulation
from fotahook.testing.simulator.campaigns import FAILURES
from fotahook.testing.simulator.simulation import REJECTIONS, Profile

ACCOUNT = "0000123456-00001"
PROFILES: list[Profile] = ["v1", "v2"]


def messages(campaign: Simulation) -> list[CallbackMessage]:
    return [parse_message(message.body) for message in campaign]


@pytest.mark.parametrize("profile", PROFILES)
def test_the_same_seed_gives_the_same_bytes(profile: Profile) -> None:
    first, again, other = (Simulation(ACCOUNT, devices=50, seed=seed, profile=profile) for seed in (7, 7, 8))
    assert list(first) == list(again) == list(first)
    assert list(first) != list(other)


# Who changes these bytes changes what `--seed 7` gives to everybody.
@pytest.mark.parametrize(
    ("profile", "digest"),
    [
        ("v1", "fb845b9df8d3da03598cbf96ae23a65580c5b437f1abc0381345f2b9ae6066bd"),
        ("v2", "f3869bf818eb1de69c1025f90c928ea64de085bf4e591326bcebda41392f87e0"),
    ],
)
def test_seed_seven_is_seed_seven(profile: Profile, digest: str) -> None:
    campaign = Simulation(ACCOUNT, devices=100, failures=0.1, seed="7", profile=profile)
    assert hashlib.sha256(b"\n".join(message.body for message in campaign)).hexdigest() == digest


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize(("devices", "failures"), [(1, 0.0), (1, 1.0), (7, 0.5), (100, 0.1), (250, 1.0)])
def test_it_has_as_many_messages_as_it_says_each_with_its_own_key(
    profile: Profile, devices: int, failures: float
) -> None:
    campaign = Simulation(ACCOUNT, devices=devices, failures=failures, profile=profile)
    assert len({message.key for message in campaign}) == len(list(campaign)) == campaign.count


@pytest.mark.parametrize("profile", PROFILES)
def test_every_message_reads_as_the_contract_reads_it(profile: Profile) -> None:
    campaign = Simulation(ACCOUNT, devices=20, failures=0.5, profile=profile)
    announced, *others = messages(campaign)
    assert announced.kind == ("firmwareList" if profile == "v1" else "softwareList")
    assert {message.account_name for message in (announced, *others)} == {ACCOUNT}
    assert {message.campaign_id for message in others} == {campaign.campaign_id}
    assert not any(message.extra for message in others)


def test_a_v2_campaign_lives_as_the_contract_says() -> None:
    told = messages(Simulation(ACCOUNT, devices=20, failures=0.5))
    states = [message.campaign.status for message in told if message.campaign]
    assert states == ["CampaignRequestPending", "CampaignQueued", "CampaignScheduled", "CampaignEnded"]
    assert told[-1].campaign is not None
    lives: dict[str | None, list[tuple[str | None, str | None]]] = {}
    for device in (device for message in told for device in message.devices):
        lives.setdefault(device.device_id, []).append((device.status, device.result_reason))
    ends = Counter(life[-1][0] for life in lives.values())
    assert ends == {"UpgradeSuccess": 10, "UpgradedFailed": 8, "DeviceRejected": 2}
    for life in lives.values():
        (status, reason) = life[-1]
        steps = [step for step, _ in life[:-1]]
        assert steps == ([] if status == "DeviceRejected" else ["Accepted", "UpgradePending"])
        reasons = {"UpgradeSuccess": ("DownloadInstallSucceeded",), "DeviceRejected": REJECTIONS}
        assert reason in reasons.get(status or "", FAILURES)


def test_a_v1_campaign_lives_as_the_contract_says() -> None:
    told = messages(Simulation(ACCOUNT, devices=20, failures=0.5, profile="v1"))
    assert [message.kind for message in told[:2]] == ["firmwareList", "upgradeScheduled"]
    assert told[1].upgrade_scheduled is not None
    assert told[1].upgrade_scheduled.status == "Queued"
    statuses = Counter(device.status for message in told for device in message.devices)
    assert statuses == {"InProgress": 18, "Finished": 10, "UpgradeFailed": 8, "RequestFailed": 2}
    assert told[-1].upgrade_progress is not None
    assert told[-1].upgrade_progress.status == "Finished"


def test_dates_and_windows_are_possible() -> None:
    for seed in range(50):
        campaign = next(message.content for message in messages(Simulation(ACCOUNT, devices=1, seed=seed))[1:2])
        assert isinstance(campaign, dict)
        told = campaign["campaign"]
        (window,) = told["campaignTimeWindowList"]
        assert 0 <= window["startTime"] < window["endTime"] <= 24
        assert told["startDate"] < told["endDate"]


def test_it_is_made_as_it_is_read() -> None:
    many = Simulation(ACCOUNT, devices=10**9)
    assert len(list(islice(many, 10))) == 10
    assert many.count > 10**9


def test_many_devices_take_no_more_room_than_few() -> None:
    code = (
        "import resource, sys\n"
        "from fotahook.testing import Simulation\n"
        "made = sum(1 for _ in Simulation('a', devices=int(sys.argv[1])))\n"
        "print(made, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    found = []
    for devices in ("100", "100000"):
        done = subprocess.run([sys.executable, "-c", code, devices], capture_output=True, text=True, check=True)
        found.append([int(figure) for figure in done.stdout.split()])
    (few, room_of_few), (many, room_of_many) = found
    assert many > 900 * few
    # The IMEIs alone would take six times as much.
    assert room_of_many < room_of_few + 1024 * rss_unit()


def rss_unit() -> int:
    """How many of ru_maxrss's units are a KiB."""
    return 1 if sys.platform != "darwin" else 1024


@pytest.mark.parametrize(("devices", "failures"), [(0, 0.0), (1, -0.1), (1, 1.1)])
def test_what_is_no_campaign_is_refused(devices: int, failures: float) -> None:
    with pytest.raises(ValueError, match="campaign"):
        Simulation(ACCOUNT, devices=devices, failures=failures)


def test_what_is_no_profile_is_refused() -> None:
    with pytest.raises(ValueError, match="choose v1 or v2"):
        Simulation(ACCOUNT, profile="v3")  # type: ignore[arg-type]  # what is tried

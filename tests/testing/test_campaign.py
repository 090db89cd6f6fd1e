"""Simulated campaigns: deterministic, of any size, and as the contract describes them."""

import hashlib
import subprocess
import sys
from collections import Counter
from itertools import islice

import pytest

from fotahook.contract.messages import CallbackMessage, parse_message
from fotahook.testing import Simulation, campaign
from fotahook.testing.simulator.campaign import FAILURES, REJECTIONS, Profile

ACCOUNT = "0000123456-00001"
PROFILES: list[Profile] = ["v1", "v2"]


def messages(simulation: Simulation) -> list[CallbackMessage]:
    return [parse_message(message.body) for message in simulation]


@pytest.mark.parametrize("profile", PROFILES)
def test_the_same_seed_gives_the_same_bytes(profile: Profile) -> None:
    first, again, other = (Simulation(ACCOUNT, devices=50, seed=seed, profile=profile) for seed in (7, 7, 8))
    assert list(first) == list(again) == list(first)
    assert list(first) != list(other)


# A change of these bytes changes the messages of `--seed 7` for everybody.
@pytest.mark.parametrize(
    ("profile", "digest"),
    [
        ("v1", "fb845b9df8d3da03598cbf96ae23a65580c5b437f1abc0381345f2b9ae6066bd"),
        ("v2", "f3869bf818eb1de69c1025f90c928ea64de085bf4e591326bcebda41392f87e0"),
    ],
)
def test_seed_seven_gives_the_same_bytes_in_every_version(profile: Profile, digest: str) -> None:
    simulation = Simulation(ACCOUNT, devices=100, failures=0.1, seed="7", profile=profile)
    assert hashlib.sha256(b"\n".join(message.body for message in simulation)).hexdigest() == digest


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize(("devices", "failures"), [(1, 0.0), (1, 1.0), (7, 0.5), (100, 0.1), (250, 1.0)])
def test_count_is_the_number_of_messages_and_keys_are_unique(profile: Profile, devices: int, failures: float) -> None:
    simulation = Simulation(ACCOUNT, devices=devices, failures=failures, profile=profile)
    assert len({message.key for message in simulation}) == len(list(simulation)) == simulation.count


@pytest.mark.parametrize("profile", PROFILES)
def test_the_contract_knows_every_member_of_every_message(profile: Profile) -> None:
    simulation = Simulation(ACCOUNT, devices=20, failures=0.5, profile=profile)
    announced, *others = messages(simulation)
    assert announced.kind == ("firmwareList" if profile == "v1" else "softwareList")
    assert {message.account_name for message in (announced, *others)} == {ACCOUNT}
    assert {message.campaign_id for message in others} == {simulation.campaign_id}
    assert not any(message.extra for message in others)


def test_a_v2_campaign_follows_the_life_cycle_of_the_contract() -> None:
    sent = messages(Simulation(ACCOUNT, devices=20, failures=0.5))
    states = [message.campaign.status for message in sent if message.campaign]
    assert states == ["CampaignRequestPending", "CampaignQueued", "CampaignScheduled", "CampaignEnded"]
    assert sent[-1].campaign is not None
    lives: dict[str | None, list[tuple[str | None, str | None]]] = {}
    for device in (device for message in sent for device in message.devices):
        lives.setdefault(device.device_id, []).append((device.status, device.result_reason))
    ends = Counter(life[-1][0] for life in lives.values())
    assert ends == {"UpgradeSuccess": 10, "UpgradedFailed": 8, "DeviceRejected": 2}
    for life in lives.values():
        (status, reason) = life[-1]
        steps = [step for step, _ in life[:-1]]
        assert steps == ([] if status == "DeviceRejected" else ["Accepted", "UpgradePending"])
        reasons = {"UpgradeSuccess": ("DownloadInstallSucceeded",), "DeviceRejected": REJECTIONS}
        assert reason in reasons.get(status or "", FAILURES)


def test_a_v1_campaign_follows_the_life_cycle_of_the_contract() -> None:
    sent = messages(Simulation(ACCOUNT, devices=20, failures=0.5, profile="v1"))
    assert [message.kind for message in sent[:2]] == ["firmwareList", "upgradeScheduled"]
    assert sent[1].upgrade_scheduled is not None
    assert sent[1].upgrade_scheduled.status == "Queued"
    statuses = Counter(device.status for message in sent for device in message.devices)
    assert statuses == {"InProgress": 18, "Finished": 10, "UpgradeFailed": 8, "RequestFailed": 2}
    assert sent[-1].upgrade_progress is not None
    assert sent[-1].upgrade_progress.status == "Finished"


def test_dates_and_time_windows_are_valid() -> None:
    for seed in range(50):
        content = messages(Simulation(ACCOUNT, devices=1, seed=seed))[1].content
        assert isinstance(content, dict)
        planned = content["campaign"]
        (window,) = planned["campaignTimeWindowList"]
        assert 0 <= window["startTime"] < window["endTime"] <= 24
        assert planned["startDate"] < planned["endDate"]


def test_messages_are_generated_on_demand() -> None:
    many = Simulation(ACCOUNT, devices=10**9)
    assert len(list(islice(many, 10))) == 10
    assert many.count > 10**9


def test_many_devices_take_no_more_memory_than_few() -> None:
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
    (few, memory_of_few), (many, memory_of_many) = found
    assert many > 900 * few
    # The IMEIs alone would take six times as much.
    assert memory_of_many < memory_of_few + 1024 * rss_unit()


def rss_unit() -> int:
    """The size of a KiB in the unit of ru_maxrss."""
    return 1 if sys.platform != "darwin" else 1024


@pytest.mark.parametrize(("devices", "failures"), [(0, 0.0), (1, -0.1), (1, 1.1)])
def test_less_than_one_device_or_an_invalid_share_is_refused(devices: int, failures: float) -> None:
    with pytest.raises(ValueError, match="campaign"):
        Simulation(ACCOUNT, devices=devices, failures=failures)


def test_an_unknown_profile_is_refused() -> None:
    with pytest.raises(ValueError, match="choose v1 or v2"):
        Simulation(ACCOUNT, profile="v3")  # type: ignore[arg-type]  # what is tried


# The messages about devices


def test_each_device_has_its_messages_in_order() -> None:
    steps: dict[str, list[int]] = {}
    for message in campaign(ACCOUNT, devices=50):
        steps.setdefault(message.device, []).append(message.step)
    assert list(steps.values()) == [[0, 1, 2]] * 50


def test_they_are_those_of_a_simulation_with_the_same_seed() -> None:
    simulation = Simulation(ACCOUNT, devices=20, failures=0.5, seed=3)
    found = list(campaign(ACCOUNT, devices=20, failures=0.5, seed=3))
    assert found == [message for message in simulation if message.device != simulation.campaign_id]
    assert found != list(campaign(ACCOUNT, devices=20, failures=0.5, seed=4))


@pytest.mark.parametrize(
    ("devices", "share", "failed"), [(100, 0.02, 2), (10, 0.02, 1), (10, 0, 0), (10, 1, 10), (1, 0.02, 0)]
)
def test_the_share_of_failures_is_exact(devices: int, share: float, failed: int) -> None:
    statuses = [
        device.status
        for message in campaign(ACCOUNT, devices=devices, failures=share)
        for device in parse_message(message.body).devices
    ]
    assert sum(status in ("UpgradedFailed", "DeviceRejected") for status in statuses) == failed


def test_devices_are_different_imeis_with_a_valid_check_digit() -> None:
    devices = {message.device for message in campaign(ACCOUNT, devices=500)}
    assert len(devices) == 500
    for imei in devices:
        assert len(imei) == 15
        digits = [int(digit) for digit in imei]
        doubled = [sum(divmod(2 * digit, 10)) if place % 2 else digit for place, digit in enumerate(digits)]
        assert sum(doubled) % 10 == 0

"""Campaigns: the same for the same seed, and as the contract knows them."""

import pytest

from fotahook.contract.messages import parse_message
from fotahook.testing import campaign
from fotahook.testing.simulator.campaigns import FAILURES, STEPS

ACCOUNT = "0000123456-00001"


def test_the_same_seed_gives_the_same_bytes() -> None:
    first, again, other = (list(campaign(ACCOUNT, devices=50, seed=seed)) for seed in (7, 7, 8))
    assert first == again
    assert first != other


def test_each_device_has_its_messages_in_order_and_each_message_its_own_key() -> None:
    messages = list(campaign(ACCOUNT, devices=50))
    assert len({message.key for message in messages}) == len(messages) == 50 * STEPS
    steps: dict[str, list[int]] = {}
    for message in messages:
        steps.setdefault(message.device, []).append(message.step)
    assert list(steps.values()) == [list(range(STEPS))] * 50


def test_a_message_reads_as_the_contract_reads_it() -> None:
    scheduled, pending, ended = (parse_message(message.body) for message in campaign(ACCOUNT, devices=1, failures=0))
    assert [message.kind for message in (scheduled, pending, ended)] == ["upgradeScheduled", *["upgradeProgress"] * 2]
    assert {message.account_name for message in (scheduled, pending, ended)} == {ACCOUNT}
    assert len({message.campaign_id for message in (scheduled, pending, ended)}) == 1
    assert [message.devices[0].status for message in (scheduled, pending, ended)] == [
        "Accepted",
        "UpgradePending",
        "UpgradeSuccess",
    ]
    assert ended.devices[0].result_reason == "DownloadInstallSucceeded"
    assert ended.extra == {}, "every member is one that the contract knows"


@pytest.mark.parametrize(
    ("devices", "share", "failed"), [(100, 0.02, 2), (10, 0.02, 1), (10, 0, 0), (10, 1, 10), (1, 0.02, 0)]
)
def test_the_share_of_failures_is_kept(devices: int, share: float, failed: int) -> None:
    reasons = [
        device.result_reason
        for message in campaign(ACCOUNT, devices=devices, failures=share)
        for device in parse_message(message.body).devices
        if device.status == "UpgradedFailed"
    ]
    assert len(reasons) == failed
    assert set(reasons) <= set(FAILURES)


def test_devices_are_different_imeis_with_a_right_check_digit() -> None:
    devices = {message.device for message in campaign(ACCOUNT, devices=500)}
    assert len(devices) == 500
    for imei in devices:
        assert len(imei) == 15
        digits = [int(digit) for digit in imei]
        doubled = [sum(divmod(2 * digit, 10)) if place % 2 else digit for place, digit in enumerate(digits)]
        assert sum(doubled) % 10 == 0


@pytest.mark.parametrize(("devices", "failures"), [(0, 0.0), (1, -0.1), (1, 1.1)])
def test_what_is_no_campaign_is_refused(devices: int, failures: float) -> None:
    with pytest.raises(ValueError, match="campaign"):
        list(campaign(ACCOUNT, devices=devices, failures=failures))

"""Tests of the handlers alone, and of the whole way from a service to the ledger."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from upgrades.handlers import make_listener
from upgrades.ledger import Ledger

from fotahook import Client, FotaV2CallbackRegistrationRequest
from fotahook.testing import ListenerClient, Sandbox, Simulation, listener_client, parse_fault_script, upgrade_progress

ACCOUNT = "0000123456-00001"
IMEI = "990013907835573"


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "upgrades.db")


@pytest.fixture
def listener(ledger: Ledger) -> Iterator[ListenerClient]:
    with listener_client(make_listener(ledger), serve=True) as client:
        yield client


def test_an_upgrade_that_succeeded(listener: ListenerClient, ledger: Ledger) -> None:
    listener.post(upgrade_progress(device=IMEI), duplicate=1)
    listener.wait_for(handled=1)
    assert ledger.upgraded() == {IMEI}


def test_an_upgrade_that_failed(listener: ListenerClient, ledger: Ledger) -> None:
    listener.post(upgrade_progress(device=IMEI, status="UpgradedFailed", reason="RovaClientDownloadFailed"))
    listener.wait_for(handled=1)
    assert ledger.failed() == {IMEI: "RovaClientDownloadFailed"}


BAD_DAY = """
[[step]]
after = 10
do = "error"
status = 503
times = 3

[[step]]
after = 30
do = "duplicate"
times = 20
"""


def test_a_campaign_on_a_bad_day(
    fotahook_sandbox: Sandbox, fotahook_client: Client, listener: ListenerClient, ledger: Ledger
) -> None:
    callbacks = fotahook_client.software_management_callbacks_v2
    callbacks.register_callback(ACCOUNT, FotaV2CallbackRegistrationRequest(listener.url))
    campaign = Simulation(ACCOUNT, devices=50, failures=0.2)
    came = fotahook_sandbox.run(parse_fault_script(BAD_DAY), campaign)
    assert came.undelivered == 0
    listener.wait_for(handled=campaign.count, timeout=30)
    # Ten devices fail; two of these are rejected and never start an upgrade.
    assert len(ledger.upgraded()) == 40
    assert len(ledger.failed()) == 8

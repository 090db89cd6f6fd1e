"""A campaign with a fault script in the sandbox."""

from pathlib import Path

import pytest

from fotahook.testing import FaultScript, Sandbox, ScriptInvalid, Simulation
from fotahook.testing.simulator.faults import Drop, ErrorResponse

from .test_faults import EVERYTHING

ACCOUNT = "0000123456-00001"


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "bad-day.toml"
    path.write_text(EVERYTHING)
    return path


def test_a_campaign_is_delivered_in_spite_of_faults(sandbox: Sandbox, script: Path) -> None:
    sandbox.register(ACCOUNT)
    result = sandbox.run(script)
    assert (result.sent, result.delivered, result.undelivered, result.faults_left) == (305, 305, 0, 0)
    assert result.outcomes == {"delivered": 310, "http_503": 2, "connection_lost": 1, "tls_untrusted": 1}
    received = sandbox.receiver.received
    assert len(received) == 310
    assert len({one.id for one in received}) == 305
    assert {one.body for one in received} == {message.body for message in Simulation(ACCOUNT, devices=100)}


def test_undelivered_messages_are_counted(sandbox: Sandbox) -> None:
    sandbox.register(ACCOUNT)
    campaign = Simulation(ACCOUNT, devices=1, failures=0, profile="v1")
    # Each of the five messages is refused eight times.
    result = sandbox.run(FaultScript((ErrorResponse(status=400, times=40),)), campaign)
    assert (result.sent, result.delivered, result.undelivered) == (5, 0, 5)
    assert result.outcomes == {"http_400": 40}


def test_unused_faults_are_counted(sandbox: Sandbox) -> None:
    sandbox.register(ACCOUNT)
    campaign = Simulation(ACCOUNT, devices=1, profile="v1")
    result = sandbox.run(FaultScript((Drop(after=5, times=3),)), campaign)
    assert (result.delivered, result.faults_left) == (5, 3)


def test_an_account_without_a_callback_is_refused(sandbox: Sandbox, script: Path) -> None:
    with pytest.raises(LookupError, match=r"register one, sandbox\.receiver\.url perhaps"):
        sandbox.run(script)


def test_an_invalid_script_sends_nothing(sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.register(ACCOUNT)
    (tmp_path / "bad.toml").write_text("[[step]]\n")
    with pytest.raises(ScriptInvalid, match="line 1: do: is missing"):
        sandbox.run(tmp_path / "bad.toml")
    assert sandbox.deliveries() == []

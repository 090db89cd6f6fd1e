"""A campaign through a fault script in the sandbox, and the gate that does the same before a receiver elsewhere."""

from pathlib import Path

import pytest
import urllib3

from fotahook.testing import FaultScript, Sandbox, ScriptInvalid, Simulation
from fotahook.testing.sandbox.faulty_proxy import gate
from fotahook.testing.simulator.fault_script import DropStep, ErrorStep

from .receivers import receiving
from .test_script import EVERYTHING

ACCOUNT = "0000123456-00001"


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "bad-day.toml"
    path.write_text(EVERYTHING)
    return path


def test_a_campaign_comes_through_a_bad_day(sandbox: Sandbox, script: Path) -> None:
    sandbox.register(ACCOUNT)
    came = sandbox.run(script)
    assert (came.sent, came.delivered, came.undelivered, came.faults_left) == (305, 305, 0, 0)
    assert came.outcomes == {"delivered": 310, "http_503": 2, "connection_lost": 1, "tls_untrusted": 1}
    received = sandbox.receiver.received
    assert len(received) == 310
    assert len({one.id for one in received}) == 305
    assert {one.body for one in received} == {message.body for message in Simulation(ACCOUNT, devices=100)}


def test_messages_that_nobody_takes_are_counted(sandbox: Sandbox) -> None:
    sandbox.register(ACCOUNT)
    campaign = Simulation(ACCOUNT, devices=1, failures=0, profile="v1")
    # Each of the five messages is refused eight times.
    came = sandbox.run(FaultScript((ErrorStep(status=400, times=40),)), campaign)
    assert (came.sent, came.delivered, came.undelivered) == (5, 0, 5)
    assert came.outcomes == {"http_400": 40}


def test_faults_that_nobody_met_are_told(sandbox: Sandbox) -> None:
    sandbox.register(ACCOUNT)
    campaign = Simulation(ACCOUNT, devices=1, profile="v1")
    came = sandbox.run(FaultScript((DropStep(after=5, times=3),)), campaign)
    assert (came.delivered, came.faults_left) == (5, 3)


def test_an_account_without_a_callback_is_told_of(sandbox: Sandbox, script: Path) -> None:
    with pytest.raises(LookupError, match=r"register one, sandbox\.receiver\.url perhaps"):
        sandbox.run(script)


def test_a_script_that_is_none_changes_nothing(sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.register(ACCOUNT)
    (tmp_path / "bad.toml").write_text("[[step]]\n")
    with pytest.raises(ScriptInvalid, match="line 1: do: is missing"):
        sandbox.run(tmp_path / "bad.toml")
    assert sandbox.deliveries() == []


def post(http: urllib3.PoolManager, url: str, attempt: str = "1") -> urllib3.BaseHTTPResponse:
    headers = {"webhook-id": "m1", "Fotahook-Attempt": attempt, "X-Mine": "a"}
    return http.request("POST", url, body=b"{}", headers=headers, retries=False)


def test_a_gate_passes_on_what_does_not_go_wrong() -> None:
    with Sandbox() as sandbox, gate(sandbox.receiver.url) as before, urllib3.PoolManager() as http:
        before.faults.answer_deliveries(503, retry_after=9)
        refused = post(http, before.url)
        assert (refused.status, refused.headers["Retry-After"]) == (503, "9")
        assert post(http, before.url).status == 200
        before.faults.duplicate_deliveries()
        assert post(http, before.url).status == 200
        received = sandbox.receiver.received
        assert [one.id for one in received] == ["m1"] * 3
        assert received[0].headers["x-mine"] == "a"
        assert before.passed == 3


def test_a_gate_drops_an_attempt_each_time_that_it_comes() -> None:
    with gate() as alone, urllib3.PoolManager() as http:
        alone.faults.drop_deliveries()
        for _ in range(2):
            with pytest.raises(urllib3.exceptions.ProtocolError):
                post(http, alone.url)
        assert post(http, alone.url, attempt="2").status == 200


def test_a_gate_tells_what_is_behind_it() -> None:
    with receiving() as gone:
        url = gone.url
    with gate(url) as before, urllib3.PoolManager() as http:
        assert post(http, before.url).status == 502
    with Sandbox() as sandbox, gate(f"{sandbox.base_url}/nowhere") as before, urllib3.PoolManager() as http:
        assert post(http, before.url).status == 404


def test_a_gate_has_a_trap_that_nobody_trusts() -> None:
    with gate() as alone, urllib3.PoolManager() as http:
        with pytest.raises(urllib3.exceptions.SSLError, match="CERTIFICATE_VERIFY_FAILED"):
            post(http, alone.trap.url)
        assert alone.trap.met == 1

"""`fotahook simulate`: through a service, straight to a listener, and with a script of faults."""

import json
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fotahook.client import OperatorClient
from fotahook.testing import Sandbox, Simulation, make_certificates
from fotahook.testing.sandbox.sandbox import thingspace_target
from fotahook.testing.sandbox.targets import RateLimiter
from tests.deadlines import DEADLINE
from tests.ports import unused_port

from ..testing.receivers import receiving
from .conftest import Run, is_one_line
from .processes import FOTAHOOK, environment, fotahook, running
from .test_terminal import COLOUR, at_a_terminal

ACCOUNT = "0000123456-00001"
FAST = ("--rate", "0", "--devices", "20", "--json")


@pytest.fixture
def service(sandbox: Sandbox) -> Iterator[Sandbox]:
    yield sandbox
    sandbox.reset()


def through(service: Sandbox) -> tuple[str, ...]:
    return ("--base-url", service.base_url, "--dev")


def test_a_campaign_is_sent_as_thingspace_sends(run: Run, service: Sandbox, tmp_path: Path) -> None:
    script = tmp_path / "faults.toml"
    script.write_text('[[step]]\ndo = "error"\nafter = 3\nstatus = 503\ntimes = 2\n')
    to = ("--profile", "thingspace", "--to", service.receiver.url, "--fault-script", str(script))
    result = run("simulate", ACCOUNT, "--rate", "0", "--devices", "3", "--json", *to)
    facts = json.loads(result.out)
    sent = Simulation(ACCOUNT, devices=3).count
    # Two attempts of one message may both be refused, or one each of two messages: the timing decides.
    lost = sent - facts["delivered"]
    assert result.code == (1 if lost else 0)
    assert (f"{lost} of {sent} messages are lost" in result.err) == bool(lost)
    assert (facts["profile"], facts["http_503"], facts["posted"]) == ("thingspace", 2, facts["delivered"] + 2)
    bodies = [json.loads(one.body) for one in service.receiver.received]
    assert len(bodies) == facts["delivered"]
    assert {body["maxCallbackThreshold"] for body in bodies} == {4}


def test_the_former_url_gets_half_of_the_messages(run: Run, service: Sandbox) -> None:
    with receiving() as former:
        to = ("--profile", "thingspace", "--to", service.receiver.url, "--former-to", former.url)
        result = run("simulate", ACCOUNT, "--rate", "0", "--devices", "20", "--json", *to)
    facts = json.loads(result.out)
    assert result.code == 0
    assert re.fullmatch(
        r"fotahook: to change the callback meanwhile: .* --base-url http://127.0.0.1:\d+ --local\n", result.err
    )
    sent = Simulation(ACCOUNT, devices=20).count
    assert (facts["posted"], facts["delivered"], facts["dropped"]) == (sent, sent, 0)
    assert sent / 4 < facts["postedToFormer"] < sent * 3 / 4
    assert len(service.receiver.received) == sent - facts["postedToFormer"]


def test_what_is_sent_while_nothing_is_registered_is_dropped(service: Sandbox) -> None:
    messages = list(Simulation(ACCOUNT, devices=3))
    with thingspace_target(ACCOUNT, None, service.receiver.url, "7", 0, lambda sent: None) as target:
        target.send(messages[:5])
        with target.sandbox.client() as client:
            client.callbacks.deregister_callback(ACCOUNT)
        target.send(messages[5:])
        result = target.finish()
    assert result.counts == {"posted": 5, "dropped": len(messages) - 5, "delivered": 5}
    assert result.lost == f"{len(messages) - 5} of {len(messages)} messages are lost, as ThingSpace loses them"
    assert len(service.receiver.received) == 5


@pytest.mark.parametrize("flags", [(), ("--to", "http://127.0.0.1:1/", "--ca-file", "ca.pem")])
def test_the_profile_of_thingspace_needs_a_listener(run: Run, tmp_path: Path, flags: tuple[str, ...]) -> None:
    (tmp_path / "ca.pem").write_bytes(make_certificates(tmp_path, "127.0.0.1").ca_file.read_bytes())
    flags = tuple(str(tmp_path / flag) if flag == "ca.pem" else flag for flag in flags)
    result = run("simulate", ACCOUNT, "--profile", "thingspace", *flags)
    assert result.code == 2
    assert "--profile thingspace sends to a listener: give --to URL, and no --ca-file" in result.err


def test_a_campaign_is_sent_through_a_service(run: Run, service: Sandbox) -> None:
    service.register(ACCOUNT)
    result = run("simulate", ACCOUNT, *FAST, *through(service))
    assert (result.code, result.err) == (0, "")
    facts = json.loads(result.out)
    campaign = Simulation(ACCOUNT, devices=20)
    assert facts.pop("seconds") >= 0
    assert facts == {
        "account": ACCOUNT,
        "campaign": campaign.campaign_id,
        "profile": "v2",
        "profileIsOurs": True,
        "devices": 20,
        "messages": campaign.count,
        "sent": campaign.count,
    }
    service.drain()
    bodies = [one.body for one in service.receiver.received]
    assert sorted(bodies) == sorted(message.body for message in campaign)


def test_a_campaign_can_be_sent_again(run: Run, service: Sandbox) -> None:
    service.register(ACCOUNT)
    for _ in range(2):
        assert run("simulate", ACCOUNT, "--devices", "1", "--rate", "0", *through(service)).code == 0
    service.drain()
    assert set(Counter(one.body for one in service.receiver.received).values()) == {2}


def test_messages_that_wait_for_a_callback_are_reported(run: Run, service: Sandbox) -> None:
    result = run("simulate", ACCOUNT, *FAST, *through(service))
    assert result.code == 0
    assert result.err == (
        f"fotahook: account {ACCOUNT} has no callback: its messages wait; see fotahook callbacks register --help\n"
    )
    service.register(ACCOUNT)
    assert run("simulate", ACCOUNT, *FAST, *through(service)).err == ""


def test_a_campaign_is_posted_to_a_listener(run: Run, service: Sandbox) -> None:
    result = run("simulate", ACCOUNT, *FAST, "--profile", "v1", "--seed", "8", "--to", service.receiver.url)
    facts = json.loads(result.out)
    assert (result.code, facts["posted"], facts["http_200"], facts["profileIsOurs"]) == (0, 43, 43, False)
    received = service.receiver.received
    campaign = Simulation(ACCOUNT, devices=20, seed=8, profile="v1")
    assert [one.body for one in received] == [message.body for message in campaign]
    assert {one.headers["content-type"] for one in received} == {"application/json"}
    assert not any(name.startswith("webhook-") for one in received for name in one.headers)


def test_a_listener_with_a_private_authority_needs_ca_file(run: Run, tmp_path: Path) -> None:
    made = make_certificates(tmp_path, "127.0.0.1")
    with receiving(certificates=made) as receiver:
        trusting = run("simulate", ACCOUNT, *FAST, "--to", receiver.url, "--ca-file", str(made.ca_file))
        assert trusting.code == 0
        strange = run("simulate", ACCOUNT, *FAST, "--to", receiver.url)
    assert strange.code == 3
    assert is_one_line(strange.err)
    assert "--ca-file" in strange.err


def test_posts_that_a_listener_refuses_are_counted_and_fail_the_command(run: Run, service: Sandbox) -> None:
    result = run("simulate", ACCOUNT, *FAST, "--to", f"{service.base_url}/sandbox/nothing-here")
    assert result.code == 1
    assert json.loads(result.out)["http_404"] == 65
    assert result.err == "fotahook: 65 of 65 posts failed: 65 http_404; see the listener's log\n"


def test_an_absent_listener_is_unreachable_at_once(run: Run) -> None:
    port = unused_port()
    result = run("simulate", ACCOUNT, *FAST, "--to", f"http://127.0.0.1:{port}/")
    assert (result.code, result.out) == (3, "")
    assert is_one_line(result.err)
    assert f"127.0.0.1:{port}" in result.err
    assert "check that the listener runs" in result.err


SENDER = """
[[step]]
after = 5
do = "duplicate"
times = 3
[[step]]
after = 10
do = "reorder"
messages = 20
[[step]]
after = 40
do = "pause"
seconds = 0.1
"""

RECEIVER = """
[[step]]
after = 5
do = "error"
status = 503
retry_after = 0
times = 2
[[step]]
after = 10
do = "duplicate"
times = 3
[[step]]
after = 40
do = "certificate"
[[step]]
after = 50
do = "delay"
seconds = 0.1
"""


def test_a_fault_script_with_a_listener(run: Run, service: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "script.toml").write_text(SENDER)
    flags = ("--fault-script", "script.toml", "--to", service.receiver.url)
    facts = json.loads(run("simulate", ACCOUNT, *FAST, *flags).out)
    assert (facts["sent"], facts["posted"]) == (65, 68)
    bodies = [one.body for one in service.receiver.received]
    expected = [message.body for message in Simulation(ACCOUNT, devices=20)]
    assert bodies[5:11] == [body for body in expected[5:8] for _ in range(2)]
    assert bodies[13:33] != expected[10:30]
    assert sorted(bodies[13:33]) == sorted(expected[10:30])
    assert bodies[33:] == expected[30:]


def test_a_fault_script_with_a_service_uses_a_proxy(run: Run, service: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "script.toml").write_text(RECEIVER)
    service.register(ACCOUNT)
    with ThreadPoolExecutor(1) as aside:
        command = aside.submit(run, "simulate", ACCOUNT, *FAST, "--fault-script", "script.toml", *through(service))
        while not command.done():
            # The message that met the certificate waits for five seconds.
            service.advance(1)
            time.sleep(0.02)
    result = command.result()
    assert result.code == 0, result.err
    facts = json.loads(result.out)
    assert (facts["sent"], facts["received"], facts["pending"]) == (65, 68, 0)
    received = service.receiver.received
    assert len(received) == 68
    assert len({one.id for one in received}) == 65
    outcomes = Counter(one.outcome for one in service.deliveries(ACCOUNT))
    assert outcomes["delivered"] == 65
    assert outcomes["http_503"] == 2
    assert outcomes["tls_untrusted"] >= 1
    with service.client() as client:
        summary = client.software_management_callbacks_v2.list_registered_callbacks(ACCOUNT).data
    assert summary is not None
    assert summary.url == service.receiver.url, "the callback is what it was"


def test_an_account_without_a_callback_has_none_afterwards(run: Run, service: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "script.toml").write_text("[[step]]\ndo = 'error'\nstatus = 503\nretry_after = 0\n")
    flags = ("--devices", "1", "--rate", "0", "--fault-script", "script.toml")
    assert run("simulate", ACCOUNT, *flags, *through(service)).code == 0
    with service.client() as client:
        assert client.software_management_callbacks_v2.list_registered_callbacks(ACCOUNT).data is None


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("a/b",), "a/b"),
        ((ACCOUNT, "--devices", "0"), "for --devices"),
        ((ACCOUNT, "--rate", "-1"), "for --rate"),
        ((ACCOUNT, "--rate", "nan"), "for --rate"),
        ((ACCOUNT, "--failures", "101%"), "--failures 101%"),
        ((ACCOUNT, "--failures", "some"), "--failures some"),
        ((ACCOUNT, "--profile", "v3"), "v3"),
        ((ACCOUNT, "--to", "ftp://x/"), "--to ftp://x/: url must begin with https:// or http://"),
        ((ACCOUNT, "--ca-file", "ca.pem"), "--ca-file goes with --to"),
        ((ACCOUNT, "--to", "http://x/", "--former-to", "http://y/"), "--former-to goes with --profile thingspace"),
        ((ACCOUNT, "--profile", "thingspace", "--to", "http://x/", "--former-to", "y"), "--former-to y: url must"),
        ((ACCOUNT, "--to", "http://127.0.0.1/", "--fault-script", "script.toml"), "error is the receiver's"),
        ((ACCOUNT, "--fault-script", "bad.toml"), "bad.toml, line 3: times: "),
    ],
)
def test_invalid_options_are_usage_errors(run: Run, tmp_path: Path, flags: tuple[str, ...], told: str) -> None:
    (tmp_path / "script.toml").write_text("[[step]]\ndo = 'error'\n")
    (tmp_path / "bad.toml").write_text("[[step]]\ndo = 'drop'\ntimes = 'x'\n")
    result = run("simulate", *flags, "--dev")
    assert (result.code, result.out) == (2, "")
    assert is_one_line(result.err)
    assert told in result.err


@pytest.mark.parametrize("flags", [("--fault-script",), ("--to", "https://127.0.0.1:9/", "--ca-file")])
def test_a_missing_file_is_named(run: Run, flags: tuple[str, ...]) -> None:
    result = run("simulate", ACCOUNT, "--dev", *flags, "absent.toml")
    assert result.code == 1
    assert is_one_line(result.err)
    assert "absent.toml" in result.err


def test_a_terminal_shows_progress_and_that_the_profile_is_ours(service: Sandbox, tmp_path: Path) -> None:
    flags = ("--devices", "5", "--rate", "0", "--to", service.receiver.url)
    shown = COLOUR.sub("", at_a_terminal("simulate", ACCOUNT, *flags, cwd=tmp_path))
    assert "20/20" in shown
    assert re.search(r"ours: Verizon|ours:", shown)


def test_a_seed_gives_the_same_bytes_in_another_process(service: Sandbox, tmp_path: Path) -> None:
    flags = ("--devices", "30", "--rate", "0", "--failures", "0.5", "--to", service.receiver.url)
    for _ in range(2):
        assert fotahook("simulate", ACCOUNT, *flags, cwd=tmp_path).returncode == 0
    bodies = [one.body for one in service.receiver.received]
    half = len(bodies) // 2
    assert bodies[:half] == bodies[half:]


def test_the_rate_is_kept_without_catching_up_after_a_pause() -> None:
    now, slept = [100.0], []

    def sleep(seconds: float) -> None:
        slept.append(round(seconds, 6))
        now[0] += seconds

    limiter = RateLimiter(20, lambda: now[0], sleep)
    for _ in range(3):
        limiter.wait(2)
    assert slept == [0.1, 0.1]
    limiter.sleep(5)
    limiter.wait(2)
    limiter.wait(2)
    assert slept == [0.1, 0.1, 5, 0.1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_with_the_number_sent_and_restores_the_callback(
    service: Sandbox, tmp_path: Path, number: signal.Signals
) -> None:
    (tmp_path / "script.toml").write_text("[[step]]\nafter = 1\ndo = 'duplicate'\n")
    service.register(ACCOUNT)
    flags = ("--rate", "50", "--fault-script", "script.toml", *through(service))
    process = subprocess.Popen(
        [*FOTAHOOK, "simulate", ACCOUNT, *flags],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        service.receiver.wait(5, timeout=DEADLINE)
        process.send_signal(number)
        out, err = process.communicate(timeout=DEADLINE)
    finally:
        process.kill()
        process.wait(DEADLINE)
    assert (process.returncode, out) == (130, "")
    sent = re.fullmatch(r"fotahook: interrupted; (\d+) of (\d+) messages were sent\n", err)
    assert sent is not None, err
    assert 5 <= int(sent[1]) < int(sent[2]) == Simulation(ACCOUNT).count
    with service.client() as client:
        summary = client.software_management_callbacks_v2.list_registered_callbacks(ACCOUNT).data
    assert summary is not None
    assert summary.url == service.receiver.url


def test_an_error_in_the_middle_tells_how_many_were_sent(tmp_path: Path) -> None:
    with running("serve", "--dev", "--port", "0", cwd=tmp_path) as service:
        process = subprocess.Popen(
            [*FOTAHOOK, "simulate", ACCOUNT, "--rate", "50", "--base-url", service.url, "--dev"],
            cwd=tmp_path,
            env=environment(),
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            with OperatorClient(service.url, "dev", "dev-secret", proxy="") as client:
                # A batch has five messages: the second one is sent when the first has its answer.
                while client.account(ACCOUNT).backlog.pending <= 5:
                    time.sleep(0.01)
            service.process.kill()
            _, err = process.communicate(timeout=DEADLINE)
        finally:
            process.kill()
            process.wait(DEADLINE)
    progress, failure = err.splitlines()
    assert process.returncode == 3
    assert re.fullmatch(r"fotahook: [1-9]\d* of \d+ messages were sent", progress)
    assert "check --base-url" in failure

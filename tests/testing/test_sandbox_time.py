"""The sandbox's clock, which tests move on, and its beginning anew."""

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import urllib3

from fotahook import AuthenticationError, Client, LoginRefused, OperatorClient
from fotahook.contract.auth import SESSION_IDLE, SessionCredentials, ThingspaceOauthCredentials
from fotahook.service.credentials import DEV_CLIENT, DEV_USER
from fotahook.store import sqlite_path
from fotahook.testing import Sandbox
from tests.deadlines import DEADLINE

from .sessions import session_of, with_static_session

ACCOUNT = "0000123456-00001"
HOUR = 3600.0
DAY = 24 * HOUR


def test_a_backoff_ends_by_the_sandboxs_clock(sandbox: Sandbox) -> None:
    sandbox.register(ACCOUNT)
    sandbox.faults.answer_deliveries(429)
    message_id = sandbox.publish(ACCOUNT, b"{}")
    with OperatorClient(sandbox.base_url, *DEV_CLIENT, proxy="") as operator:
        while not operator.attempts(message_id):
            time.sleep(0.002)
    with pytest.raises(TimeoutError, match="pending: http_429"):
        sandbox.wait_delivered(message_id, timeout=0)
    sandbox.advance(1)
    with pytest.raises(TimeoutError):
        sandbox.wait_delivered(message_id, timeout=0.2)
    sandbox.advance(5)
    sandbox.wait_delivered(message_id)
    assert [(one.attempt, one.outcome) for one in sandbox.deliveries()] == [(1, "http_429"), (2, "delivered")]


def test_the_whole_schedule_of_a_refused_message_passes_at_once(sandbox: Sandbox) -> None:
    sandbox.register(ACCOUNT)
    sandbox.faults.answer_deliveries(400, times=8)
    began = sandbox.now()
    message_id = sandbox.publish(ACCOUNT, b"{}")
    sandbox.drain()
    with pytest.raises(TimeoutError, match="is dead: http_400"):
        sandbox.wait_delivered(message_id)
    assert len(sandbox.deliveries()) == 8
    assert sandbox.now() - began > 27 * HOUR
    assert sandbox.receiver.received == []


def test_an_undelivered_message_is_dead_after_its_time_to_live(sandbox: Sandbox) -> None:
    sandbox.register(ACCOUNT, "http://127.0.0.1:1/")
    message_id = sandbox.publish(ACCOUNT, b"{}")
    while not sandbox.deliveries():
        time.sleep(0.002)
    sandbox.advance(7 * DAY)
    sandbox.drain()
    with pytest.raises(TimeoutError, match="is dead"):
        sandbox.wait_delivered(message_id)


def test_a_drain_timeout_names_the_last_attempt(sandbox: Sandbox) -> None:
    sandbox.register(ACCOUNT, "http://127.0.0.1:1/")
    sandbox.publish(ACCOUNT, b"{}")
    with pytest.raises(TimeoutError, match="still something to send; the last attempt: "):
        sandbox.drain(timeout=0)


def test_advancing_the_clock_during_an_attempt_sends_nothing_twice(sandbox: Sandbox) -> None:
    sandbox.register(ACCOUNT)
    sandbox.faults.delay_deliveries(0.3)
    message_id = sandbox.publish(ACCOUNT, b"{}")
    while sandbox.faults.left:
        time.sleep(0.002)
    sandbox.advance(365 * DAY)
    sandbox.wait_delivered(message_id)
    sandbox.drain()
    assert len(sandbox.receiver.received) == 1


def test_a_session_ends_by_the_sandboxs_clock(sandbox: Sandbox) -> None:
    with with_static_session(sandbox, session_of(sandbox)) as client:
        callbacks = client.software_management_callbacks_v2
        assert callbacks.list_registered_callbacks(ACCOUNT).data is None
        sandbox.advance(SESSION_IDLE + 1)
        with pytest.raises(AuthenticationError):
            callbacks.list_registered_callbacks(ACCOUNT)


def test_our_client_renews_expired_tokens_and_sessions(sandbox: Sandbox) -> None:
    with sandbox.client() as client:
        for passed in (0.0, SESSION_IDLE + 1, HOUR + 1):
            sandbox.advance(passed)
            assert client.software_management_callbacks_v2.list_registered_callbacks(ACCOUNT).is_success


def test_the_clock_does_not_go_back(sandbox: Sandbox) -> None:
    for seconds in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="advances by"):
            sandbox.advance(seconds)


def test_after_a_reset_nothing_is_left(sandbox: Sandbox) -> None:
    session = session_of(sandbox)
    sandbox.register(ACCOUNT)
    message_id = sandbox.publish(ACCOUNT, b"{}")
    sandbox.wait_delivered(message_id)
    sandbox.faults.answer_deliveries()
    sandbox.faults.drop_calls(times=3)
    sandbox.advance(HOUR)
    sandbox.publish("waits", b"{}")
    for _ in range(4):
        fail_to_log_in(sandbox)

    sandbox.reset()

    assert abs(sandbox.now() - time.time()) < HOUR / 2
    assert sandbox.faults.left == 0
    assert (sandbox.deliveries(), sandbox.receiver.received) == ([], [])
    with OperatorClient(sandbox.base_url, *DEV_CLIENT, proxy="") as operator:
        assert list(operator.accounts()) == []
        assert list(operator.messages(ACCOUNT)) == []
    with with_static_session(sandbox, session) as client, pytest.raises(AuthenticationError):
        client.software_management_callbacks_v2.list_registered_callbacks(ACCOUNT)
    # Four refusals before and one after: five in a row would lock.
    fail_to_log_in(sandbox)
    assert session_of(sandbox)


def fail_to_log_in(sandbox: Sandbox) -> None:
    with (
        Client(
            base_url=sandbox.base_url,
            thingspace_oauth_credentials=ThingspaceOauthCredentials(*DEV_CLIENT),
            vz_m2m_token_credentials=SessionCredentials(DEV_USER[0], "wrong"),
            proxy="",
        ) as client,
        pytest.raises(LoginRefused),
    ):
        client.login()


def test_a_reset_ends_attempts_under_way(sandbox: Sandbox) -> None:
    sandbox.register(ACCOUNT)
    sandbox.faults.delay_deliveries(30)
    sandbox.publish(ACCOUNT, b"{}")
    while sandbox.faults.left:
        time.sleep(0.002)
    sandbox.reset()
    assert (sandbox.deliveries(), sandbox.receiver.received) == ([], [])


def test_a_reset_ends_calls_under_way(sandbox: Sandbox) -> None:
    sandbox.faults.delay_calls(30, path="/healthz")
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(urllib3.request, "GET", sandbox.base_url + "/healthz", retries=False)
        while sandbox.faults.left:
            time.sleep(0.002)
        sandbox.reset()
        with pytest.raises(urllib3.exceptions.ProtocolError):
            call.result()
    assert urllib3.request("GET", sandbox.base_url + "/healthz").status == 200


def test_a_reset_ends_sessions(sandbox: Sandbox) -> None:
    url, key = sandbox.base_url, sandbox.public_key
    with with_static_session(sandbox, session_of(sandbox)) as client:
        sandbox.reset()
        with pytest.raises(AuthenticationError):
            client.software_management_callbacks_v2.list_registered_callbacks(ACCOUNT)
    assert (sandbox.base_url, sandbox.public_key) == (url, key)


def test_a_reset_empties_a_named_store(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'named.db'}"
    with Sandbox(store=url) as sandbox:
        kept = sandbox.publish(ACCOUNT, b"{}")
        sandbox.reset()
        with pytest.raises(LookupError):
            sandbox.wait_delivered(kept)
    assert Path(sqlite_path(url)).exists()


def test_a_postgresql_store_is_refused() -> None:
    with pytest.raises(ValueError, match="PostgreSQL has no virtual clock"):
        Sandbox(store="postgresql://localhost/x")


def test_a_sandbox_outside_of_a_with_statement_is_refused() -> None:
    sandbox = Sandbox()
    for call in (sandbox.reset, sandbox.drain, sandbox.deliveries, sandbox.faults.expire_tokens):
        with pytest.raises(RuntimeError, match="with statement"):
            call()


FROZEN = """
import freezegun
from fotahook.testing import Sandbox

with Sandbox() as sandbox, sandbox.client() as client:
    client.callbacks.list_registered_callbacks("0000123456-00001")
    with freezegun.freeze_time("2030-01-01"):
        client.callbacks.list_registered_callbacks("0000123456-00001")
print("ended")
"""


def test_a_sandbox_that_lived_through_frozen_time_ends() -> None:
    done = subprocess.run([sys.executable, "-c", FROZEN], capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert done.stdout == "ended\n", done.stderr

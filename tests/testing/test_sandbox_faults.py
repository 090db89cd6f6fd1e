"""What a test may break in the sandbox, and what its receivers and clients see of it."""

import subprocess
import sys
import time
from collections.abc import Callable

import pytest
import urllib3

from fotahook import AuthenticationError, RateLimited, ServerError, TimedOut, TransportError
from fotahook.contract.signing import parse_public_key, verify
from fotahook.testing import Sandbox, upgrade_progress

from .receivers import receiving
from .sessions import session_of, with_static_session

ACCOUNT = "0000123456-00001"


def outcomes(sandbox: Sandbox, account: str | None = None) -> list[tuple[str, int | None]]:
    return [(one.outcome, one.status) for one in sandbox.deliveries(account)]


def test_the_next_deliveries_get_the_requested_response(sandbox: Sandbox) -> None:
    sandbox.register(ACCOUNT)
    sandbox.faults.answer_deliveries(500, times=2)
    sandbox.faults.answer_deliveries(429, retry_after=120)
    began = sandbox.now()
    message_id = sandbox.publish(ACCOUNT, b"{}")
    sandbox.drain()
    sandbox.wait_delivered(message_id)
    assert outcomes(sandbox) == [("http_500", 500), ("http_500", 500), ("http_429", 429), ("delivered", 200)]
    assert sandbox.now() - began > 5 + 300 + 120
    assert {one.url for one in sandbox.deliveries()} == {sandbox.receiver.url}
    assert [one.id for one in sandbox.receiver.received] == [message_id]


def test_a_delivery_is_dropped(sandbox: Sandbox) -> None:
    sandbox.register(ACCOUNT)
    sandbox.faults.drop_deliveries()
    sandbox.publish(ACCOUNT, b"{}")
    sandbox.drain()
    assert outcomes(sandbox) == [("connection_lost", None), ("delivered", 200)]


def test_a_delivery_is_delayed(sandbox: Sandbox) -> None:
    sandbox.register(ACCOUNT)
    sandbox.faults.delay_deliveries(0.2)
    began = time.monotonic()
    sandbox.wait_delivered(sandbox.publish(ACCOUNT, b"{}"))
    assert time.monotonic() - began >= 0.2


def test_a_delivery_is_duplicated_with_the_same_id(sandbox: Sandbox) -> None:
    sandbox.register(ACCOUNT)
    sandbox.faults.duplicate_deliveries()
    message_id = sandbox.publish(ACCOUNT, b"{}")
    sandbox.drain()
    assert [one.id for one in sandbox.receiver.received] == [message_id] * 2
    assert outcomes(sandbox) == [("delivered", 200)] * 2


def test_a_certificate_is_untrusted_for_some_attempts(sandbox: Sandbox) -> None:
    sandbox.register(ACCOUNT)
    sandbox.faults.distrust_deliveries(times=2)
    sandbox.publish(ACCOUNT, b"{}")
    sandbox.drain()
    assert outcomes(sandbox) == [("tls_untrusted", None)] * 2 + [("delivered", 200)]


def test_faults_of_one_account_do_not_affect_another(sandbox: Sandbox) -> None:
    for account in ("one", "two"):
        sandbox.register(account)
    sandbox.faults.answer_deliveries(503, account="two")
    for account in ("one", "two"):
        sandbox.publish(account, b"{}")
    sandbox.drain()
    assert outcomes(sandbox, "one") == [("delivered", 200)]
    assert outcomes(sandbox, "two") == [("http_503", 503), ("delivered", 200)]


def test_faults_affect_any_receiver(sandbox: Sandbox) -> None:
    with receiving() as receiver:
        sandbox.register(ACCOUNT, receiver.url)
        sandbox.faults.answer_deliveries(503)
        sandbox.publish(ACCOUNT, b"{}")
        sandbox.drain()
        assert receiver.bodies == [b"{}"]


def test_an_attempt_ends_at_the_sandboxs_timeout() -> None:
    with Sandbox(timeout=1) as sandbox, receiving(hold=True) as receiver:
        sandbox.register(ACCOUNT, receiver.url)
        message_id = sandbox.publish(ACCOUNT, b"{}")
        while not sandbox.deliveries():
            time.sleep(0.005)
        receiver.release()
        assert outcomes(sandbox)[0] == ("timeout_response", None)
        sandbox.drain()
        sandbox.wait_delivered(message_id)


def test_the_next_calls_get_the_requested_response(sandbox: Sandbox) -> None:
    with with_static_session(sandbox, session_of(sandbox)) as client:
        callbacks = client.software_management_callbacks_v2
        sandbox.faults.answer_calls(500)
        sandbox.faults.answer_calls(429, retry_after=7)
        with pytest.raises(ServerError) as failed:
            callbacks.list_registered_callbacks(ACCOUNT)
        assert failed.value.status_code == 500
        with pytest.raises(RateLimited) as limited:
            callbacks.list_registered_callbacks(ACCOUNT)
        assert limited.value.headers["Retry-After"] == "7"
        assert callbacks.list_registered_callbacks(ACCOUNT).is_success


def test_a_call_is_dropped(sandbox: Sandbox) -> None:
    with with_static_session(sandbox, session_of(sandbox)) as client:
        # The token call comes first, on the same connection.
        sandbox.faults.drop_calls(times=2)
        with pytest.raises(TransportError):
            client.software_management_callbacks_v2.list_registered_callbacks(ACCOUNT)
        assert client.software_management_callbacks_v2.list_registered_callbacks(ACCOUNT).is_success


def test_a_delayed_call_times_out(sandbox: Sandbox) -> None:
    with with_static_session(sandbox, session_of(sandbox)) as client:
        callbacks = client.software_management_callbacks_v2
        callbacks.list_registered_callbacks(ACCOUNT)
        sandbox.faults.delay_calls(5)
        with pytest.raises(TimedOut):
            callbacks.list_registered_callbacks(ACCOUNT, timeout=0.2)


def test_the_path_selects_other_calls(sandbox: Sandbox) -> None:
    sandbox.faults.answer_calls(503, path="/oauth2/token")
    with sandbox.client() as client:
        assert client.software_management_callbacks_v2.list_registered_callbacks(ACCOUNT).is_success
    assert sandbox.faults.left == 0


def test_tokens_and_sessions_expire_on_request(sandbox: Sandbox) -> None:
    with with_static_session(sandbox, session_of(sandbox)) as client:
        callbacks = client.software_management_callbacks_v2
        callbacks.list_registered_callbacks(ACCOUNT)
        sandbox.faults.expire_tokens()
        assert callbacks.list_registered_callbacks(ACCOUNT).is_success, "a new token was fetched"
        sandbox.faults.expire_sessions()
        with pytest.raises(AuthenticationError):
            callbacks.list_registered_callbacks(ACCOUNT)


def test_faults_can_be_cleared(sandbox: Sandbox) -> None:
    sandbox.faults.answer_calls(times=3)
    sandbox.faults.drop_deliveries()
    assert sandbox.faults.left == 4
    sandbox.faults.clear()
    assert sandbox.faults.left == 0


def test_invalid_faults_are_refused(sandbox: Sandbox) -> None:
    faults = sandbox.faults
    wrongs: list[Callable[[], None]] = [
        lambda: faults.answer_deliveries(99),
        lambda: faults.answer_calls(600),
        lambda: faults.answer_calls(503, retry_after=-1),
        lambda: faults.delay_calls(-1),
        lambda: faults.delay_deliveries(3600),
        lambda: faults.drop_calls(times=0),
    ]
    for wrong in wrongs:
        with pytest.raises(ValueError):
            wrong()
    assert faults.left == 0


def test_the_receiver_keeps_requests(sandbox: Sandbox) -> None:
    for account in ("ä 1", "2"):
        sandbox.register(account)
        sandbox.publish(account, upgrade_progress(account=account))
    (received,) = sandbox.receiver.wait(kind="upgradeProgress", account="ä 1")
    assert received.message.account_name == received.account == "ä 1"
    verify(
        received.headers,
        received.body,
        public_keys=[parse_public_key(sandbox.public_key)],
        now=time.time(),
    )
    assert len(sandbox.receiver.wait(2)) == 2
    with pytest.raises(TimeoutError, match=r"0 of 1 came in 0 s; the last: .*upgradeProgress for "):
        sandbox.receiver.wait(kind="firmwareList", timeout=0)
    sandbox.receiver.clear()
    with pytest.raises(TimeoutError, match="the last: nothing"):
        sandbox.receiver.wait(timeout=0)


def test_a_body_that_is_not_json_has_no_kind(sandbox: Sandbox) -> None:
    with urllib3.PoolManager() as http:
        assert http.request("POST", sandbox.receiver.url, body=b"no").status == 200
        assert http.request("POST", f"{sandbox.base_url}/sandbox/other", body=b"no").status == 404
    with pytest.raises(TimeoutError, match="the last: None for nobody"):
        sandbox.receiver.wait(kind="x", timeout=0)


@pytest.mark.parametrize(("account", "url"), [(ACCOUNT, "ftp://127.0.0.1/"), (ACCOUNT, "x"), ("a/b", None), ("", None)])
def test_an_invalid_callback_is_refused(sandbox: Sandbox, account: str, url: str | None) -> None:
    with pytest.raises(ValueError):
        sandbox.register(account, url)


@pytest.mark.parametrize("library", ["uvicorn", "aiodns"])
def test_without_the_extras_the_error_says_what_to_install(library: str) -> None:
    code = (
        f"import sys; sys.modules['{library}'] = None\n"
        "try: from fotahook.testing import Sandbox\n"
        "except ImportError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"fotahook.testing.Sandbox needs {library}: pip install 'fotahook[")

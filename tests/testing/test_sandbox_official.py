"""A suite of a user of the official SDK: fifty tests, one sandbox, reset after each test."""

from collections.abc import Iterator
from typing import Any

import pytest
from apimatic_core.exceptions.auth_validation_exception import AuthValidationException
from verizon.configuration import Configuration, Environment, Server
from verizon.exceptions.api_exception import APIException
from verizon.exceptions.fota_v2_result_exception import FotaV2ResultException
from verizon.http.auth.thingspace_oauth import ThingspaceOauthCredentials
from verizon.http.auth.vz_m2m_token import VZM2mTokenCredentials
from verizon.models.fota_v2_callback_registration_request import FotaV2CallbackRegistrationRequest
from verizon.models.log_in_request import LogInRequest
from verizon.verizon_client import VerizonClient

from fotahook.testing import Sandbox, firmware_available, upgrade_progress, upgrade_scheduled
from tests.deadlines import DEADLINE

ACCOUNT = "0000123456-00001"
ACCOUNTS = [ACCOUNT, "MyAccount-1", "TestAccount-2", "123456", "My Account", "ä+%2F", "a?b#c&d;e", "0"]
PATHS = ["/", "/CallbackListener/FirmwareServiceMessages.asmx", "/a/b/c?d=e", "/%C3%A4"]
HOSTS = ["https://10.120.102.183:50559", "http://10.120.102.183:50559", "https://example.com", "http://127.0.0.1:8081"]
URLS = [host + path for host in HOSTS for path in PATHS]
REAL = dict(Configuration.environments[Environment.PRODUCTION])


@pytest.fixture(autouse=True)
def pointed(sandbox: Sandbox) -> None:
    sandbox.point_official_sdk(Configuration)


def client(session: str | None = None, environment: Environment = Environment.PRODUCTION) -> Any:
    return VerizonClient(
        thingspace_oauth_credentials=ThingspaceOauthCredentials("dev", "dev-secret"),
        vz_m2m_token_credentials=VZM2mTokenCredentials(session) if session else None,
        environment=environment,
        timeout=DEADLINE,
    )


def login(environment: Environment = Environment.PRODUCTION) -> str:
    sessions = client(environment=environment).session_management
    return str(sessions.start_connectivity_management_session(LogInRequest("dev", "dev-password")).body.session_token)


@pytest.fixture
def callbacks(pointed: None) -> Any:
    return client(login()).software_management_callbacks_v2


def register(callbacks: Any, account: str, url: str) -> Any:
    return callbacks.register_callback(account, FotaV2CallbackRegistrationRequest(url))


@pytest.mark.parametrize("url", URLS)
def test_a_registered_url_is_listed_unchanged(callbacks: Any, url: str) -> None:
    assert callbacks.list_registered_callbacks(ACCOUNT).body is None, "nothing is left of the test before"
    assert register(callbacks, ACCOUNT, url).body.url == url
    assert callbacks.list_registered_callbacks(ACCOUNT).body.url == url


@pytest.mark.parametrize("account", ACCOUNTS)
def test_an_account_is_registered_updated_and_deregistered(callbacks: Any, account: str) -> None:
    first, second = URLS[:2]
    register(callbacks, account, first)
    updated = callbacks.update_callback(account, FotaV2CallbackRegistrationRequest(second))
    assert updated.body.url == second
    assert callbacks.deregister_callback(account).body.success is True
    assert callbacks.list_registered_callbacks(account).body is None


@pytest.mark.parametrize("message", [firmware_available(), upgrade_scheduled(), upgrade_progress()])
def test_a_message_reaches_the_registered_callback(
    callbacks: Any, sandbox: Sandbox, message: dict[str, object]
) -> None:
    register(callbacks, ACCOUNT, sandbox.receiver.url)
    message_id = sandbox.publish(ACCOUNT, message)
    sandbox.wait_delivered(message_id)
    (received,) = sandbox.receiver.received
    assert (received.id, received.message.kind) == (message_id, message["type"])


@pytest.mark.parametrize("url", ["ftp://example.com/", "example.com", "https://", "https://user:password@example.com/"])
def test_an_invalid_url_raises_the_sdks_error(callbacks: Any, url: str) -> None:
    with pytest.raises(FotaV2ResultException) as refused:
        register(callbacks, ACCOUNT, url)
    assert (refused.value.response_code, refused.value.error_code) == (400, "INVALID_PARAMETER")
    assert callbacks.list_registered_callbacks(ACCOUNT).body is None


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_requested_error_raises_the_sdks_error(callbacks: Any, sandbox: Sandbox, status: int) -> None:
    sandbox.faults.answer_calls(status)
    with pytest.raises(APIException) as failed:
        callbacks.list_registered_callbacks(ACCOUNT)
    assert failed.value.response_code == status
    assert callbacks.list_registered_callbacks(ACCOUNT).is_success()


@pytest.mark.parametrize("status", [400, 404, 429, 500, 503])
def test_a_failed_delivery_is_retried(callbacks: Any, sandbox: Sandbox, status: int) -> None:
    register(callbacks, ACCOUNT, sandbox.receiver.url)
    sandbox.faults.answer_deliveries(status)
    sandbox.publish(ACCOUNT, b"{}")
    sandbox.drain()
    assert [one.status for one in sandbox.deliveries()] == [status, 200]
    assert len(sandbox.receiver.received) == 1


@pytest.mark.parametrize("environment", list(Environment))
def test_every_environment_points_to_the_sandbox(sandbox: Sandbox, environment: Environment) -> None:
    callbacks = client(login(environment), environment).software_management_callbacks_v2
    assert register(callbacks, ACCOUNT, URLS[0]).is_success()


def test_an_idle_session_is_a_401(callbacks: Any, sandbox: Sandbox) -> None:
    sandbox.advance(20 * 60 + 1)
    with pytest.raises(APIException) as refused:
        callbacks.list_registered_callbacks(ACCOUNT)
    assert refused.value.response_code == 401
    assert "SessionToken.Expired" in refused.value.response.text


def test_an_expired_token_is_a_401_that_this_sdk_does_not_handle(callbacks: Any, sandbox: Sandbox) -> None:
    callbacks.list_registered_callbacks(ACCOUNT)
    sandbox.faults.expire_tokens()
    for _ in range(2):
        with pytest.raises(APIException) as refused:
            callbacks.list_registered_callbacks(ACCOUNT)
        assert refused.value.response_code == 401


def test_a_client_without_a_token_sends_no_call(sandbox: Sandbox) -> None:
    sandbox.faults.answer_calls(401, path="/oauth2/token")
    with pytest.raises(AuthValidationException):
        client("x").software_management_callbacks_v2.list_registered_callbacks(ACCOUNT)


def test_a_reset_points_the_sdk_back_to_thingspace(sandbox: Sandbox) -> None:
    servers = Configuration.environments[Environment.PRODUCTION]
    assert servers[Server.THINGSPACE] == f"{sandbox.base_url}/api"
    sandbox.point_official_sdk(Configuration)
    sandbox.reset()
    assert servers == REAL


@pytest.fixture(scope="module", autouse=True)
def nothing_is_left() -> Iterator[None]:
    yield
    assert Configuration.environments[Environment.PRODUCTION] == REAL

"""Verizon's official SDK, as it comes from PyPI, against a running service."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from apimatic_core.exceptions.auth_validation_exception import AuthValidationException
from verizon.configuration import Configuration, Environment, Server
from verizon.exceptions.api_exception import APIException
from verizon.exceptions.connectivity_management_result_exception import ConnectivityManagementResultException
from verizon.exceptions.fota_v2_result_exception import FotaV2ResultException
from verizon.http.auth.thingspace_oauth import ThingspaceOauthCredentials
from verizon.http.auth.vz_m2m_token import VZM2mTokenCredentials
from verizon.models.callback_summary import CallbackSummary
from verizon.models.fota_v2_callback_registration_request import FotaV2CallbackRegistrationRequest
from verizon.models.fota_v2_callback_registration_result import FotaV2CallbackRegistrationResult
from verizon.models.fota_v2_success_result import FotaV2SuccessResult
from verizon.models.log_in_request import LogInRequest
from verizon.models.session_reset_password_request import SessionResetPasswordRequest
from verizon.verizon_client import VerizonClient

from ..service.serving import serving

# The mission document's examples, as printed there.
ACCOUNT = "0000123456-00001"
LISTED = "http://10.120.102.183:50559/CallbackListener/FirmwareServiceMessages.asmx"
REGISTERED = "https://10.120.102.183:50559/CallbackListener/FirmwareServiceMessages.asmx"
UPDATED = "https://255.255.11.135:50559/CallbackListener/FirmwareServiceMessages.asmx"


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A development service that the SDK takes for production."""
    servers = Configuration.environments[Environment.PRODUCTION]
    with serving(tmp_path) as base_url:
        monkeypatch.setitem(servers, Server.SOFTWARE_MANAGEMENT_V2, f"{base_url}/api/fota/v2")
        monkeypatch.setitem(servers, Server.OAUTH_SERVER, f"{base_url}/api/ts/v1")
        monkeypatch.setitem(servers, Server.THINGSPACE, f"{base_url}/api")
        yield base_url


def client(session: str | None = None, secret: str = "dev-secret") -> Any:
    return VerizonClient(
        thingspace_oauth_credentials=ThingspaceOauthCredentials("dev", secret),
        vz_m2m_token_credentials=VZM2mTokenCredentials(session) if session else None,
        timeout=10,
    )


def login(password: str = "dev-password") -> str:
    result = client().session_management.start_connectivity_management_session(LogInRequest("dev", password))
    token: str = result.body.session_token
    return token


@pytest.fixture
def callbacks(service: str) -> Any:
    """The mission document's controller, both tokens in hand."""
    return client(login()).software_management_callbacks_v2


def test_list_register_list_update_list_deregister_list(callbacks: Any) -> None:
    nothing = callbacks.list_registered_callbacks(ACCOUNT)
    assert (nothing.status_code, nothing.body, nothing.is_success()) == (200, None, True)

    registered = callbacks.register_callback(ACCOUNT, FotaV2CallbackRegistrationRequest(REGISTERED))
    assert isinstance(registered.body, FotaV2CallbackRegistrationResult)
    assert registered.body.url == REGISTERED
    assert callbacks.list_registered_callbacks(ACCOUNT).body.url == REGISTERED

    updated = callbacks.update_callback(ACCOUNT, FotaV2CallbackRegistrationRequest(UPDATED))
    assert isinstance(updated.body, FotaV2CallbackRegistrationResult)
    assert updated.body.url == UPDATED
    listed = callbacks.list_registered_callbacks(ACCOUNT)
    assert isinstance(listed.body, CallbackSummary)
    assert listed.body.url == UPDATED

    gone = callbacks.deregister_callback(ACCOUNT)
    assert isinstance(gone.body, FotaV2SuccessResult)
    assert gone.body.success is True
    assert callbacks.list_registered_callbacks(ACCOUNT).body is None


def test_a_plain_http_url_is_listed_as_it_was_registered(callbacks: Any) -> None:
    callbacks.register_callback(ACCOUNT, FotaV2CallbackRegistrationRequest(LISTED))
    assert callbacks.list_registered_callbacks(ACCOUNT).body.url == LISTED


def test_a_400_is_the_sdks_own_exception(callbacks: Any) -> None:
    with pytest.raises(FotaV2ResultException) as refused:
        callbacks.register_callback(ACCOUNT, FotaV2CallbackRegistrationRequest("ftp://example.com/"))
    assert refused.value.response_code == 400
    assert refused.value.reason == "Unexpected error."
    assert refused.value.error_code == "INVALID_PARAMETER"
    assert "https://" in refused.value.error_message


def test_verizons_own_messages_come_back(callbacks: Any) -> None:
    with pytest.raises(FotaV2ResultException) as unnamed:
        callbacks.list_registered_callbacks("a/b")
    assert unnamed.value.error_message == "Invalid account name format"
    with pytest.raises(FotaV2ResultException) as empty:
        callbacks.update_callback(ACCOUNT, None)
    assert empty.value.error_code == "INVALID_PARAMETER"


def test_an_account_with_odd_characters_is_one_account(callbacks: Any) -> None:
    for account in ("My Account-1", "ä+%2F", "a?b#c&d;e"):
        callbacks.register_callback(account, FotaV2CallbackRegistrationRequest(REGISTERED))
        assert callbacks.list_registered_callbacks(account).body.url == REGISTERED


def test_the_session_calls(service: str) -> None:
    sessions = client(login()).session_management
    reset = sessions.reset_connectivity_management_password(SessionResetPasswordRequest("dev-password"))
    assert login(reset.body.new_password)
    assert sessions.end_connectivity_management_session().body.session_token
    with pytest.raises(ConnectivityManagementResultException) as refused:
        login("dev-password")
    assert refused.value.error_code == "LOGIN_REFUSED"


def test_a_session_that_is_over_is_a_401(service: str) -> None:
    session = login()
    client(session).session_management.end_connectivity_management_session()
    with pytest.raises(APIException) as refused:
        client(session).software_management_callbacks_v2.list_registered_callbacks(ACCOUNT)
    assert refused.value.response_code == 401
    assert "REQUEST_FAILED.SessionToken.Expired" in refused.value.response.text


def test_a_wrong_secret_gets_no_token(service: str) -> None:
    with pytest.raises(AuthValidationException):
        client("x", secret="wrong").software_management_callbacks_v2.list_registered_callbacks(ACCOUNT)

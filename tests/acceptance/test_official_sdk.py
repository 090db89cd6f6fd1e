"""Verizon's official SDK, as it comes from PyPI, against a running `fotahook serve`: the cases of conformance.toml."""

import asyncio
import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

import pytest
from apimatic_core.exceptions.auth_validation_exception import AuthValidationException
from verizon.configuration import Configuration, Environment, Server
from verizon.exceptions.api_exception import APIException
from verizon.http.auth.thingspace_oauth import ThingspaceOauthCredentials
from verizon.http.auth.vz_m2m_token import VZM2mTokenCredentials
from verizon.models.campaign_software import CampaignSoftware
from verizon.models.fota_v2_callback_registration_request import FotaV2CallbackRegistrationRequest
from verizon.models.log_in_request import LogInRequest
from verizon.models.session_reset_password_request import SessionResetPasswordRequest
from verizon.models.v2_campaign_device import V2CampaignDevice
from verizon.verizon_client import VerizonClient

from fotahook import BatchMessage, OperatorClient
from fotahook.service import create_credential
from fotahook.service.credentials import SCOPES
from fotahook.store import open_store
from fotahook.testing import Simulation
from tests.deadlines import DEADLINE

from ..cli.processes import running

CASES: Final = tomllib.loads((Path(__file__).parent / "conformance.toml").read_text())["case"]
Step = Mapping[str, Any]

SAID: Final = {"call", "account", "url", "body", "session", "client", "username", "password"}
HELD: Final = {"status", "model", "answer", "differs", "raises", "code", "message", "says", "reason", "text", "headers"}


@dataclass(frozen=True)
class Service:
    """A running service, and the secrets of those who may use it beside dev."""

    url: str
    secrets: Mapping[str, str]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    with running("serve", "--dev", "--port", "0", cwd=folder) as service:
        yield Service(service.url, asyncio.run(provision(f"sqlite:///{folder}/fotahook.db")))


PROVISIONED: Sequence[tuple[Literal["client", "user"], str, str, Sequence[str] | None, Sequence[str]]] = (
    ("client", "narrow", "narrow:", ["0000000001-00001"], SCOPES),
    ("client", "publisher", "publisher:", None, ("publish",)),
    ("user", "someone", "", None, SCOPES),
)


async def provision(store_url: str) -> dict[str, str]:
    store = await open_store(store_url)
    try:
        return {
            name: prefix + await create_credential(store, kind, name, accounts=accounts, scopes=scopes)
            for kind, name, prefix, accounts, scopes in PROVISIONED
        }
    finally:
        await store.close()


@pytest.fixture
def instead_of_production(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK takes the service for production."""
    servers = Configuration.environments[Environment.PRODUCTION]
    monkeypatch.setitem(servers, Server.SOFTWARE_MANAGEMENT_V2, f"{service.url}/api/fota/v2")
    monkeypatch.setitem(servers, Server.OAUTH_SERVER, f"{service.url}/api/ts/v1")
    monkeypatch.setitem(servers, Server.THINGSPACE, f"{service.url}/api")


@pytest.mark.usefixtures("instead_of_production")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_case(service: Service, case: Mapping[str, Any]) -> None:
    known = dict(service.secrets)
    known["session"] = call(known, {"call": "login", "username": "dev", "password": "dev-password"}).body.session_token
    for step in case["steps"]:
        take(known, {name: filled(value, known) for name, value in step.items()})


@pytest.mark.usefixtures("instead_of_production")
def test_the_reads_answer_what_was_published_in_the_sdks_own_models(service: Service) -> None:
    account = "0000123456-00009"
    campaign = Simulation(account, devices=30, failures=0.2)
    with OperatorClient(service.url, "dev", "dev-secret", proxy="") as operator:
        operator.publish_batch([BatchMessage(account, message.body) for message in campaign])
    client = VerizonClient(
        thingspace_oauth_credentials=ThingspaceOauthCredentials("dev", "dev-secret"),
        vz_m2m_token_credentials=VZM2mTokenCredentials(
            call({}, {"call": "login", "username": "dev", "password": "dev-password"}).body.session_token
        ),
        timeout=DEADLINE,
    )
    told = client.campaigns_v2.get_campaign_information(account, campaign.campaign_id).body
    assert (type(told), told.id, told.status) == (CampaignSoftware, campaign.campaign_id, "CampaignEnded")
    assert told.end_date > told.start_date
    reports = client.software_management_reports_v2
    ended = reports.get_campaign_history_by_status(account, "CampaignEnded").body
    assert [one.id for one in ended.campaign_list] == [campaign.campaign_id]
    page = reports.get_campaign_device_status(account, campaign.campaign_id, "0").body
    assert (type(page), page.total_device, page.has_more_data) == (V2CampaignDevice, 30, False)
    assert {one.status for one in page.device_list} == {"UpgradeSuccess", "UpgradeFailed", "DeviceRejected"}
    failed = next(one for one in page.device_list if one.status == "UpgradeFailed")
    [upgrade] = reports.get_device_firmware_upgrade_history(account, failed.device_id).body
    assert (upgrade.id, upgrade.status, upgrade.reason) == (campaign.campaign_id, "UpgradeFailed", failed.result_reason)
    assert upgrade.start_date == told.start_date
    [check_in] = client.server_logging.get_device_check_in_history(account, failed.device_id).body
    assert check_in.failure_type == failed.result_reason
    assert check_in.time_completed.datetime.year == datetime.now(UTC).year


def test_every_case_has_a_name_of_its_own_and_says_nothing_that_is_not_looked_at() -> None:
    assert len({case["name"] for case in CASES}) == len(CASES) >= 40
    assert {name for case in CASES for step in case["steps"] for name in step} <= {*SAID, *HELD, "keep"}
    assert all(set(case) == {"name", "steps"} and case["steps"] for case in CASES)


def filled(value: Any, known: Mapping[str, str]) -> Any:
    """A value with {name} replaced by what earlier steps were answered."""
    if isinstance(value, dict) and not value.keys() & known.keys():
        return {name: filled(one, known) for name, one in value.items()}
    if isinstance(value, str) and value.startswith("{") and value.endswith("}"):
        return known[value.strip("{}")]
    return value


def take(known: dict[str, str], step: Step) -> None:
    """Make the call of a step, and hold what comes of it against what the step says."""
    if "raises" in step:
        with pytest.raises((APIException, AuthValidationException)) as raised:
            call(known, step)
        check_error(raised.value, step)
        return
    answer = call(known, step)
    assert answer.is_success()
    assert answer.status_code == step.get("status", 200)
    check_answer(answer, step)
    for name, attribute in step.get("keep", {}).items():
        known[name] = getattr(answer.body, attribute)
        known[name.upper()] = known[name].upper()


def check_error(error: Exception, step: Step) -> None:
    assert type(error).__name__ == step["raises"]
    # Of a body that it cannot read, the SDK's exception cannot be written as text.
    assert str(error)
    if isinstance(error, AuthValidationException):
        return
    told: Any = error
    assert told.response_code == step["status"]
    assert told.reason == step.get("reason", told.reason)
    assert step.get("text", "") in told.response.text
    check_headers(told.response, step)
    if "code" in step:
        assert told.error_code == step["code"]
        assert told.error_message == step.get("message", told.error_message)
        assert step.get("says", "") in told.error_message


def check_answer(answer: Any, step: Step) -> None:
    if "model" in step:
        assert type(answer.body).__name__ == step["model"].replace("None", "NoneType")
    for name, value in step.get("answer", {}).items():
        assert getattr(answer.body, name) == value
    for name, value in step.get("differs", {}).items():
        assert getattr(answer.body, name) != value
    assert step.get("text", "") in (answer.text or "")
    check_headers(answer, step)


def check_headers(response: Any, step: Step) -> None:
    for name in step.get("headers", ()):
        assert response.headers.get(name), json.dumps(dict(response.headers))


def call(known: Mapping[str, str], step: Step) -> Any:
    """The answer to a step's call."""
    client = sdk(known, step)
    callbacks, sessions = client.software_management_callbacks_v2, client.session_management
    account = step.get("account")
    match step["call"]:
        case "list":
            return callbacks.list_registered_callbacks(account)
        case "register":
            return callbacks.register_callback(account, request(step))
        case "update":
            return callbacks.update_callback(account, request(step))
        case "deregister":
            return callbacks.deregister_callback(account)
        case "login":
            login = LogInRequest(**{name: step[name] for name in ("username", "password") if name in step})
            return sessions.start_connectivity_management_session(login)
        case "logout":
            return sessions.end_connectivity_management_session()
        case "reset":
            return sessions.reset_connectivity_management_password(SessionResetPasswordRequest(step["password"]))
        case "token":
            basic = client.thingspace_oauth.build_basic_auth_header()
            return client.oauth_authorization.request_token_thingspace_oauth(basic)
    raise ValueError(step["call"])


def request(step: Step) -> FotaV2CallbackRegistrationRequest | None:
    if step.get("body") == "none":
        return None
    return FotaV2CallbackRegistrationRequest(step["url"]) if "url" in step else FotaV2CallbackRegistrationRequest()


def sdk(known: Mapping[str, str], step: Step) -> Any:
    """A client of the SDK with the credentials that the step names."""
    client_id, _, secret = step.get("client", "dev:dev-secret").partition(":")
    session = step.get("session", known.get("session", "none"))
    return VerizonClient(
        thingspace_oauth_credentials=ThingspaceOauthCredentials(client_id, secret),
        vz_m2m_token_credentials=None if session == "none" else VZM2mTokenCredentials(session),
        timeout=DEADLINE,
    )

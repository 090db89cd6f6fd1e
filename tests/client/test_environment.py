"""`from_environment`: the official SDK's variables and ours, a `.env` file, overrides."""

import sys
from pathlib import Path
from typing import Any

import pytest

import fotahook
from fotahook.client._settings import ClientOptions, environment_options
from fotahook.contract.servers import servers_of

VARIABLES = [
    "ENVIRONMENT",
    "TIMEOUT",
    "MAX_RETRIES",
    "PROXY_ADDRESS",
    "PROXY_PORT",
    "PROXY_USERNAME",
    "PROXY_PASSWORD",
    "THINGSPACE_OAUTH_OAUTH_CLIENT_ID",
    "THINGSPACE_OAUTH_OAUTH_CLIENT_SECRET",
    "THINGSPACE_OAUTH_OAUTH_CLOCK_SKEW",
    "VZ_M2M_TOKEN_VZ_M2M_TOKEN",
    "VZ_M2M_USERNAME",
    "VZ_M2M_PASSWORD",
    "THINGSPACE_BASE_URL",
]


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def read(monkeypatch: pytest.MonkeyPatch, _given: ClientOptions | None = None, /, **variables: Any) -> dict[str, Any]:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return {**environment_options(None, _given or ClientOptions())}


@pytest.mark.parametrize("form", [fotahook.Client, fotahook.AsyncClient])
def test_missing_credentials_are_named_at_once(monkeypatch: pytest.MonkeyPatch, form: Any) -> None:
    with pytest.raises(ValueError, match=r"OAUTH_CLIENT_ID and .*_SECRET, and VZ_M2M_USERNAME and VZ_M2M_PASS"):
        form.from_environment()
    monkeypatch.setenv("THINGSPACE_OAUTH_OAUTH_CLIENT_ID", "an-id")
    monkeypatch.setenv("THINGSPACE_OAUTH_OAUTH_CLIENT_SECRET", "a-secret")
    with pytest.raises(ValueError, match="set VZ_M2M_USERNAME"):
        form.from_environment()
    assert isinstance(form.from_environment(vz_m2m_token_credentials=fotahook.VZM2mTokenCredentials("t")), form)


def test_the_official_variables_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    found = read(
        monkeypatch,
        ENVIRONMENT="Staging",
        TIMEOUT="7.5",
        MAX_RETRIES="4",
        THINGSPACE_OAUTH_OAUTH_CLIENT_ID="an-id",
        THINGSPACE_OAUTH_OAUTH_CLIENT_SECRET="a-secret",
        THINGSPACE_OAUTH_OAUTH_CLOCK_SKEW="30",
        VZ_M2M_TOKEN_VZ_M2M_TOKEN="a-token",
    )
    assert found == {
        "environment": fotahook.Environment.STAGING,
        "timeout": 7.5,
        "max_retries": 4,
        "thingspace_oauth_credentials": fotahook.ThingspaceOauthCredentials("an-id", "a-secret", oauth_clock_skew=30),
        "vz_m2m_token_credentials": fotahook.VZM2mTokenCredentials("a-token"),
    }


def test_a_user_name_takes_precedence_over_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    found = read(monkeypatch, VZ_M2M_USERNAME="u", VZ_M2M_PASSWORD="p", VZ_M2M_TOKEN_VZ_M2M_TOKEN="t")
    assert found["vz_m2m_token_credentials"] == fotahook.SessionCredentials("u", "p")


def test_a_base_url_replaces_all_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read(monkeypatch, THINGSPACE_BASE_URL="http://127.0.0.1:8080")["base_url"] == "http://127.0.0.1:8080"


@pytest.mark.parametrize(
    ("variables", "url"),
    [
        ({"PROXY_ADDRESS": "http://proxy.example/"}, "http://proxy.example"),
        ({"PROXY_ADDRESS": "proxy.example", "PROXY_PORT": "3128"}, "http://proxy.example:3128"),
        (
            {"PROXY_ADDRESS": "proxy.example", "PROXY_USERNAME": "a@b", "PROXY_PASSWORD": "c:d"},
            "http://a%40b:c%3Ad@proxy.example",
        ),
        ({"PROXY_ADDRESS": "proxy.example", "PROXY_USERNAME": "a"}, "http://a:@proxy.example"),
    ],
)
def test_the_proxy_variables_make_one_url(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], url: str) -> None:
    assert read(monkeypatch, **variables)["proxy"] == url


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TIMEOUT", "nonsense"),
        ("TIMEOUT", "nan"),
        ("MAX_RETRIES", "nonsense"),
        ("MAX_RETRIES", "inf"),
        ("MAX_RETRIES", "1.5"),
        ("TIMEOUT", "-1"),
        ("TIMEOUT", "30s"),
        ("TIMEOUT", "1e300"),
        ("MAX_RETRIES", "-1"),
        ("ENVIRONMENT", "nonsense"),
        ("PROXY_ADDRESS", "https://proxy.example"),
    ],
)
def test_an_invalid_variable_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    with pytest.raises(ValueError, match=name):
        read(monkeypatch, **{name: value})


def test_overrides_take_precedence_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    overrides: ClientOptions = {"environment": fotahook.Environment.QA, "timeout": 1.0}
    found = read(monkeypatch, overrides, ENVIRONMENT="development", TIMEOUT="9")
    assert (found["environment"], found["timeout"]) == (fotahook.Environment.QA, 1.0)
    # They may belong to another program.
    odd = {"TIMEOUT": "30s", "MAX_RETRIES": "some", "PROXY_ADDRESS": "socks5://p", "THINGSPACE_BASE_URL": "nowhere"}
    given: ClientOptions = {"timeout": 5.0, "max_retries": 1, "proxy": "", "base_url": "http://127.0.0.1:1"}
    assert read(monkeypatch, {**overrides, **given}, **odd) == {**overrides, **given}


def test_a_dotenv_file_supplies_missing_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("TIMEOUT=5\nMAX_RETRIES=1\nEMPTY\n")
    found = read(monkeypatch, TIMEOUT="6")
    assert (found["timeout"], found["max_retries"]) == (6.0, 1)
    credentials = (
        "THINGSPACE_OAUTH_OAUTH_CLIENT_ID=i\nTHINGSPACE_OAUTH_OAUTH_CLIENT_SECRET=s\nVZ_M2M_TOKEN_VZ_M2M_TOKEN=t\n"
    )
    (tmp_path / "other.env").write_text(credentials + "MAX_RETRIES=3\n")
    with fotahook.Client.from_environment(dotenv_path=str(tmp_path / "other.env")) as client:
        assert client._defaults.max_retries == 3


def test_a_dotenv_file_of_another_folder_is_not_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("THINGSPACE_BASE_URL=https://evil.example\nMAX_RETRIES=1\n")
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    assert read(monkeypatch) == {}


DESTINATIONS = """\
THINGSPACE_BASE_URL=https://evil.example
ENVIRONMENT=mock
PROXY_ADDRESS=http://evil.example
PROXY_PORT=8080
MAX_RETRIES=1
"""
OTHERS: list[tuple[ClientOptions, dict[str, str]]] = [
    ({"thingspace_oauth_credentials": fotahook.ThingspaceOauthCredentials("id", "secret")}, {}),
    ({"vz_m2m_token_credentials": fotahook.SessionCredentials("user", "password")}, {}),
    ({}, {"THINGSPACE_OAUTH_OAUTH_CLIENT_SECRET": "a-secret"}),
    ({}, {"VZ_M2M_PASSWORD": "a-password"}),
    ({}, {"VZ_M2M_TOKEN_VZ_M2M_TOKEN": "a-token"}),
]


@pytest.mark.parametrize(("given", "variables"), OTHERS)
@pytest.mark.parametrize("path", [None, "other.env"])
def test_a_dotenv_file_does_not_say_where_credentials_of_another_source_go(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    given: ClientOptions,
    variables: dict[str, str],
    path: str | None,
) -> None:
    (tmp_path / (path or ".env")).write_text(DESTINATIONS + "VZ_M2M_USERNAME=from-the-file\nVZ_M2M_PASSWORD=there\n")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = environment_options(path, given)
    assert (found.get("base_url"), found.get("environment"), found.get("proxy")) == (None, None, None)
    assert found.get("max_retries") == 1
    assert sorted(record.getMessage().split()[0] for record in caplog.records) == [
        "ENVIRONMENT",
        "PROXY_ADDRESS",
        "PROXY_PORT",
        "THINGSPACE_BASE_URL",
    ]


def test_a_dotenv_file_says_where_its_own_credentials_go(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(DESTINATIONS + "VZ_M2M_TOKEN_VZ_M2M_TOKEN=from-the-file\n")
    found = read(monkeypatch)
    assert found["base_url"] == "https://evil.example"
    assert found["vz_m2m_token_credentials"] == fotahook.VZM2mTokenCredentials("from-the-file")


def test_without_python_dotenv_only_a_given_path_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dotenv", None)
    assert read(monkeypatch) == {}
    with pytest.raises(ImportError, match="pip install python-dotenv"):
        fotahook.Client.from_environment(dotenv_path=".env")


def test_environment_selects_the_servers() -> None:
    for environment in fotahook.Environment:
        client = fotahook.Client(environment=environment)
        assert client._pipeline.servers == servers_of(environment)

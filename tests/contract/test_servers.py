"""Servers, environments and base URLs."""

import pytest

from fotahook.contract.servers import Environment, Server, checked_base_url, environment_named, servers_at, servers_of


def test_production_is_thingspace() -> None:
    assert servers_of(Environment.PRODUCTION) == {
        Server.SOFTWARE_MANAGEMENT_V2: "https://thingspace.verizon.com/api/fota/v2",
        Server.OAUTH_SERVER: "https://thingspace.verizon.com/api/ts/v1",
        Server.THINGSPACE: "https://thingspace.verizon.com/api",
    }


def test_a_base_url_has_all_servers() -> None:
    assert servers_at("http://127.0.0.1:8080/") == {
        None: "http://127.0.0.1:8080",
        Server.SOFTWARE_MANAGEMENT_V2: "http://127.0.0.1:8080/api/fota/v2",
        Server.OAUTH_SERVER: "http://127.0.0.1:8080/api/ts/v1",
        Server.THINGSPACE: "http://127.0.0.1:8080/api",
    }


@pytest.mark.parametrize("environment", list(Environment))
def test_an_environment_is_found_by_its_name(environment: Environment) -> None:
    assert environment_named(f" {environment.name.lower()} ") is environment
    assert environment_named(environment.name) is environment


def test_the_official_name_of_the_mock_is_known() -> None:
    assert environment_named("MOCK_SERVER_FOR_LIMITED_AVAILABILITY_SEE_QUICK_START") is Environment.MOCK


def test_the_error_for_an_unknown_environment_lists_all_names() -> None:
    with pytest.raises(ValueError, match="no environment is called 'development'; there are PRODUCTION, STAGING"):
        environment_named("development")


@pytest.mark.parametrize("url", ["https://x", "http://x:1/below/", "https://[::1]:8443"])
def test_a_trailing_slash_is_removed(url: str) -> None:
    assert checked_base_url(url) == url.rstrip("/")


def test_the_scheme_is_case_insensitive() -> None:
    assert checked_base_url("HTTPS://Example.com/Below/") == "https://Example.com/Below"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "x",
        "ftp://x",
        "http://",
        "http://:80",
        "http://[::1",
        "http://x:99999",
        "http://a b",
        "http://x\n",
        "http://u@x",
        "http://x/?q",
        "http://x/#f",
        "http://x?",
        "http://a..b",
        "http://a\\b",
        "http://x/#",
    ],
)
def test_an_invalid_base_url_is_an_error(url: str) -> None:
    with pytest.raises(ValueError, match="base_url"):
        checked_base_url(url)

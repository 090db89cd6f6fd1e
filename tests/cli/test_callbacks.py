"""`fotahook callbacks` against a running service."""

import json

import pytest

from fotahook.testing import Sandbox

from .conftest import Run, is_one_line

ACCOUNT = "0000123456-00001"
URL = "https://10.120.102.183:50559/CallbackListener/FirmwareServiceMessages.asmx"


def test_a_callback_is_registered_updated_and_deregistered(run: Run, service: Sandbox) -> None:
    unknown = run("callbacks", "list", ACCOUNT, "--base-url", service.base_url, "--local")
    assert (
        unknown.err
        == f"fotahook: account '{ACCOUNT}' is unknown: it never had a callback or a message; check the name\n"
    )

    def call(*arguments: str) -> object:
        result = run("callbacks", *arguments, "--base-url", service.base_url, "--dev", "--json")
        assert (result.code, result.err if arguments[0] not in ("list", "deregister") else "") == (0, "")
        assert ("ThingSpace drops the account's messages" in result.err) == (arguments[0] == "deregister")
        return json.loads(result.out)

    assert call("list", ACCOUNT) == {"account": ACCOUNT, "url": None}
    assert call("register", ACCOUNT, URL) == {"account": ACCOUNT, "url": URL}
    assert call("update", ACCOUNT, f"{URL}?v=2") == {"account": ACCOUNT, "url": f"{URL}?v=2"}
    assert call("list", ACCOUNT) == {"account": ACCOUNT, "url": f"{URL}?v=2"}
    assert call("deregister", ACCOUNT) == {"account": ACCOUNT, "success": True}
    assert call("list", ACCOUNT) == {"account": ACCOUNT, "url": None}


def test_an_unusual_account_or_port_is_warned_of(run: Run, sandbox: Sandbox) -> None:
    for call in ("register", "update"):
        result = run(
            "callbacks", call, "123456-00001", "https://a.example:8443/", "--base-url", sandbox.base_url, "--dev"
        )
        assert result.code == 0
        assert result.out == "account\turl\n123456-00001\thttps://a.example:8443/\n"
        account, port = result.err.splitlines()
        assert account.startswith("fotahook: account '123456-00001': ThingSpace's accounts are usually")
        assert port.startswith("fotahook: port 8443 is none of those that ThingSpace documents")


@pytest.mark.parametrize(
    ("flag", "host", "warned"),
    [("--local", "127.0.0.1", False), ("--local", "localhost", False), ("--local", "10.0.0.1", True)],
)
def test_a_port_on_this_machine_is_not_warned_of(
    run: Run, sandbox: Sandbox, flag: str, host: str, warned: bool
) -> None:
    result = run("callbacks", "register", ACCOUNT, f"http://{host}:8081/", "--base-url", sandbox.base_url, flag)
    assert (result.code, "port 8081" in result.err) == (0, warned)


def test_piped_output_is_plain(run: Run, sandbox: Sandbox) -> None:
    result = run("callbacks", "list", "piped", "--base-url", sandbox.base_url, "--dev")
    assert result.out == "account\turl\npiped\t(none)\n"


def test_the_credentials_are_the_sdks_variables(run: Run, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("callbacks", "list", ACCOUNT, "--base-url", sandbox.base_url)
    result = run(*arguments)
    assert result.code == 2
    assert is_one_line(result.err)
    assert "THINGSPACE_OAUTH_OAUTH_CLIENT_ID" in result.err
    monkeypatch.setenv("THINGSPACE_OAUTH_OAUTH_CLIENT_ID", "dev")
    monkeypatch.setenv("THINGSPACE_OAUTH_OAUTH_CLIENT_SECRET", "dev-secret")
    assert "VZ_M2M_USERNAME" in run(*arguments).err
    monkeypatch.setenv("VZ_M2M_USERNAME", "dev")
    monkeypatch.setenv("VZ_M2M_PASSWORD", "wrong")
    assert run(*arguments).code == 4
    monkeypatch.setenv("VZ_M2M_PASSWORD", "dev-password")
    assert run(*arguments).code == 0


def test_a_refusal_is_reported_in_the_services_words(run: Run, sandbox: Sandbox) -> None:
    result = run("callbacks", "register", ACCOUNT, "ftp://x", "--base-url", sandbox.base_url, "--dev")
    assert result.code == 4
    assert is_one_line(result.err)
    assert "https://" in result.err


@pytest.mark.parametrize("account", ["", "..", "\udcff", "a\nb", "x" * 65])
def test_an_impossible_account_is_refused(run: Run, sandbox: Sandbox, account: str) -> None:
    result = run("callbacks", "list", account, "--base-url", sandbox.base_url, "--dev")
    assert result.code in (2, 4)
    assert is_one_line(result.err)

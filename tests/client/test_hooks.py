"""Hooks and the log, both without secrets."""

import logging

import pytest

import fotahook

from .conftest import ACCOUNT, BODY, OpenSdk, Peer, respond

SECRETS = ("token-1", "session-1", "a-client-secret", "a-password", "YW4taWQ6")


async def test_hooks_get_every_request_and_response_without_secrets(peer: Peer, open_sdk: OpenSdk) -> None:
    asked: list[fotahook.Request] = []
    got: list[fotahook.ApiResponse[None]] = []
    async with open_sdk(on_request=asked.append, on_response=got.append) as sdk:
        await sdk.call("register_callback", ACCOUNT, BODY)
        await sdk.do("logout")
        await sdk.do("revoke_token")
    paths = [request.url.removeprefix(peer.url + "/api/") for request in asked]
    assert paths == [
        "ts/v1/oauth2/token",
        "m2m/v1/session/login",
        f"fota/v2/callbacks/{ACCOUNT}",
        "m2m/v1/session/logout",
        "ts/v1/oauth2/revoke",
    ]
    assert [response.request for response in got] == asked
    assert [response.status_code for response in got] == [200] * 5
    assert asked[2].body == b'{"url":"' + BODY.url.encode() + b'"}'
    assert asked[2].headers["authorization"] == "***"
    assert got[2].raw_body.startswith(b'{"url"')
    assert got[2].data is None
    everything = repr([*asked, *got, *(vars_of(response) for response in got)])
    assert not [secret for secret in SECRETS if secret in everything]


def vars_of(response: fotahook.ApiResponse[None]) -> dict[str, object]:
    return {name: getattr(response, name) for name in response.__struct_fields__}


async def test_hooks_get_each_attempt_and_error_responses(peer: Peer, open_sdk: OpenSdk) -> None:
    got: list[fotahook.ApiResponse[None]] = []
    peer.routes["callbacks/"] = lambda _: respond(503, {"errorCode": "X", "errorMessage": "later"})
    async with open_sdk(on_response=got.append) as sdk:
        with pytest.raises(fotahook.ServerError) as caught:
            await sdk.call("list_registered_callbacks", ACCOUNT)
    tries = [response for response in got if response.is_error]
    assert len(tries) == 3
    assert tries[-1].errors == (str(caught.value),)
    assert not tries[-1].is_success


async def test_a_failing_hook_fails_only_its_call(peer: Peer, open_sdk: OpenSdk) -> None:
    def fail(response: fotahook.ApiResponse[None]) -> None:
        if "callbacks" in response.request.url and len(peer.calls) == 1:
            raise LookupError("mine")

    async with open_sdk(on_response=fail) as sdk:
        with pytest.raises(LookupError, match="mine"):
            await sdk.call("list_registered_callbacks", ACCOUNT)
        assert (await sdk.call("list_registered_callbacks", ACCOUNT)).is_success


async def test_the_log_has_a_line_for_each_request_and_no_secret(
    peer: Peer, open_sdk: OpenSdk, caplog: pytest.LogCaptureFixture
) -> None:
    peer.routes["session/logout"] = lambda _: [None]
    with caplog.at_level(logging.DEBUG):
        async with open_sdk(max_retries=0) as sdk:
            await sdk.call("register_callback", ACCOUNT, BODY)
            with pytest.raises(fotahook.ConnectionFailed):
                await sdk.do("logout")
    lines = [record.getMessage() for record in caplog.records if record.name == "fotahook.client"]
    # The connection had been kept, so the last request went out twice.
    assert len(lines) == 5
    assert lines[2].startswith(f"POST {peer.url}/api/fota/v2/callbacks/{ACCOUNT}: 200")
    assert lines[3].startswith(f"again on a new connection: POST {peer.url}/api/m2m/v1/session/logout: ")
    assert lines[4].startswith(f"failed after 2 attempts: POST {peer.url}/api/m2m/v1/session/logout: ")
    assert {record.levelno for record in caplog.records if record.name == "fotahook.client"} == {logging.DEBUG}
    assert not [secret for secret in SECRETS if secret in caplog.text]

"""The four calls: requests, responses, argument checks."""

import json
from typing import Any

import pytest

import fotahook

from .conftest import ACCOUNT, BODY, LISTENER, OpenSdk, Peer, respond

NAMES = ["list_registered_callbacks", "update_callback", "register_callback", "deregister_callback"]


def arguments(name: str, account: Any = ACCOUNT) -> tuple[Any, ...]:
    return (account, BODY) if name in ("update_callback", "register_callback") else (account,)


async def test_each_call_returns_the_documented_example(peer: Peer, open_sdk: OpenSdk) -> None:
    async with open_sdk() as sdk:
        answers = [(await sdk.call(name, *arguments(name))).data for name in NAMES]
    assert answers == [
        fotahook.CallbackSummary(LISTENER),
        fotahook.FotaV2CallbackRegistrationResult(LISTENER),
        fotahook.FotaV2CallbackRegistrationResult(LISTENER),
        fotahook.FotaV2SuccessResult(True),
    ]
    assert [seen.method for seen in peer.calls] == ["GET", "PUT", "POST", "DELETE"]


async def test_account_and_body_may_be_keywords(open_sdk: OpenSdk) -> None:
    async with open_sdk() as sdk:
        response = await sdk.call("register_callback", account=ACCOUNT, body=BODY)
    assert response.data.url == LISTENER


async def test_a_response_has_status_headers_body_and_data(peer: Peer, open_sdk: OpenSdk) -> None:
    peer.routes["callbacks/"] = lambda _: respond(200, {"url": "http://x"}, "X-One: a\r\nx-one: b\r\n", "Fine")
    async with open_sdk() as sdk:
        response = await sdk.call("list_registered_callbacks", ACCOUNT)
    assert (response.status_code, response.reason_phrase, response.raw_body) == (200, "Fine", b'{"url": "http://x"}')
    assert response.headers["X-ONE"] == "a, b"
    assert response.is_success
    assert not response.is_error
    assert response.errors == ()
    assert response.request.method == "GET"
    assert response.request.url == f"{peer.url}/api/fota/v2/callbacks/{ACCOUNT}"
    assert repr(response) == f"<ApiResponse 200 GET {response.request.url}>"


async def test_a_request_has_both_tokens_and_a_json_body(peer: Peer, open_sdk: OpenSdk) -> None:
    async with open_sdk() as sdk:
        await sdk.call("register_callback", ACCOUNT, BODY)
    token, login, call = peer.seen
    assert token.target == "/api/ts/v1/oauth2/token"
    assert token.headers["authorization"] == "Basic YW4taWQ6YS1jbGllbnQtc2VjcmV0"
    assert token.headers["content-type"] == "application/x-www-form-urlencoded"
    assert token.body == b"grant_type=client_credentials"
    assert login.target == "/api/m2m/v1/session/login"
    assert login.headers["authorization"] == "Bearer token-1"
    assert json.loads(login.body) == {"username": "a-user", "password": "a-password"}
    assert call.headers["authorization"] == "Bearer token-1"
    assert call.headers["vz-m2m-token"] == "session-1"
    assert call.headers["accept"] == "application/json"
    assert call.headers["content-type"] == "application/json"
    assert call.headers["user-agent"] == f"fotahook/{fotahook.__version__}"
    assert json.loads(call.body) == {"url": LISTENER}


# The answers of test_parity are others.
BREACHES = {
    "a wrong type": b'{"url": 5}',
    "a string": b'"http://x"',
    "not UTF-8": b'{"url": "\xff"}',
    "too deep": b'{"other": ' + b"[" * 100_000,
}


@pytest.mark.parametrize("body", BREACHES.values(), ids=BREACHES)
@pytest.mark.parametrize("name", ["list_registered_callbacks", "register_callback"])
async def test_a_2xx_that_breaks_the_contract_is_a_response_error(
    peer: Peer, open_sdk: OpenSdk, name: str, body: bytes
) -> None:
    peer.routes["callbacks/"] = lambda _: respond(200, body)
    async with open_sdk() as sdk:
        with pytest.raises(fotahook.ResponseError, match="breaks the contract") as caught:
            await sdk.call(name, *arguments(name))
    assert caught.value.status_code == 200
    assert caught.value.raw_body == body
    assert len(peer.calls) == 1


@pytest.mark.parametrize("body", [b"", b"{}", b'{"success": "true"}', b'{"success": 1}'])
async def test_a_deregister_response_needs_success(peer: Peer, open_sdk: OpenSdk, body: bytes) -> None:
    peer.routes["callbacks/"] = lambda _: respond(200, body)
    async with open_sdk() as sdk:
        with pytest.raises(fotahook.ResponseError):
            await sdk.call("deregister_callback", ACCOUNT)


async def test_an_empty_register_response_is_a_response_error(peer: Peer, open_sdk: OpenSdk) -> None:
    peer.routes["callbacks/"] = lambda _: respond(200)
    async with open_sdk() as sdk:
        with pytest.raises(fotahook.ResponseError):
            await sdk.call("register_callback", ACCOUNT, BODY)


async def test_a_payload_for_a_pickling_parser_runs_nothing(
    peer: Peer, open_sdk: OpenSdk, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[object] = []
    monkeypatch.setattr("builtins.print", lambda *args: ran.append(args))
    payload = {"url": "http://x", "py/reduce": [{"py/function": "builtins.print"}, {"py/tuple": ["it ran"]}]}
    peer.routes["callbacks/"] = lambda _: respond(200, payload)
    async with open_sdk() as sdk:
        response = await sdk.call("list_registered_callbacks", ACCOUNT)
    assert response.data == fotahook.CallbackSummary("http://x")
    assert ran == []


async def test_a_body_over_one_mebibyte_is_an_error(peer: Peer, open_sdk: OpenSdk) -> None:
    at_the_limit = b'{"url": "' + b"x" * (1024 * 1024 - 11) + b'"}'
    peer.routes["callbacks/"] = lambda _: respond(200, at_the_limit + b" ")
    async with open_sdk() as sdk:
        with pytest.raises(fotahook.ResponseError, match="more than 1048576 bytes"):
            await sdk.call("list_registered_callbacks", ACCOUNT)
        peer.routes["callbacks/"] = lambda _: respond(200, at_the_limit)
        assert (await sdk.call("list_registered_callbacks", ACCOUNT)).is_success


async def test_an_endless_body_is_an_error(peer: Peer, open_sdk: OpenSdk) -> None:
    def endless(_: object) -> Any:
        yield b"HTTP/1.1 200 OK\r\n\r\n"
        while True:
            yield b"x" * 65536

    peer.routes["callbacks/"] = endless
    async with open_sdk() as sdk:
        with pytest.raises(fotahook.ResponseError, match="more than 1048576 bytes"):
            await sdk.call("list_registered_callbacks", ACCOUNT)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed_and_leaks_nothing(peer: Peer, open_sdk: OpenSdk, status: int) -> None:
    elsewhere = Peer()
    peer.routes["callbacks/"] = lambda _: respond(status, b"", f"Location: {elsewhere.url}/stolen\r\n")
    async with open_sdk() as sdk:
        with pytest.raises(fotahook.ResponseError, match=f"redirects are not followed.*{elsewhere.url}/stolen"):
            await sdk.call("register_callback", ACCOUNT, BODY)
    elsewhere.close()
    assert elsewhere.seen == []
    assert len(peer.calls) == 1


@pytest.mark.parametrize("status", [300, 304])
async def test_other_3xx_statuses_are_response_errors(peer: Peer, open_sdk: OpenSdk, status: int) -> None:
    peer.routes["callbacks/"] = lambda _: respond(status)
    async with open_sdk() as sdk:
        with pytest.raises(fotahook.ResponseError, match="not a response of this API"):
            await sdk.call("list_registered_callbacks", ACCOUNT)


async def test_a_chunked_body_is_decoded(peer: Peer, open_sdk: OpenSdk) -> None:
    chunked = b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7\r\n{"url":\r\n4\r\n "x"\r\n1\r\n}\r\n0\r\n\r\n'
    peer.routes["callbacks/"] = lambda _: [chunked]
    async with open_sdk() as sdk:
        for _ in range(2):
            assert (await sdk.call("list_registered_callbacks", ACCOUNT)).data.url == "x"
    assert peer.connections <= 1


async def test_consecutive_calls_share_a_connection(peer: Peer, open_sdk: OpenSdk) -> None:
    async with open_sdk() as sdk:
        for name in NAMES * 3:
            await sdk.call(name, *arguments(name))
        assert peer.connections == 1


@pytest.mark.parametrize(
    ("account", "target"),
    [
        ("0000123456-00001", "0000123456-00001"),
        ("a/b c", "a%2Fb%20c"),
        ("...", "..."),
        ("ä?#%", "%C3%A4%3F%23%25"),
        ("a\r\nX: y", "a%0D%0AX%3A%20y"),
        ("%2E%2E", "%252E%252E"),
    ],
)
async def test_an_account_is_one_segment_of_the_path(peer: Peer, open_sdk: OpenSdk, account: str, target: str) -> None:
    async with open_sdk() as sdk:
        await sdk.call("list_registered_callbacks", account)
    assert peer.calls[0].target == f"/api/fota/v2/callbacks/{target}"


@pytest.mark.parametrize("name", NAMES)
async def test_invalid_arguments_send_nothing(peer: Peer, open_sdk: OpenSdk, name: str) -> None:
    async with open_sdk() as sdk:
        with pytest.raises(TypeError, match="account must be a str, not int: a number loses its leading zeros"):
            await sdk.call(name, *arguments(name, 123456))
        with pytest.raises(TypeError, match="account must be a str, not NoneType"):
            await sdk.call(name, *arguments(name, None))
        for account in ("", ".", "..", "\ud800"):
            with pytest.raises(ValueError, match="account"):
                await sdk.call(name, *arguments(name, account))
        for timeout in (0, -1, float("inf"), float("nan")):
            with pytest.raises(ValueError, match="timeout"):
                await sdk.call(name, *arguments(name), timeout=timeout)
        with pytest.raises(TypeError, match="timeout"):
            await sdk.call(name, *arguments(name), timeout="5")
        with pytest.raises(ValueError, match="max_retries"):
            await sdk.call(name, *arguments(name), max_retries=-1)
        with pytest.raises(TypeError, match="max_retries"):
            await sdk.call(name, *arguments(name), max_retries=True)
    assert peer.seen == []


@pytest.mark.parametrize("name", ["update_callback", "register_callback"])
async def test_the_body_must_be_the_request_model(peer: Peer, open_sdk: OpenSdk, name: str) -> None:
    wrong = fotahook.FotaV2CallbackRegistrationRequest
    async with open_sdk() as sdk:
        for body in (None, {"url": LISTENER}, b"https://x.example", wrong(5), wrong(None)):  # type: ignore[arg-type]
            with pytest.raises(TypeError, match="body"):
                await sdk.call(name, ACCOUNT, body)
        with pytest.raises(ValueError, match="url is not valid"):
            await sdk.call(name, ACCOUNT, wrong("https://\ud800"))
    assert peer.seen == []

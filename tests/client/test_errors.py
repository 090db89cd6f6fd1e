"""Error responses: class, attributes, and one readable line for any body."""

import copy
import logging
import pickle

import pytest

import fotahook
from fotahook.contract.errors import MAX_BODY

from .conftest import ACCOUNT, BODY, Chunks, OpenSdk, Peer, Received, respond

LIST = "list_registered_callbacks"
ENVELOPE = {"errorCode": "INVALID_PARAMETER", "errorMessage": "Invalid account name format"}
KINDS: dict[int, type[fotahook.ApiException]] = {
    400: fotahook.FotaV2ResultException,
    401: fotahook.AuthenticationError,
    402: fotahook.ApiException,
    403: fotahook.PermissionDenied,
    404: fotahook.NotFound,
    405: fotahook.ApiException,
    408: fotahook.ApiException,
    409: fotahook.ApiException,
    418: fotahook.ApiException,
    429: fotahook.RateLimited,
    500: fotahook.ServerError,
    501: fotahook.ServerError,
    503: fotahook.ServerError,
    599: fotahook.ServerError,
}


@pytest.mark.parametrize("status", KINDS)
async def test_the_status_selects_the_error_class(peer: Peer, open_sdk: OpenSdk, status: int) -> None:
    peer.routes["callbacks/"] = lambda _: respond(status, ENVELOPE, "X-One: 1\r\n")
    async with open_sdk(max_retries=0) as sdk:
        with pytest.raises(fotahook.ApiException) as caught:
            await sdk.call("register_callback", ACCOUNT, BODY)
    error = caught.value
    assert type(error) is KINDS[status]
    assert error.status_code == status
    assert error.headers["x-one"] == "1"
    assert b"INVALID_PARAMETER" in error.raw_body
    assert (error.error_code, error.error_message) == ("INVALID_PARAMETER", "Invalid account name format")
    assert error.request is not None
    assert error.request.method == "POST"
    assert str(error) == (
        f"{status} for POST {peer.url}/api/fota/v2/callbacks/{ACCOUNT}: INVALID_PARAMETER: Invalid account name format"
    )


async def test_a_400_has_the_documented_reason(peer: Peer, open_sdk: OpenSdk) -> None:
    peer.routes["callbacks/"] = lambda _: respond(400, ENVELOPE)
    async with open_sdk() as sdk:
        with pytest.raises(fotahook.FotaV2ResultException) as caught:
            await sdk.call(LIST, ACCOUNT)
    assert caught.value.reason == "Unexpected error."


async def test_an_error_survives_pickle_and_copy(peer: Peer, open_sdk: OpenSdk) -> None:
    peer.routes["callbacks/"] = lambda _: respond(400, ENVELOPE)
    async with open_sdk() as sdk:
        with pytest.raises(fotahook.FotaV2ResultException) as caught:
            await sdk.call(LIST, ACCOUNT)
    for again in (pickle.loads(pickle.dumps(caught.value)), copy.copy(caught.value), copy.deepcopy(caught.value)):
        assert type(again) is fotahook.FotaV2ResultException
        assert (str(again), again.error_code, again.status_code) == (str(caught.value), "INVALID_PARAMETER", 400)
        assert again.request == caught.value.request
        assert dict(again.headers) == dict(caught.value.headers)


async def test_an_echoed_secret_is_masked(peer: Peer, open_sdk: OpenSdk) -> None:
    def echo(seen: object) -> object:
        said = f"no good: {seen.headers['authorization']} {seen.headers['vz-m2m-token']}"  # type: ignore[attr-defined]
        return respond(400, {"errorCode": "X", "errorMessage": said}, f"X-Echo: {said}\r\n")

    peer.routes["callbacks/"] = echo  # type: ignore[assignment]
    async with open_sdk() as sdk:
        with pytest.raises(fotahook.ApiException) as caught:
            await sdk.call(LIST, ACCOUNT)
    error = caught.value
    assert error.error_message == "no good: *** ***"
    shown = f"{error!s} {error!r} {error.headers} {error.raw_body!r} {error.request}"
    assert "token-1" not in shown
    assert "session-1" not in shown


@pytest.mark.parametrize("status", [200, 400, 401, 302, 503])
async def test_no_error_and_no_hook_shows_an_echoed_secret(peer: Peer, open_sdk: OpenSdk, status: int) -> None:
    def echo(seen: Received) -> Chunks:
        told = f"{seen.headers['authorization']} {seen.headers['vz-m2m-token']}"
        return respond(status, told.encode(), f"X-Echo: {told}\r\n", told)

    peer.routes["callbacks/"] = echo
    got: list[fotahook.ApiResponse[None]] = []
    async with open_sdk(on_response=got.append) as sdk:
        with pytest.raises(fotahook.FotahookError) as caught:
            await sdk.call(LIST, ACCOUNT)
    shown = [(one.raw_body, dict(one.headers), one.reason_phrase, one.errors) for one in got]
    held = caught.value
    assert isinstance(held, fotahook.ApiException | fotahook.ResponseError)
    everything = repr((shown, str(held), held.raw_body, dict(held.headers)))
    assert "token-" not in everything
    assert "session-" not in everything
    assert "*** ***" in everything


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 %s\r\n\r\n",
        b"%s\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: %s\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%s\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1;%s\r\n",
    ],
)
async def test_an_error_about_invalid_http_shows_no_secret(
    peer: Peer, open_sdk: OpenSdk, head: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "fotahook.client")
    peer.routes["callbacks/"] = lambda seen: [head % seen.headers["authorization"].encode(), None]
    async with open_sdk() as sdk:
        with pytest.raises(fotahook.ResponseError) as caught:
            await sdk.call(LIST, ACCOUNT)
    assert "token-" not in str(caught.value)
    assert "token-" not in caplog.text
    # aiohttp's response errors contain the request's headers.
    assert "Authorization" not in repr(caught.value.__cause__)


async def test_a_token_in_a_too_large_body_is_masked(peer: Peer, open_sdk: OpenSdk) -> None:
    peer.routes["oauth2/token"] = lambda _: respond(200, b'{"access_token": "a-new-token"' + b" " * MAX_BODY + b"}")
    async with open_sdk() as sdk:
        with pytest.raises(fotahook.ResponseError, match="a body of more than") as caught:
            await sdk.call(LIST, ACCOUNT)
    assert (caught.value.status_code, caught.value.raw_body) == (200, b"***")


async def test_a_password_echoed_by_the_login_is_masked(peer: Peer, open_sdk: OpenSdk) -> None:
    peer.routes["session/login"] = lambda seen: respond(400, {"errorCode": "X", "errorMessage": seen.body.decode()})
    async with open_sdk() as sdk:
        with pytest.raises(fotahook.LoginRefused) as caught:
            await sdk.call(LIST, ACCOUNT)
    cause = caught.value.__cause__
    for error in (caught.value, cause):
        assert isinstance(error, fotahook.LoginRefused | fotahook.ApiException)
        shown = f"{error!s} {error!r} {error.raw_body!r} {error.request}"
        assert "a-password" not in shown


async def test_a_failed_connection_names_the_url_and_keeps_the_cause(open_sdk: OpenSdk, peer: Peer) -> None:
    nobody = Peer()
    nobody.close()
    async with open_sdk(url=nobody.url, max_retries=0) as sdk:
        with pytest.raises(fotahook.ConnectionFailed, match=f"POST {nobody.url}.*[Rr]efused") as caught:
            await sdk.call(LIST, ACCOUNT)
    assert isinstance(caught.value, fotahook.TransportError)
    assert caught.value.__cause__ is not None
    assert pickle.loads(pickle.dumps(caught.value)).request == caught.value.request


@pytest.mark.parametrize("host", ["nobody.invalid", "1.2.3.4.5"])
async def test_an_unknown_host_is_a_failed_connection(open_sdk: OpenSdk, host: str) -> None:
    async with open_sdk(url=f"http://{host}", max_retries=0) as sdk:
        with pytest.raises(fotahook.ConnectionFailed):
            await sdk.call(LIST, ACCOUNT)


@pytest.mark.parametrize(
    "head",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon here\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
    ],
)
async def test_invalid_http_is_a_response_error(peer: Peer, open_sdk: OpenSdk, head: bytes) -> None:
    peer.routes["callbacks/"] = lambda _: [head, None]
    async with open_sdk(max_retries=0) as sdk:
        with pytest.raises(fotahook.ResponseError) as caught:
            await sdk.call(LIST, ACCOUNT)
    assert caught.value.status_code == 0
    assert caught.value.__cause__ is not None

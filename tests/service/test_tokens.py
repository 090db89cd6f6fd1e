"""The token calls, and calls with an access token."""

import asyncio

import pytest

from fotahook.contract.keys import fingerprint
from fotahook.service import Settings, build_app, create_credential

from .conftest import ACCOUNT, CALLBACK, GRANT, LOGIN, LOGOUT, MESSAGES, RESET, REVOKE, TOKEN, Api, basic, bearer


async def test_a_token_lives_an_hour_and_stays_the_same_meanwhile(api: Api) -> None:
    first = (await api("POST", TOKEN, GRANT, basic())).json
    assert (first["token_type"], first["expires_in"]) == ("Bearer", 3600)
    api.clock.advance(3000.5)
    second = (await api("POST", TOKEN, GRANT, basic())).json
    assert (second["access_token"], second["expires_in"]) == (first["access_token"], 599)
    api.clock.advance(599)
    third = (await api("POST", TOKEN, GRANT, basic())).json
    assert third["access_token"] != first["access_token"]
    assert third["expires_in"] == 3600


async def test_token_answers_are_not_to_be_cached(api: Api) -> None:
    assert (await api("POST", TOKEN, GRANT, basic())).header("cache-control") == "no-store"


async def test_concurrent_token_requests_get_one_token(api: Api) -> None:
    secret = await create_credential(api.store, "client", "crowd", clock=api.clock)
    headers = basic("crowd", secret)
    tokens = await asyncio.gather(*(api.token(headers) for _ in range(20)))
    assert len(set(tokens)) == 1


async def test_two_services_over_one_store_issue_the_same_token(api: Api) -> None:
    token = await api.token()
    api.app = build_app(api.store, Settings(secret_key=bytes(range(32)), clock=api.clock))
    assert await api.token() == token


async def test_a_new_secret_key_means_new_tokens(api: Api) -> None:
    token = await api.token()
    api.app = build_app(api.store, Settings(secret_key=bytes(32), clock=api.clock))
    assert await api.token() != token


async def test_changed_grants_issue_another_token(api: Api) -> None:
    token = await api.token()
    client = await api.store.credential("client", "dev")
    assert client is not None
    await api.store.save_credential(type(client)(kind="client", id="dev", secret_hash=client.secret_hash, scopes=()))
    api.clock.advance(1)
    assert await api.token() != token


async def test_the_token_itself_is_not_stored(api: Api) -> None:
    token = await api.token()
    assert token.encode() not in api.file.read_bytes() + api.file.with_name(api.file.name + "-wal").read_bytes()
    assert await api.store.credential("token", fingerprint(token).hex()) is not None


@pytest.mark.parametrize("body", [b"grant_type=password", b"scope=x", b"grant_type="])
async def test_any_other_grant_is_refused_with_both_error_formats(api: Api, body: bytes) -> None:
    answer = await api("POST", TOKEN, body, basic())
    assert answer.error == (400, "invalid_request")
    assert answer.json["errorMessage"] == answer.json["error_description"] == "Missing grant_type parameter value"
    assert answer.json["error"] == "invalid_request"


@pytest.mark.parametrize("path", [TOKEN, REVOKE])
async def test_missing_client_credentials_are_a_gateway_fault(api: Api, path: str) -> None:
    for headers, code in (
        ({}, "900902"),
        (bearer("x"), "900902"),
        ({"Authorization": "Basic"}, "900901"),
        ({"Authorization": "Basic %%%"}, "900901"),
        ({"Authorization": "Basic /w=="}, "900901"),
        (basic("dev", "wrong"), "900901"),
        (basic("dev", ""), "900901"),
        (basic("nobody", "dev-secret"), "900901"),
    ):
        answer = await api("POST", path, GRANT + b"&token=x", headers)
        assert answer.fault == (401, code)
        assert answer.header("www-authenticate") == "Basic"


async def test_a_wrong_secret_and_an_unknown_client_look_the_same(api: Api) -> None:
    wrong = await api("POST", TOKEN, GRANT, basic("dev", "wrong"))
    unknown = await api("POST", TOKEN, GRANT, basic("nobody", "wrong"))
    assert wrong == unknown


async def test_a_revoked_token_is_invalid_and_the_next_one_is_new(api: Api) -> None:
    token = await api.token()
    assert (await api("GET", CALLBACK, headers=api.both)).status == 200
    api.clock.advance(0.1)
    answer = await api("POST", REVOKE, GRANT + f"&token={token}".encode(), basic())
    assert (answer.status, answer.body, answer.header("revokedaccesstoken")) == (200, b"", token)
    assert (await api("GET", CALLBACK, headers=api.both)).fault == (401, "900901")
    assert await api.token() != token


async def test_a_client_cannot_revoke_the_token_of_another(api: Api) -> None:
    secret = await create_credential(api.store, "client", "other", clock=api.clock)
    theirs = (await api.token()).encode()
    answer = await api("POST", REVOKE, GRANT + b"&token=" + theirs, basic("other", secret))
    assert (answer.status, answer.header("revokedaccesstoken")) == (200, None)
    assert (await api("GET", CALLBACK, headers=api.both)).status == 200


async def test_a_revocation_needs_a_token(api: Api) -> None:
    assert (await api("POST", REVOKE, GRANT, basic())).error == (400, "INVALID_PARAMETER")


THINGSPACE = [("GET", CALLBACK), ("POST", CALLBACK), ("PUT", CALLBACK), ("DELETE", CALLBACK)]
SESSION = [("POST", LOGIN), ("POST", LOGOUT), ("PUT", RESET)]
OWN = [
    ("POST", MESSAGES),
    ("GET", f"/v1/accounts/{ACCOUNT}"),
    ("GET", f"/v1/accounts/{ACCOUNT}/signing-keys"),
    ("POST", f"/v1/accounts/{ACCOUNT}/signing-keys"),
    ("DELETE", f"/v1/accounts/{ACCOUNT}/signing-keys/x"),
    ("GET", "/v1/messages/x"),
    ("GET", "/v1/messages/x/body"),
    ("GET", "/v1/messages/x/attempts"),
]
BEARERS = {
    "none": ({}, "MISSING_CREDENTIALS", "900902"),
    "basic": (basic(), "MISSING_CREDENTIALS", "900902"),
    "empty": ({"Authorization": "Bearer "}, "MISSING_CREDENTIALS", "900902"),
    "unknown": (bearer("unknown"), "INVALID_CREDENTIALS", "900901"),
    "not ASCII": (bearer("\u00e9"), "INVALID_CREDENTIALS", "900901"),
}


@pytest.mark.parametrize(("headers", "code", "fault"), BEARERS.values(), ids=BEARERS)
@pytest.mark.parametrize(("method", "path"), [*THINGSPACE, *SESSION, *OWN])
async def test_calls_without_a_valid_token_are_refused(
    api: Api, method: str, path: str, headers: dict[str, str], code: str, fault: str
) -> None:
    before = api.rows()
    answer = await api(method, path, b"{}", {"VZ-M2M-Token": api.both["VZ-M2M-Token"], **headers})
    if path.startswith("/api/"):
        assert answer.fault == (401, fault)
    else:
        assert answer.error == (401, code)
    assert answer.header("www-authenticate") == "Bearer"
    assert api.rows() == before


@pytest.mark.parametrize(("method", "path"), [*THINGSPACE, *SESSION, *OWN])
async def test_an_expired_token_is_refused(api: Api, method: str, path: str) -> None:
    api.clock.advance(3600)
    answer = await api(method, path, b"{}", api.both)
    assert answer.status == 401
    assert b"900901" in answer.body or b"INVALID_CREDENTIALS" in answer.body

"""Authorization: every call, made by every caller that may not make it, changes nothing."""

import pytest

from fotahook.contract.auth import OAUTH_LIFETIME
from fotahook.service import Settings, build_app
from fotahook.service.credentials import SCOPES

from .conftest import ACCOUNT, MESSAGES, Api, basic, bearer, client_of
from .serving import SECRET_KEY

APP = build_app(None, Settings(secret_key=SECRET_KEY))  # type: ignore[arg-type]  # nothing of it is called
CALLS = [
    (method, path, endpoint)
    for path, resource in APP.resources.items()
    for method, endpoint in resource.endpoints.items()
]
GUARDED = [(method, path, call) for method, path, call in CALLS if call.by in ("token", "both tokens")]


# Written out, so that nobody opens a call by forgetting to guard it.
SIGNING_KEYS = {"/v1/signing-key", "/v1/accounts/{account}/signing-key"}
CONSOLE = {"/console/session", "/console/login", "/console/logout"}
OPEN = {"/healthz", "/readyz", "/metrics", "/openapi.json", *SIGNING_KEYS, *CONSOLE}
BY_CLIENT = {"/api/ts/v1/oauth2/token", "/api/ts/v1/oauth2/revoke"}
WITHOUT_SCOPE = {f"/api/m2m/v1/session/{call}" for call in ("login", "logout", "password/actions/reset")}


# Written out as well: what each scope opens.
BY_SCOPE = {
    # Who may name the receiver of an account's messages may know what they report.
    "callbacks": {
        "/api/fota/v2/callbacks/{account}",
        "/v1/accounts/{account}/callback",
        "/api/fota/v2/campaigns/{account}/{campaign}",
        "/api/fota/v2/reports/{account}/campaigns",
        "/api/fota/v2/reports/{account}/campaigns/{campaign}/devices",
        "/api/fota/v2/reports/{account}/devices/{device}",
        "/api/fota/v2/logging/{account}/devices/{device}/checkInHistory",
    },
    "publish": {"POST /v1/accounts/{account}/messages", "POST /v1/messages"},
    "bodies": {"/v1/messages/{id}/body"},
    "operate": {
        "PATCH /v1/accounts/{account}",
        "POST /v1/accounts/{account}/pause",
        "POST /v1/accounts/{account}/resume",
        "POST /v1/accounts/{account}/redeliver",
        "POST /v1/accounts/{account}/check",
        "POST /v1/accounts/{account}/signing-keys",
        "DELETE /v1/accounts/{account}/signing-keys/{id}",
        "POST /v1/messages/{id}/redeliver",
        "GET /v1/audit",
        "HEAD /v1/audit",
    },
}


def test_every_call_has_the_scope_that_is_written_here() -> None:
    for method, path, call in GUARDED:
        found = [scope for scope, calls in BY_SCOPE.items() if {path, f"{method} {path}"} & calls]
        if call.scope is not None:
            assert [call.scope] == (found or ["read"]), (method, path)
            # Nothing is changed by those who may only read.
            assert call.scope not in ("read", "bodies") or method in ("GET", "HEAD")


def test_every_route_is_in_the_matrix() -> None:
    assert {path for _, path, call in CALLS if call.by == "anyone"} == OPEN
    assert {path for _, path, call in CALLS if call.by == "client"} == BY_CLIENT
    assert {path for _, path, _ in GUARDED} == {path for _, path, _ in CALLS} - OPEN - BY_CLIENT
    assert {path for _, path, call in GUARDED if call.scope is None} == WITHOUT_SCOPE
    # ThingSpace's calls need both tokens, once there is a session.
    assert {path for _, path, call in GUARDED if path.startswith("/api/") and call.by == "token"} == {
        "/api/m2m/v1/session/login"
    }


async def asked(api: Api, method: str, path: str, headers: dict[str, str], account: str = ACCOUNT) -> tuple[int, str]:
    """Status and code of the answer to a call about a message that exists; that it changed nothing is looked at too."""
    message = await api("POST", MESSAGES, b"{}", {**api.bearer, "Idempotency-Key": "message-1"})
    before = api.rows()
    filled = path.replace("{account}", account).replace("{id}", message.json["id"])
    answer = await api(method, filled, b'{"url": "https://example.com/"}', headers)
    assert api.rows() == before
    if method == "HEAD":
        return answer.status, ""
    fault = answer.json.get("fault")
    return answer.status, fault["code"] if fault else answer.json["errorCode"]


def code(path: str, method: str, gateway: str, ours: str) -> str:
    return "" if method == "HEAD" else gateway if path.startswith("/api/") else ours


async def test_without_a_token(api: Api) -> None:
    session = {"VZ-M2M-Token": api.both["VZ-M2M-Token"]}
    for method, path, _ in GUARDED:
        expected = (401, code(path, method, "900902", "MISSING_CREDENTIALS"))
        for headers in ({}, session, basic(), {**session, "Authorization": "Bearer "}):
            assert await asked(api, method, path, headers) == expected, (method, path)


async def test_with_a_wrong_token(api: Api) -> None:
    session = {"VZ-M2M-Token": api.both["VZ-M2M-Token"]}
    for method, path, _ in GUARDED:
        expected = (401, code(path, method, "900901", "INVALID_CREDENTIALS"))
        for token in ("nonsense", api.both["VZ-M2M-Token"], api.bearer["Authorization"][7:-1]):
            assert await asked(api, method, path, {**session, **bearer(token)}) == expected, (method, path)


async def test_with_an_expired_token(api: Api) -> None:
    old = api.both
    api.clock.advance(OAUTH_LIFETIME)
    await api.sign_in()
    headers = {**api.both, "Authorization": old["Authorization"]}
    for method, path, _ in GUARDED:
        expected = (401, code(path, method, "900901", "INVALID_CREDENTIALS"))
        assert await asked(api, method, path, headers) == expected, (method, path)


async def test_without_its_scope(api: Api) -> None:
    for wanted in SCOPES:
        enough = {"read": ("read", "operate")}.get(wanted, (wanted,))
        headers = await client_of(api, scopes=tuple(scope for scope in SCOPES if scope not in enough))
        for method, path, _ in [one for one in GUARDED if one[2].scope == wanted]:
            expected = (403, code(path, method, "INVALID_ACCESS", "INVALID_ACCESS"))
            assert await asked(api, method, path, headers) == expected, (method, path)


async def test_with_an_account_that_is_not_granted(api: Api) -> None:
    mine = await client_of(api, accounts=["mine"])
    for method, path, _ in [one for one in GUARDED if "{" in one[1]]:
        status, gateway = (400, "REQUEST_FAILED.AccountNotFound") if path.startswith("/api/") else (404, "")
        expected = (status, code(path, method, gateway, "NOT_FOUND"))
        assert await asked(api, method, path, mine) == expected, (method, path)
        assert await asked(api, method, path, mine, account="nowhere") == expected, (method, path)


@pytest.mark.parametrize("path", [path for _, path, call in CALLS if call.by == "client"])
async def test_the_token_calls_need_the_clients_secret(api: Api, path: str) -> None:
    for headers, expected in (
        ({}, "900902"),
        (api.both, "900902"),
        (basic(secret="wrong"), "900901"),
        (basic("nobody"), "900901"),
        ({"Authorization": "Basic !"}, "900901"),
    ):
        assert await asked(api, "POST", path, headers) == (401, expected)


@pytest.mark.parametrize("path", [path for method, path, call in CALLS if call.by == "anyone" and method == "GET"])
async def test_open_calls_need_no_credentials(api: Api, path: str) -> None:
    assert (await api("GET", path)).status == 200

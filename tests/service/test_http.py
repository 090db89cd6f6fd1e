"""HTTP: unknown paths, methods, limits, health, and a failing store."""

import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from fotahook.contract.keys import account_signing_seed, signing_seed
from fotahook.contract.signing import format_public_key
from fotahook.service import Settings, build_app
from fotahook.store.records import StoreFull, StoreUnavailable
from tests.migrations import add_migration

from .conftest import (
    ACCOUNT,
    CALLBACK,
    LOGIN,
    LOGOUT,
    MESSAGES,
    RESET,
    REVOKE,
    TOKEN,
    Api,
    ask,
    basic,
)
from .serving import SECRET_KEY

ROUTES = {
    CALLBACK: "GET, POST, PUT, DELETE, HEAD, OPTIONS",
    TOKEN: "POST, OPTIONS",
    REVOKE: "POST, OPTIONS",
    LOGIN: "POST, OPTIONS",
    LOGOUT: "POST, OPTIONS",
    RESET: "PUT, OPTIONS",
    MESSAGES: "GET, POST, HEAD, OPTIONS",
    "/v1/messages": "POST, OPTIONS",
    "/v1/accounts": "GET, HEAD, OPTIONS",
    f"/v1/accounts/{ACCOUNT}": "GET, PATCH, HEAD, OPTIONS",
    f"/v1/accounts/{ACCOUNT}/callbacks": "GET, HEAD, OPTIONS",
    f"/v1/accounts/{ACCOUNT}/pause": "POST, OPTIONS",
    f"/v1/accounts/{ACCOUNT}/resume": "POST, OPTIONS",
    f"/v1/accounts/{ACCOUNT}/redeliver": "POST, OPTIONS",
    f"/v1/accounts/{ACCOUNT}/signing-keys": "GET, POST, HEAD, OPTIONS",
    f"/v1/accounts/{ACCOUNT}/signing-keys/x": "DELETE, OPTIONS",
    "/v1/messages/x": "GET, HEAD, OPTIONS",
    "/v1/messages/x/body": "GET, HEAD, OPTIONS",
    "/v1/messages/x/attempts": "GET, HEAD, OPTIONS",
    "/v1/messages/x/why": "GET, HEAD, OPTIONS",
    "/v1/messages/x/redeliver": "POST, OPTIONS",
    "/v1/signing-key": "GET, HEAD, OPTIONS",
    f"/v1/accounts/{ACCOUNT}/signing-key": "GET, HEAD, OPTIONS",
    "/healthz": "GET, HEAD, OPTIONS",
    "/readyz": "GET, HEAD, OPTIONS",
    "/openapi.json": "GET, HEAD, OPTIONS",
}


@pytest.mark.parametrize(
    "path",
    ["/api/", "/api/x", "/api/fota/v2/callbacks", f"{CALLBACK}/", f"{CALLBACK}/x", "/api/fota/v2/callbacks/a/b"],
)
async def test_an_unknown_path_below_api_meets_the_gateway(api: Api, path: str) -> None:
    for method in ("GET", "POST", "OPTIONS", "NONSENSE"):
        assert (await api(method, path, b"{}", api.both)).fault == (404, "900906")


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/api",
        "/apiary",
        "//",
        "/v1",
        f"{MESSAGES}/",
        "/healthz/",
        "/%2Fhealthz",
    ],
)
async def test_any_other_unknown_path_is_404(api: Api, path: str) -> None:
    assert (await api("GET", path, headers=api.both)).error == (404, "NOT_FOUND")


@pytest.mark.parametrize(("path", "allow"), ROUTES.items())
async def test_a_wrong_method_is_answered_with_the_allowed_ones(api: Api, path: str, allow: str) -> None:
    for method in {"GET", "POST", "PUT", "DELETE", "PATCH", "TRACE", "get", "X" * 500} - set(allow.split(", ")):
        answer = await api(method, path, b"{}", api.both)
        assert answer.error == (405, "METHOD_NOT_ALLOWED")
        assert answer.header("allow") == allow
    options = await api("OPTIONS", path)
    assert (options.status, options.body, options.header("allow")) == (204, b"", allow)


@pytest.mark.parametrize("path", [path for path, allow in ROUTES.items() if "HEAD" in allow] + ["/nowhere"])
async def test_head_is_get_without_the_body(api: Api, path: str) -> None:
    got = await api("GET", path, headers=api.both)
    head = await api("HEAD", path, headers=api.both)
    assert (head.status, head.headers, head.body) == (got.status, got.headers, b"")


@pytest.mark.parametrize("path", ROUTES)
async def test_a_body_over_the_limit_is_refused_everywhere(api: Api, path: str) -> None:
    limit = {MESSAGES: 256 * 1024, "/v1/messages": 16 * 1024 * 1024}.get(path, 16 * 1024)
    before = api.rows()
    for method in ROUTES[path].removesuffix(", OPTIONS").split(", "):
        headers = {**api.both, "Content-Length": str(limit + 1)}
        answer = await api(method, path, b"", headers)
        assert answer.status == 413
    assert api.rows() == before


@pytest.mark.parametrize(("method", "path"), [("POST", TOKEN), ("POST", CALLBACK), ("POST", LOGIN), ("PUT", RESET)])
async def test_a_body_that_grows_over_the_limit_is_refused(api: Api, method: str, path: str) -> None:
    headers = {**api.both, **basic()} if path == TOKEN else api.both
    answer = await api(method, path, [b" " * 16384, b" ", None], headers)
    assert answer.error == (413, "TOO_LARGE")


async def test_health_needs_no_token(api: Api) -> None:
    assert (await api("GET", "/healthz")).json == {"status": "alive"}
    assert (await api("GET", "/readyz")).json == {"status": "ready"}


async def test_the_part_that_is_not_ready_is_named(api: Api) -> None:
    works = True
    settings = Settings(secret_key=SECRET_KEY)
    api.app = build_app(api.store, settings, checks={"dispatcher": lambda: works, "other": lambda: True})
    assert (await api("GET", "/readyz")).json == {"status": "ready"}
    works = False
    answer = await api("GET", "/readyz")
    assert answer.error == (503, "NOT_READY")
    assert answer.json["errorMessage"] == "dispatcher: not working; see the log."
    assert (await api("GET", "/healthz")).status == 200


async def test_a_store_of_another_version_is_not_ready(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    add_migration(monkeypatch)
    answer = await api("GET", "/readyz")
    assert answer.error == (503, "NOT_READY")
    assert answer.json["errorMessage"].startswith("migrations: ")


async def test_the_store_check_is_cached(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = 0

    async def gone() -> None:
        nonlocal tried
        tried += 1
        raise StoreUnavailable("gone")

    with monkeypatch.context() as away:
        away.setattr(api.store, "check", gone)
        away.setattr("fotahook.store.base.CHECK_SECONDS", 3600.0)
        for _ in range(3):
            assert (await api("GET", "/readyz")).error == (503, "STORE_UNAVAILABLE")
        assert tried == 1
    monkeypatch.setattr("fotahook.store.base.CHECK_SECONDS", 0.0)
    assert (await api("GET", "/readyz")).json == {"status": "ready"}


async def test_a_process_without_calls_serves_health_only(api: Api) -> None:
    app = build_app(api.store, Settings(secret_key=SECRET_KEY), calls=False)
    for path in ("/healthz", "/readyz"):
        assert (await ask(app, "GET", path)).status == 200
    for method, path in (("POST", TOKEN), ("GET", CALLBACK), ("POST", MESSAGES), ("GET", "/openapi.json")):
        assert (await ask(app, method, path, headers=api.both)).status == 404


async def test_the_public_signing_key_needs_no_token(api: Api) -> None:
    assert (await api("GET", "/v1/signing-key")).json == {"public": format_public_key(signing_seed(SECRET_KEY))}


async def test_every_account_has_a_public_key_whether_it_exists_or_not(api: Api) -> None:
    await api("POST", MESSAGES, b"{}", api.bearer)
    for account in (ACCOUNT, "nobody"):
        answer = await api("GET", f"/v1/accounts/{account}/signing-key")
        assert answer.json == {"public": format_public_key(account_signing_seed(SECRET_KEY, account))}
    assert (await api("GET", "/v1/accounts/%00/signing-key")).error == (400, "INVALID_PARAMETER")


async def test_a_closed_store_is_503_and_the_process_still_alive(api: Api) -> None:
    await api.store.close()
    assert (await api("GET", "/healthz")).status == 200
    for method, path in (("GET", "/readyz"), ("GET", CALLBACK), ("POST", MESSAGES), ("POST", TOKEN)):
        answer = await api(method, path, b"{}", basic() if path == TOKEN else api.both)
        assert answer.error == (503, "STORE_UNAVAILABLE")
        assert answer.header("retry-after") == "1"


async def test_a_full_store_is_507(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    async def full(*_: object) -> None:
        raise StoreFull("SQLite: database or disk is full, /somewhere/private")

    monkeypatch.setattr(api.store, "accept", full)
    answer = await api("POST", MESSAGES, b"{}", api.bearer)
    assert answer.error == (507, "STORE_FULL")
    assert b"private" not in answer.body


async def test_added_routes_come_after_our_own(api: Api) -> None:
    async def page(request: Request) -> Response:
        return PlainTextResponse("console")

    async def teapot(request: Request) -> Response:
        raise HTTPException(418, "no coffee here")

    async def broken(request: Request) -> Response:
        raise StoreUnavailable("gone")

    routes = [Route("/", page), Route("/healthz", page), Route("/tea", teapot), Route("/broken", broken)]
    api.app = build_app(api.store, Settings(secret_key=SECRET_KEY), routes=routes)
    assert (await api("GET", "/")).body == b"console"
    assert (await api("GET", "/healthz")).json == {"status": "alive"}
    assert (await api("GET", "/tea")).error == (418, "REQUEST_FAILED")
    assert (await api("GET", "/broken")).error == (503, "STORE_UNAVAILABLE")
    assert (await api("POST", "/")).error == (405, "REQUEST_FAILED")


async def test_a_server_without_raw_path_is_served_too(api: Api) -> None:
    async def without(scope: Scope, receive: Receive, send: Send) -> None:
        del scope["raw_path"]
        await api.app(scope, receive, send)

    assert (await ask(without, "GET", CALLBACK, headers=api.both)).status == 200


async def test_an_internal_error_hides_its_details(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.store, "check", None)

    async def caught(scope: Scope, receive: Receive, send: Send) -> None:
        # The app raises after it answered, so that the server can log what happened.
        with pytest.raises(TypeError):
            await api.app(scope, receive, send)

    answer = await ask(caught, "GET", "/readyz")
    assert answer.error == (500, "INTERNAL_ERROR")
    assert b"NoneType" not in answer.body


def test_settings_do_not_show_the_secret_key() -> None:
    assert "secret_key" not in repr(Settings(secret_key=b"very secret"))


def test_an_app_is_a_value() -> None:
    assert isinstance(build_app(None, Settings(secret_key=SECRET_KEY)), Starlette)  # type: ignore[arg-type]

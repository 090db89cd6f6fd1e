"""ThingSpace's four calls."""

import sqlite3
from collections.abc import Sequence

import msgspec
import pytest

from fotahook.contract.addresses import parse_networks
from fotahook.service import Settings, build_app

from .conftest import ACCOUNT, CALLBACK, URL, Api, client_of
from .serving import SECRET_KEY

EXAMPLES = (
    "http://10.120.102.183:50559/CallbackListener/FirmwareServiceMessages.asmx",
    "https://10.120.102.183:50559/CallbackListener/FirmwareServiceMessages.asmx",
    "https://255.255.11.135:50559/CallbackListener/FirmwareServiceMessages.asmx",
)


def registration(url: object) -> bytes:
    return msgspec.json.encode({"url": url})


async def test_no_callback_is_200_without_a_body(api: Api) -> None:
    answer = await api("GET", CALLBACK, headers=api.both)
    assert (answer.status, answer.body, answer.header("content-length")) == (200, b"", "0")


async def test_a_registered_callback_is_listed(api: Api) -> None:
    registered = await api("POST", CALLBACK, registration(URL), api.both)
    assert (registered.status, registered.json) == (200, {"url": URL})
    listed = await api("GET", CALLBACK, headers=api.both)
    assert (listed.status, listed.json) == (200, {"url": URL})


@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_both_post_and_put_replace(api: Api, method: str) -> None:
    await api("POST", CALLBACK, registration(URL), api.both)
    answer = await api(method, CALLBACK, registration(URL + "/2"), api.both)
    assert answer.json == {"url": URL + "/2"}
    callback = await api.store.callback(ACCOUNT)
    assert callback is not None
    assert (callback.url, callback.revision) == (URL + "/2", 2)


async def test_put_registers_where_nothing_was(api: Api) -> None:
    answer = await api("PUT", CALLBACK, registration(URL), api.both)
    assert (answer.status, answer.json) == (200, {"url": URL})


async def test_put_takes_callback_for_url_and_post_does_not(api: Api) -> None:
    body = msgspec.json.encode({"callback": URL})
    assert (await api("PUT", CALLBACK, body, api.both)).json == {"url": URL}
    assert (await api("POST", CALLBACK, body, api.both)).error == (400, "INVALID_PARAMETER")


async def test_deregistering_succeeds_whether_or_not_anything_was_registered(api: Api) -> None:
    await api("POST", CALLBACK, registration(URL), api.both)
    for _ in range(2):
        answer = await api("DELETE", CALLBACK, headers=api.both)
        assert (answer.status, answer.json) == (200, {"success": True})
    assert await api.store.callback(ACCOUNT) is None


@pytest.mark.parametrize("content_type", ["*/*", "application/json", "text/plain", "nonsense", None])
async def test_the_body_is_json_whatever_its_content_type(api: Api, content_type: str | None) -> None:
    headers = api.both if content_type is None else {**api.both, "Content-Type": content_type}
    assert (await api("POST", CALLBACK, registration(URL), headers)).status == 200


async def test_an_idempotency_key_and_unknown_members_are_tolerated(api: Api) -> None:
    body = msgspec.json.encode({"url": URL, "name": "Fota", "nested": {"url": 1}})
    answer = await api("POST", CALLBACK, body, {**api.both, "Idempotency-Key": "x" * 400})
    assert answer.json == {"url": URL}


async def test_an_account_is_one_percent_encoded_segment(api: Api) -> None:
    for path, account in (("My%20Account-1", "My Account-1"), ("%C3%A4%2B", "ä+"), ("a%252Fb", "a%2Fb")):
        answer = await api("POST", f"/api/fota/v2/callbacks/{path}", registration(URL), api.both)
        assert answer.status == 200
        assert await api.store.callback(account) is not None


async def test_history_names_the_client_and_the_user(api: Api) -> None:
    await api("POST", CALLBACK, registration(URL), api.both)
    with sqlite3.connect(api.file) as db:
        assert db.execute("select actor from callback_history").fetchall() == [("dev/dev",)]
    db.close()


@pytest.mark.parametrize("url", EXAMPLES)
async def test_the_documented_examples_need_a_service_that_allows_them(api: Api, url: str) -> None:
    refused = await api("POST", CALLBACK, registration(url), api.both)
    assert refused.error == (400, "INVALID_PARAMETER")
    allowed = parse_networks(("10.0.0.0/8", "255.0.0.0/8"))
    settings = Settings(secret_key=SECRET_KEY, allow_http=True, allowed_networks=allowed, clock=api.clock)
    api.app = build_app(api.store, settings)
    answer = await api("POST", CALLBACK, registration(url), api.both)
    assert (answer.status, answer.json) == (200, {"url": url})


@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_an_undocumented_port_is_registered_with_a_warning(api: Api, method: str) -> None:
    answer = await api(method, CALLBACK, registration("https://fota.example.com:8443/"), api.both)
    assert (answer.status, answer.json) == (200, {"url": "https://fota.example.com:8443/"})
    warning = answer.header("warning") or ""
    assert warning.startswith('299 fotahook "port 8443 is none of those')
    assert "Connectivity API only" in warning
    for url in ("https://fota.example.com/", "https://fota.example.com:50559/", "https://[2606:4700::1]:9006/"):
        assert (await api(method, CALLBACK, registration(url), api.both)).header("warning") is None


async def test_an_unusual_account_is_registered_with_a_warning(api: Api) -> None:
    answer = await api("POST", "/api/fota/v2/callbacks/123456-00001", registration("https://example.com:1/"), api.both)
    assert answer.status == 200
    first, second = (answer.header("warning") or "").split('", ')
    assert "port 1 is none" in first
    assert second.startswith('299 fotahook "')
    assert "leading zeros" in second


async def test_an_account_that_is_not_granted_looks_missing(api: Api) -> None:
    await api("POST", CALLBACK, registration(URL), api.both)
    mine = await client_of(api, accounts=["mine"])
    before = api.rows()
    for method, body in (("GET", b""), ("POST", registration(URL)), ("PUT", registration(URL)), ("DELETE", b"")):
        theirs = await api(method, CALLBACK, body, mine)
        nowhere = await api(method, "/api/fota/v2/callbacks/nowhere", body, mine)
        assert theirs == nowhere
        assert theirs.error == (400, "REQUEST_FAILED.AccountNotFound")
        assert ACCOUNT not in theirs.body.decode()
    assert api.rows() == before
    assert (await api("POST", "/api/fota/v2/callbacks/mine", registration(URL), mine)).status == 200


async def test_the_four_calls_need_the_scope_callbacks_of_client_and_user(api: Api) -> None:
    without = await client_of(api, scopes=("publish", "operate"))
    token_alone, session_alone = {**api.both, **without}, {**api.both, **without}
    token_alone["VZ-M2M-Token"] = api.both["VZ-M2M-Token"]
    session_alone["Authorization"] = api.both["Authorization"]
    for headers in (without, token_alone, session_alone):
        answer = await api("GET", CALLBACK, headers=headers)
        assert answer.error == (403, "INVALID_ACCESS")


@pytest.mark.parametrize("path", [CALLBACK, f"/v1/accounts/{ACCOUNT}/callback"])
async def test_a_new_url_is_registered_once_it_answers_the_challenge(api: Api, path: str) -> None:
    asked: list[tuple[str, str, int]] = []
    reason: str | None = "it answered 401"

    async def challenge(url: str, account: str, keys: Sequence[str]) -> str | None:
        asked.append((url, account, len(keys)))
        return reason

    api.app = build_app(api.store, Settings(secret_key=SECRET_KEY, clock=api.clock, challenge_receiver=challenge))
    await api("POST", f"/v1/accounts/{ACCOUNT}/signing-keys", headers=api.bearer)
    refused = await api("PUT", path, registration(URL), api.both)
    assert refused.error == (400, "INVALID_PARAMETER")
    assert "must answer the challenge before it is registered: it answered 401" in refused.json["errorMessage"]
    assert await api.store.callback(ACCOUNT) is None
    assert await api.store.callback_history(ACCOUNT, 9) == []
    reason = None
    assert (await api("PUT", path, registration(URL), api.both)).status == 200
    # The URL that is registered already is not asked again, another one is.
    assert (await api("PUT", path, registration(URL), api.both)).status == 200
    assert (await api("PUT", path, registration(f"{URL}/2"), api.both)).status == 200
    assert asked == [(URL, ACCOUNT, 1), (URL, ACCOUNT, 1), (f"{URL}/2", ACCOUNT, 1)]
    # What is no callback URL at all is refused before anything is sent to it.
    assert (await api("PUT", path, registration("https://127.0.0.1/"), api.both)).status == 400
    assert len(asked) == 3

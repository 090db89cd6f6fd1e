"""Invalid requests get an error in the agreed shape, and change nothing."""

import asyncpg
import msgspec
import pytest

from fotahook.service import Settings, build_app
from fotahook.service.credentials import provision_dev
from fotahook.store import open_store
from fotahook.store.postgres.connection import migrate_url
from tests.postgres import Server

from .conftest import (
    CALLBACK,
    CHEAP,
    DESCRIBED,
    GRANT,
    LOGIN,
    MESSAGES,
    RESET,
    REVOKE,
    TOKEN,
    URL,
    Answer,
    Api,
    ask,
    basic,
    bearer,
)
from .serving import SECRET_KEY

PLAIN = b'{"url": "%s"}' % URL.encode()

BAD_BODIES = {
    "no body": b"",
    "blank": b" \n ",
    "not JSON": b"url=https://example.com",
    "half of it": b'{"url": "https://exa',
    "not UTF-8": b'{"url": "https://example.com/\xff"}',
    "half a surrogate pair": b'{"url": "https://example.com/\\ud800"}',
    "an array": b'["https://example.com"]',
    "a string": b'"https://example.com"',
    "null": b"null",
    "a huge number": b'{"url": 1e999999}',
    "a number of many digits": b'{"url": ' + b"9" * 9000 + b"}",
    "nested deeply": b'{"url": ' + b"[" * 8000 + b"]" * 8000 + b"}",
    "nested deeply elsewhere": b'{"x": ' + b"[" * 8000 + b"]" * 8000 + b"}",
    "a byte order mark": b"\xef\xbb\xbf" + PLAIN,
}
BAD_URLS: dict[str, object] = {
    "null": None,
    "a number": 5,
    "true": True,
    "an object": {"href": URL},
    "empty": "",
    "http": "http://listener.example.com/",
    "another scheme": "ftp://listener.example.com/",
    "no scheme": "listener.example.com/callbacks",
    "no host": "https:///callbacks",
    "credentials": "https://user:secret@listener.example.com/",
    "too long": "https://listener.example.com/" + "x" * 2048,
    "a control character": "https://listener.example.com/\u0000",
    "a fragment": URL + "#part",
    "a private address": "https://10.1.2.3/",
    "loopback in disguise": "https://2130706433/",
    "port zero": "https://listener.example.com:0/",
    "no port number": "https://listener.example.com:http/",
    "half an IPv6 address": "https://[::1/",
}
BAD_ACCOUNTS = {
    "empty": "",
    "a dot": ".",
    "an encoded dot": "%2E",
    "two dots": "..",
    "two encoded dots": "%2e%2E",
    "a slash": "a%2Fb",
    "a line feed": "a%0Ab",
    "NUL": "a%00",
    "a C1 control": "a%C2%85",
    "65 characters": "1" * 65,
    "not UTF-8": "a%FF",
    "an encoded surrogate": "%ED%A0%80",
    "half an escape": "a%4",
    "no escape": "100%",
}


async def refused(api: Api, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Answer:
    before = api.rows()
    answer = await api(method, path, body, api.both if headers is None else headers)
    assert api.rows() == before
    return answer


@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize("body", BAD_BODIES.values(), ids=BAD_BODIES)
async def test_an_invalid_registration_body(api: Api, method: str, body: bytes) -> None:
    answer = await refused(api, method, CALLBACK, body)
    assert answer.error == (400, "INVALID_PARAMETER")
    if not body.strip():
        assert answer.json["errorMessage"] == "Input binding error"


@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize("url", BAD_URLS.values(), ids=BAD_URLS)
async def test_an_invalid_url_is_refused(api: Api, method: str, url: object) -> None:
    answer = await refused(api, method, CALLBACK, msgspec.json.encode({"url": url}))
    assert answer.error == (400, "INVALID_PARAMETER")
    assert "url" in answer.json["errorMessage"] or "--allow-network" in answer.json["errorMessage"]


@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_a_registration_without_a_url(api: Api, method: str) -> None:
    assert (await refused(api, method, CALLBACK, b"{}")).error == (400, "INVALID_PARAMETER")


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
@pytest.mark.parametrize("account", BAD_ACCOUNTS.values(), ids=BAD_ACCOUNTS)
async def test_an_invalid_account_name(api: Api, method: str, account: str) -> None:
    answer = await refused(api, method, f"/api/fota/v2/callbacks/{account}", PLAIN)
    assert answer.error == (400, "INVALID_PARAMETER")
    assert answer.json["errorMessage"] == "Invalid account name format"


@pytest.mark.parametrize("account", BAD_ACCOUNTS.values(), ids=BAD_ACCOUNTS)
async def test_an_invalid_account_name_in_our_own_calls(api: Api, account: str) -> None:
    for method, path in (("POST", "/messages"), ("GET", ""), ("POST", "/signing-keys"), ("GET", "/signing-keys")):
        answer = await refused(api, method, f"/v1/accounts/{account}{path}", b"{}")
        assert answer.error == (400, "INVALID_PARAMETER")


# JSON's grammar allows these, and a message is whatever JSON its sender has.
ODD_MESSAGES = ("half a surrogate pair", "a huge number", "a number of many digits")


@pytest.mark.parametrize("name", ODD_MESSAGES)
async def test_a_message_may_hold_what_a_registration_may_not(api: Api, name: str) -> None:
    published = (await api("POST", MESSAGES, BAD_BODIES[name], api.bearer)).json
    body = await api("GET", f"/v1/messages/{published['id']}/body", headers=api.bearer)
    assert body.body == BAD_BODIES[name]


async def test_a_type_with_invalid_text_is_stored_and_shown(api: Api) -> None:
    # Not every store can hold NUL.
    for text, kept in ((b"a\\ud800", "a\ufffd"), (b"a\\u0000", None)):
        published = (await api("POST", MESSAGES, b'{"type": "%b"}' % text, api.bearer)).json
        shown = await api("GET", f"/v1/messages/{published['id']}", headers=api.bearer)
        assert shown.json["type"] == kept


@pytest.mark.parametrize("name", sorted(set(BAD_BODIES) - set(ODD_MESSAGES)))
async def test_a_message_must_be_a_json_object(api: Api, name: str) -> None:
    assert (await refused(api, "POST", MESSAGES, BAD_BODIES[name])).error == (400, "INVALID_PARAMETER")


@pytest.mark.parametrize("body", BAD_BODIES.values(), ids=BAD_BODIES)
async def test_an_invalid_login_body(api: Api, body: bytes) -> None:
    assert (await refused(api, "POST", LOGIN, body)).error == (400, "INVALID_PARAMETER")


async def test_a_login_of_the_wrong_shape(api: Api) -> None:
    for body in (b"{}", b'{"username": "dev"}', b'{"username": "dev", "password": 5}'):
        assert (await refused(api, "POST", LOGIN, body)).error == (400, "INVALID_PARAMETER")
    assert (await refused(api, "PUT", RESET, b'{"oldPassword": null}')).error == (400, "INVALID_PARAMETER")


FORMS = {
    "no body": b"",
    "not ASCII": b"grant_type=\xff",
    "not UTF-8": b"grant_type=client_credentials&token=%ff",
    "a field twice": b"grant_type=client_credentials&grant_type=client_credentials",
    "many fields": b"grant_type=client_credentials" + b"&a=1" * 100,
}


@pytest.mark.parametrize("body", FORMS.values(), ids=FORMS)
async def test_an_invalid_form(api: Api, body: bytes) -> None:
    for path in (TOKEN, REVOKE):
        assert (await refused(api, "POST", path, body, basic())).error == (400, "INVALID_PARAMETER")


@pytest.mark.parametrize("name", ["Authorization", "VZ-M2M-Token", "Idempotency-Key", "Ordering-Key", "Content-Length"])
async def test_a_repeated_header_is_refused(api: Api, name: str) -> None:
    pairs = [(key.lower().encode(), value.encode()) for key, value in {**api.both, name: "1", **api.both}.items()]
    twice = [*pairs, (name.lower().encode(), b"1")]
    before = api.rows()
    answer = await api("POST", MESSAGES if "Key" in name else CALLBACK, PLAIN, twice)
    assert answer.error == (400, "INVALID_PARAMETER")
    assert name in answer.json["errorMessage"]
    assert api.rows() == before


@pytest.mark.parametrize("value", ["", " ", "with space", "x" * 129, "\u00e9", "\x7f", "a\x00b"])
@pytest.mark.parametrize("name", ["Idempotency-Key", "Ordering-Key"])
async def test_a_key_that_is_not_1_to_128_visible_ascii_characters(api: Api, name: str, value: str) -> None:
    answer = await refused(api, "POST", MESSAGES, b"{}", {**api.bearer, name: value})
    assert answer.error == (400, "INVALID_PARAMETER")


@pytest.mark.parametrize("length", ["-1", "1e9", "\u00b2", "", "0x10"])
async def test_an_invalid_content_length(api: Api, length: str) -> None:
    answer = await refused(api, "GET", CALLBACK, headers={**api.both, "Content-Length": length})
    assert answer.error == (400, "INVALID_PARAMETER")


async def test_text_that_a_store_cannot_hold_reaches_none(postgres_server: Server) -> None:
    """PostgreSQL has no NUL in texts. A line of a batch that has one is accepted or refused by itself."""
    connection = await asyncpg.connect(postgres_server.url)
    await connection.execute("create database nul")
    await connection.close()
    url = postgres_server.url.removesuffix("postgres") + "nul"
    await migrate_url(url)
    store = await open_store(url)
    try:
        await provision_dev(store, cost=CHEAP)
        app = build_app(store, Settings(secret_key=SECRET_KEY, password_cost=CHEAP))
        token = (await ask(app, "POST", TOKEN, GRANT, basic())).json["access_token"]
        body = b'{"type": "a\\u0000b"}'
        assert (await ask(app, "POST", MESSAGES, body, bearer(token))).status == 202
        lines = b'{"account": "A-1", "message": %b}\n{"account": "A-1", "message": {}}\n' % body
        answer = await ask(app, "POST", "/v1/messages", lines, bearer(token))
        assert [set(msgspec.json.decode(line)) for line in answer.body.splitlines()] == [{"id", "duplicate"}] * 2
        login = b'{"username": "a\\u0000b", "password": "\\u0000"}'
        assert (await ask(app, "POST", LOGIN, login, bearer(token))).error == (400, "LOGIN_REFUSED")
        assert (await ask(app, "POST", TOKEN, GRANT, basic("a\0b", "x"))).status == 401
        for path, methods in DESCRIBED.items():
            for method in set(methods) - {"PUT"}:
                if path.pattern != "/v1/events":
                    target = path.pattern.replace("[^/]*", "a%00b").encode()
                    assert (await ask(app, method, target, b"", bearer(token))).status < 500, (method, target)
    finally:
        await store.close()

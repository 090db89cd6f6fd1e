"""Publishing a message, and reading it as an operator."""

import hashlib

import msgspec
import pytest

from fotahook.contract.operator import MessageState
from fotahook.store.records import Attempt, DeliveryState, Health, LaneVerdict, Settlement

from .conftest import ACCOUNT, CALLBACK, MESSAGES, URL, Api, client_of

MESSAGE = b'{"type": "upgradeProgress",  "accountName":"0000123456-00001", "\xc3\xa4": [1.50, 1e2]}\n'


async def test_a_message_is_kept_byte_for_byte(api: Api) -> None:
    answer = await api("POST", MESSAGES, [MESSAGE[:10], b"", MESSAGE[10:]], api.bearer)
    assert (answer.status, answer.json["duplicate"]) == (202, False)
    stored = await api.store.message(answer.json["id"])
    assert stored is not None
    assert (stored.body, stored.type, stored.account) == (MESSAGE, "upgradeProgress", ACCOUNT)
    body = await api("GET", f"/v1/messages/{stored.id}/body", headers=api.bearer)
    assert (body.status, body.body, body.header("content-type")) == (200, MESSAGE, "application/json")


OTHERS_NAME = [
    b'{"accountName": "theirs"}',
    b'{"accountName": "theirs", "accountName": "mine"}',
    b'{"accountName": "mine", "account\\u004eame": "theirs"}',
    b'{"ACCOUNTNAME": "theirs"}',
]


@pytest.mark.parametrize("body", OTHERS_NAME)
async def test_a_message_cannot_name_an_account_of_somebody_else(api: Api, body: bytes) -> None:
    headers, both = await client_of(api, accounts=["mine"]), await client_of(api, accounts=["mine", "theirs"])
    for account in ("theirs", "nowhere"):
        sent = body.replace(b"theirs", account.encode())
        answer = await api("POST", "/v1/accounts/mine/messages", sent, headers)
        assert answer.error == (400, "INVALID_PARAMETER")
        assert "accountName is not mine" in answer.json["errorMessage"]
        [line] = (await api("POST", "/v1/messages", b'{"account": "mine", "message": %b}' % sent, headers)).lines
        assert line == answer.json
    assert await api.store.accounts(limit=1) == []
    assert (await api("POST", "/v1/accounts/mine/messages", body, both)).status == 202
    own = b'{"accountName": "mine", "x": {"accountName": "theirs"}, "\\u0000": "\\ud800"}'
    assert (await api("POST", "/v1/accounts/mine/messages", own, headers)).status == 202


@pytest.mark.parametrize("body", [b"{}", b'{"type": 5}', b'{"type": null}', b'{"x": {"type": "inner"}}'])
async def test_a_type_that_is_not_a_string_is_ignored(api: Api, body: bytes) -> None:
    answer = await api("POST", MESSAGES, body, api.bearer)
    stored = await api.store.message(answer.json["id"])
    assert stored is not None
    assert stored.type is None


async def test_the_same_key_and_bytes_are_one_message(api: Api) -> None:
    headers = {**api.bearer, "Idempotency-Key": "campaign-7/1"}
    first = (await api("POST", MESSAGES, MESSAGE, headers)).json
    again = await api("POST", MESSAGES, MESSAGE, headers)
    assert (again.status, again.json) == (202, {"id": first["id"], "duplicate": True})


async def test_the_same_key_with_other_bytes_is_a_conflict(api: Api) -> None:
    headers = {**api.bearer, "Idempotency-Key": "campaign-7/1"}
    await api("POST", MESSAGES, MESSAGE, headers)
    before = api.rows()["pending"]
    assert (await api("POST", MESSAGES, b"{}", headers)).error == (409, "CONFLICT")
    assert api.rows()["pending"] == before


async def test_a_message_may_have_256_kib_and_no_more(api: Api) -> None:
    padding = 256 * 1024 - len(b'{"x":""}')
    fits = b'{"x":"%b"}' % (b"y" * padding)
    assert (await api("POST", MESSAGES, fits, api.bearer)).status == 202
    before = api.rows()
    answer = await api("POST", MESSAGES, fits + b" ", api.bearer)
    assert answer.error == (413, "TOO_LARGE")
    assert api.rows() == before


async def test_a_body_over_the_limit_is_not_read_further(api: Api) -> None:
    chunks = [b"x" * 65536 for _ in range(100)]
    answer = await api("POST", MESSAGES, chunks, api.bearer)
    assert answer.error == (413, "TOO_LARGE")
    declared = await api("POST", MESSAGES, b"", {**api.bearer, "Content-Length": "9" * 4000})
    assert declared.error == (413, "TOO_LARGE")


@pytest.mark.parametrize(("opening", "closing"), [(b'{"x":', b"}"), (b"[", b"]")])
async def test_a_message_is_nested_100_deep_at_the_most(api: Api, opening: bytes, closing: bytes) -> None:
    inner = 99
    body = b'{"x":' + opening * inner + b"1" + closing * inner + b"}"
    assert (await api("POST", MESSAGES, body, api.bearer)).status == 202
    deeper = b'{"x":' + opening * (inner + 1) + b"1" + closing * (inner + 1) + b"}"
    assert (await api("POST", MESSAGES, deeper, api.bearer)).error == (400, "INVALID_PARAMETER")


async def test_a_wide_message_is_not_a_deep_one(api: Api) -> None:
    body = b'{"x": [' + b",".join([b"{}"] * 5000) + b"]}"
    assert (await api("POST", MESSAGES, body, api.bearer)).status == 202


async def test_half_a_body_is_not_a_message(api: Api) -> None:
    before = api.rows()
    answer = await api("POST", MESSAGES, [b'{"a": 1}', None], api.bearer)
    assert answer.error == (400, "INVALID_PARAMETER")
    assert api.rows() == before


async def test_publishing_needs_its_scope_and_its_account(api: Api) -> None:
    elsewhere = await client_of(api, accounts=["mine"])
    without = await client_of(api, scopes=("callbacks", "operate"))
    before = api.rows()
    assert (await api("POST", MESSAGES, MESSAGE, without)).error == (403, "INVALID_ACCESS")
    theirs = await api("POST", MESSAGES, MESSAGE, elsewhere)
    assert theirs == await api("POST", "/v1/accounts/nowhere/messages", MESSAGE, elsewhere)
    assert theirs.error == (404, "NOT_FOUND")
    assert api.rows() == before


async def test_an_operator_reads_what_became_of_a_message(api: Api) -> None:
    headers = {**api.bearer, "Ordering-Key": "device-1"}
    published = (await api("POST", MESSAGES, MESSAGE, headers)).json
    answer = await api("GET", f"/v1/messages/{published['id']}", headers=api.bearer)
    assert answer.json == {
        "id": published["id"],
        "account": ACCOUNT,
        "type": "upgradeProgress",
        "orderingKey": "device-1",
        "size": len(MESSAGE),
        "sha256": hashlib.sha256(MESSAGE).hexdigest(),
        "acceptedAt": "2025-06-15T15:06:40Z",
        "deliveries": [
            {
                "lane": ACCOUNT,
                "state": "pending",
                "attempts": 0,
                "due": "2025-06-15T15:06:40Z",
                "expiresAt": None,
                "lastOutcome": None,
            }
        ],
    }
    assert msgspec.json.decode(answer.body, type=MessageState).id == published["id"]


async def test_a_message_shows_its_expiry_unless_its_time_to_live_stands_still(api: Api) -> None:
    published = (await api("POST", MESSAGES, MESSAGE, api.bearer)).json["id"]

    async def expires() -> str | None:
        answer = await api("GET", f"/v1/messages/{published}", headers=api.bearer)
        when: str | None = answer.json["deliveries"][0]["expiresAt"]
        return when

    assert await expires() is None
    api.clock.advance(600)
    await api("POST", CALLBACK, msgspec.json.encode({"url": URL}), api.both)
    api.clock.advance(60)
    assert await expires() == "2025-06-22T15:16:40Z"
    await api("POST", f"/v1/accounts/{ACCOUNT}/pause", b"", api.bearer)
    assert await expires() is None
    api.clock.advance(60)
    await api("POST", f"/v1/accounts/{ACCOUNT}/resume", b"", api.bearer)
    assert await expires() == "2025-06-22T15:17:40Z"
    await settle(api, "delivered")
    assert await expires() is None


async def test_an_operator_reads_every_attempt(api: Api) -> None:
    await api("POST", CALLBACK, msgspec.json.encode({"url": URL}), api.both)
    published = (await api("POST", MESSAGES, MESSAGE, api.bearer)).json
    await settle(api, "dead")
    answer = (await api("GET", f"/v1/messages/{published['id']}/attempts", headers=api.bearer)).json
    assert answer == {
        "attempts": [
            {
                "messageId": published["id"],
                "number": 1,
                "startedAt": "2025-06-15T15:06:40Z",
                "url": URL,
                "outcome": "refused",
                "httpStatus": 422,
                "errorCode": "HTTP_422",
                "fix": "accept the message",
                "phases": {"dns": 1.5, "connect": None, "tls": None, "firstByte": 2.0, "total": 4.25},
                "excerpt": "no",
                "resent": False,
            }
        ]
    }
    state = (await api("GET", f"/v1/messages/{published['id']}", headers=api.bearer)).json["deliveries"][0]
    assert (state["state"], state["attempts"], state["due"], state["lastOutcome"]) == ("dead", 1, None, "refused")


async def settle(api: Api, state: DeliveryState) -> None:
    """Let the one message that is due come to this end, as a dispatcher would."""
    [lease] = await api.store.lease(1, 30)
    [delivery] = await api.store.fetch(lease, 1)
    attempt = Attempt(
        started_at=api.clock.now,
        url=lease.url,
        outcome="refused",
        status=422,
        error_code="HTTP_422",
        fix="accept the message",
        phases={"dns": 1.5, "firstByte": 2.0, "total": 4.25},
        excerpt="no",
    )
    settlement = Settlement(delivery=delivery, state=state, attempts=1, strikes=0, attempt=attempt)
    await api.store.settle(lease, [settlement], LaneVerdict(health=Health()), keep=0)


@pytest.mark.parametrize("message_id", ["x", "", "%FF", "%00", "x" * 5000, "%F0%9F%98%80"])
@pytest.mark.parametrize("part", ["", "/body", "/attempts", "/why"])
async def test_a_missing_message(api: Api, message_id: str, part: str) -> None:
    answer = await api("GET", f"/v1/messages/{message_id}{part}", headers=api.bearer)
    assert answer.error == (404, "NOT_FOUND")


@pytest.mark.parametrize("part", ["", "/body", "/attempts", "/why"])
async def test_a_message_of_another_account_looks_missing(api: Api, part: str) -> None:
    published = (await api("POST", MESSAGES, MESSAGE, api.bearer)).json
    elsewhere = await client_of(api, accounts=["mine"])
    theirs = await api("GET", f"/v1/messages/{published['id']}{part}", headers=elsewhere)
    assert theirs == await api("GET", f"/v1/messages/x{part}", headers=elsewhere)
    without = await client_of(api, scopes=("callbacks", "publish"))
    denied = await api("GET", f"/v1/messages/{published['id']}{part}", headers=without)
    assert denied.error == (403, "INVALID_ACCESS")

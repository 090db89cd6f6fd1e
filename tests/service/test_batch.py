"""Publishing many messages in one request."""

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from fotahook.service import Settings, build_app
from fotahook.store.records import StoreFull
from tests.turns import counted_turns

from .conftest import ACCOUNT, MESSAGES, Answer, Api, client_of
from .serving import SECRET_KEY

BATCH = "/v1/messages"


def line(message: bytes = b"{}", **members: object) -> bytes:
    fields = {"account": ACCOUNT, "message": msgspec.Raw(message), **members}
    return msgspec.json.encode(fields) + b"\n"


def lines(answer: Answer) -> list[Any]:
    assert (answer.status, answer.header("content-type")) == (200, "application/x-ndjson"), answer
    assert answer.body.endswith(b"\n")
    return [msgspec.json.decode(one) for one in answer.body.splitlines()]


def codes(answer: Answer) -> list[str | None]:
    """The errorCode of each line, None where it was accepted."""
    return [one.get("errorCode") for one in lines(answer)]


async def stored(api: Api, message_id: str) -> bytes | None:
    message = await api.store.message(message_id)
    assert message is not None
    return message.body


async def test_each_line_is_a_message_in_order(api: Api) -> None:
    body = line(b'{"n": 1}') + line(b'{"type": "upgradeProgress"}', account="other", orderingKey="device-1")
    first, second = lines(await api("POST", BATCH, body, api.bearer))
    assert (first["duplicate"], second["duplicate"]) == (False, False)
    assert first["id"] < second["id"]
    message = await api.store.message(second["id"])
    assert message is not None
    assert (message.account, message.type, message.ordering_key) == ("other", "upgradeProgress", "device-1")


ODD = [
    b'{ "a" : 1.50,\t"b":1e2 }',
    b'{"\\u00e4": "\xc3\xa4\\/"}',
    b'{"a":' + b"9" * 2000 + b"}",
    b'{"x": "\\ud800", "message": {"x": "\\uDFFF"}}',
    b'{"\\\\ud800": "\\ud83d\\ude00", "y": "\\udc00"}',
]


async def test_the_bytes_of_a_message_are_taken_exactly_as_they_stand(api: Api) -> None:
    body = b"".join(b'  {"message" :%b , "account":"%b"}\r\n' % (one, ACCOUNT.encode()) for one in ODD)
    answers = lines(await api("POST", BATCH, body, api.bearer))
    assert [await stored(api, one["id"]) for one in answers] == ODD


@pytest.mark.parametrize("size", [1, 7, 64])
async def test_lines_are_found_wherever_the_body_is_cut(api: Api, size: int) -> None:
    body = b"".join(line(b'{"number": %d}' % number) for number in range(20))
    chunks = [body[at : at + size] for at in range(0, len(body), size)]
    answers = lines(await api("POST", BATCH, chunks, api.bearer))
    assert [await stored(api, one["id"]) for one in answers] == [b'{"number": %d}' % number for number in range(20)]


async def test_the_last_line_needs_no_line_feed(api: Api) -> None:
    assert codes(await api("POST", BATCH, line() + line().rstrip(), api.bearer)) == [None, None]
    assert codes(await api("POST", BATCH, line() + b" ", api.bearer)) == [None]


BAD_LINES: dict[str, bytes] = {
    "blank": b"",
    "not JSON": b"nonsense",
    "an array": b"[]",
    "no account": b'{"message": {}}',
    "no message": b'{"account": "a"}',
    "an account that is none": b'{"account": "a/b", "message": {}}',
    "a message that is no object": b'{"account": "a", "message": [1]}',
    "a message in a string": b'{"account": "a", "message": "{}"}',
    "not UTF-8": b'{"account": "a", "message": {"x": "\xff"}}',
    "nested too deeply": b'{"account": "a", "message": {"x": ' + b"[" * 100 + b"]" * 100 + b"}}",
    "nested beyond reading": b'{"account": "a", "message": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    "nested beyond reading, elsewhere": b'{"account": ' + b"[" * 5000 + b"]" * 5000 + b', "message": {}}',
    "half a surrogate pair in the account": b'{"account": "\\ud800", "message": {}}',
    "half a surrogate pair in a key": b'{"account": "a", "message": {}, "orderingKey": "\\udead"}',
    "half a surrogate pair and more that is wrong": b'{"account": "a", "message": {"x": "\\ud800"}, "y": 1}',
    "a key with a space": b'{"account": "a", "message": {}, "orderingKey": "a b"}',
    "an empty key": b'{"account": "a", "message": {}, "idempotencyKey": ""}',
    "a key that is a number": b'{"account": "a", "message": {}, "idempotencyKey": 1}',
    "a key misspelt": b'{"account": "a", "message": {}, "orderingkey": "k"}',
    "two values": b'{"account": "a", "message": {}} {}',
}


@pytest.mark.parametrize("bad", BAD_LINES.values(), ids=BAD_LINES)
async def test_an_invalid_line_does_not_affect_the_others(api: Api, bad: bytes) -> None:
    body = line(b'{"n": 1}') + bad + b"\n" + line(b'{"n": 2}')
    answer = await api("POST", BATCH, body, api.bearer)
    assert codes(answer) == [None, "INVALID_PARAMETER", None]
    assert set(lines(answer)[1]) == {"errorCode", "errorMessage"}
    account = (await api("GET", f"/v1/accounts/{ACCOUNT}", headers=api.bearer)).json
    assert account["backlog"]["pending"] == 2


async def test_a_batch_of_invalid_lines_writes_nothing(api: Api) -> None:
    before = api.rows()
    assert codes(await api("POST", BATCH, b"x\ny\n", api.bearer)) == ["INVALID_PARAMETER"] * 2
    assert api.rows() == before


async def test_a_message_of_a_batch_is_as_large_as_any_and_no_larger(api: Api) -> None:
    fits = b'{"x":"%b"}' % (b"y" * (256 * 1024 - 8))
    answer = await api("POST", BATCH, line(fits) + line(fits.replace(b":", b": ")), api.bearer)
    assert codes(answer) == [None, "TOO_LARGE"]


async def test_an_idempotency_key_counts_within_a_batch_and_beyond(api: Api) -> None:
    headers = {**api.bearer, "Idempotency-Key": "k"}
    known = (await api("POST", MESSAGES, b"{}", headers)).json["id"]
    body = line(idempotencyKey="k") + line(b"{ }", idempotencyKey="k") + line(idempotencyKey="l") * 2
    same, other, fresh, again = lines(await api("POST", BATCH, body, api.bearer))
    assert same == {"id": known, "duplicate": True}
    assert other["errorCode"] == "CONFLICT"
    assert (fresh["duplicate"], again) == (False, {"id": fresh["id"], "duplicate": True})


async def test_an_account_that_is_not_granted_looks_missing(api: Api) -> None:
    mine = await client_of(api, accounts=["mine"])
    answer = lines(await api("POST", BATCH, line() + line(account="nowhere") + line(account="mine"), mine))
    assert answer[0] == answer[1]
    assert answer[0]["errorCode"] == "NOT_FOUND"
    assert not answer[2]["duplicate"]


async def test_a_batch_needs_a_token_and_its_scope(api: Api) -> None:
    without = await client_of(api, scopes=("callbacks", "operate"))
    before = api.rows()
    assert (await api("POST", BATCH, line())).error == (401, "MISSING_CREDENTIALS")
    assert (await api("POST", BATCH, line(), without)).error == (403, "INVALID_ACCESS")
    assert api.rows() == before


@pytest.mark.parametrize("body", [b"", b"  ", [b"", b" "]])
async def test_an_empty_batch_is_refused(api: Api, body: bytes | Sequence[bytes]) -> None:
    assert (await api("POST", BATCH, body, api.bearer)).error == (400, "INVALID_PARAMETER")


async def test_an_interrupted_batch_stores_nothing(api: Api) -> None:
    before = api.rows()
    assert (await api("POST", BATCH, [line(), line()[:9], None], api.bearer)).error == (400, "INVALID_PARAMETER")
    assert api.rows() == before


async def test_a_batch_has_10000_lines_at_the_most(api: Api) -> None:
    most = line() * 10_000
    assert codes(await api("POST", BATCH, most, api.bearer)) == [None] * 10_000
    before = api.rows()["lanes"]
    for more in (most + line(), most + line().rstrip(), most + b"\n"):
        assert (await api("POST", BATCH, more, api.bearer)).error == (413, "TOO_LARGE")
    assert api.rows()["lanes"] == before


async def test_a_batch_over_the_limit_is_not_read_further(api: Api) -> None:
    chunks = [b"x" * 65536 for _ in range(1000)]
    assert (await api("POST", BATCH, chunks, api.bearer)).error == (413, "TOO_LARGE")
    declared = {**api.bearer, "Content-Length": str(16 * 1024 * 1024 + 1)}
    assert (await api("POST", BATCH, b"", declared)).error == (413, "TOO_LARGE")


async def test_batches_share_a_memory_budget(api: Api) -> None:
    api.app = build_app(api.store, Settings(secret_key=SECRET_KEY, clock=api.clock, body_memory=200))
    assert (await api("POST", BATCH, line(b'{"x":"%b"}' % (b"y" * 100)), api.bearer)).error == (503, "BUSY")
    for body in (b"x" * 100, b"x" * 101, b"x" * 100):
        answer = await api("POST", BATCH, body, api.bearer)
        assert answer.status == (200 if len(body) == 100 else 503)
    assert (await api("POST", BATCH, b"x" * 101, api.bearer)).header("retry-after") == "1"
    await asyncio.gather(*(api("POST", BATCH, [b"x" * 60, None], api.bearer) for _ in range(5)))
    assert (await api("POST", BATCH, b"x" * 100, api.bearer)).status == 200


async def test_stalled_batches_of_one_client_leave_memory_for_another(api: Api) -> None:
    api.app = build_app(api.store, Settings(secret_key=SECRET_KEY, clock=api.clock, body_memory=4_000_000))
    other = await client_of(api)
    stalled = [asyncio.create_task(api("POST", BATCH, [b"x" * 1_000_000, ...], api.bearer)) for _ in range(4)]
    # Two of them are as much as one client gets.
    refused, waiting = await asyncio.wait(stalled, return_when=asyncio.FIRST_COMPLETED)
    while len(refused) < 2:
        refused, waiting = await asyncio.wait(stalled, timeout=0.01)
    assert {task.result().error for task in refused} == {(503, "BUSY")}
    for _ in range(40):
        assert (await api("POST", BATCH, line(b'{"x":"%b"}' % (b"y" * 200_000)) * 4, other)).status == 200
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)


async def test_a_full_store_refuses_the_whole_batch(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    async def full(*_: object) -> None:
        raise StoreFull("full")

    monkeypatch.setattr(api.store, "accept", full)
    assert (await api("POST", BATCH, line() + b"x\n", api.bearer)).error == (507, "STORE_FULL")


async def test_other_requests_get_their_turns_while_a_batch_is_parsed(api: Api) -> None:
    with counted_turns() as turns:
        # Every line is refused, so that nothing waits for the store.
        assert codes(await api("POST", BATCH, line(b"1") * 1000, api.bearer)) == ["INVALID_PARAMETER"] * 1000
        assert turns() >= 1000 // 32

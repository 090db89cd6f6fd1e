"""OperatorClient and AsyncOperatorClient against the service itself."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec.structs import asdict

from fotahook.client import AsyncOperatorClient, OperatorClient
from fotahook.contract.calls import BATCH_MESSAGES, read_batch
from fotahook.contract.errors import ApiException, NotFound
from fotahook.contract.operator import BatchMessage, Published, Refused
from fotahook.service.credentials import DEV_CLIENT

ACCOUNT = "0000123456-00001"


class Operator:
    """A client of either form, called in the same way."""

    def __init__(self, client: OperatorClient | AsyncOperatorClient) -> None:
        self.client = client

    async def __call__(self, name: str, *args: object, **kwargs: object) -> Any:
        method = getattr(self.client, name)
        if isinstance(self.client, AsyncOperatorClient):
            return await method(*args, **kwargs)
        return await asyncio.to_thread(method, *args, **kwargs)


@pytest.fixture(params=["sync", "async"])
async def call(request: pytest.FixtureRequest, base_url: str) -> AsyncIterator[Operator]:
    if request.param == "sync":
        with OperatorClient(base_url, *DEV_CLIENT, proxy="") as client:
            yield Operator(client)
    else:
        async with AsyncOperatorClient(base_url, *DEV_CLIENT, proxy="") as client:
            yield Operator(client)


async def page_of(call: Operator, name: str, *args: Any, **kwargs: Any) -> Any:
    """The first page of a list."""
    if isinstance(call.client, OperatorClient):
        return await asyncio.to_thread(getattr(call.client, name)(*args, **kwargs).page)
    return await getattr(call.client, name)(*args, **kwargs).page()


async def all_of(call: Operator, name: str, *args: Any, **kwargs: Any) -> list[Any]:
    """All items of a list."""
    found = getattr(call.client, name)(*args, **kwargs)
    if isinstance(call.client, OperatorClient):
        return await asyncio.to_thread(list, found)
    return [item async for item in found]


async def test_a_batch_is_answered_message_by_message(call: Operator) -> None:
    result = await call(
        "publish_batch",
        [
            BatchMessage(ACCOUNT, {"type": "x", "\u00e4": 1}, ordering_key="k"),
            BatchMessage("a/b", b"{}"),
            BatchMessage(ACCOUNT, b'{ "y":\t1.50 }', idempotency_key="i"),
            BatchMessage(ACCOUNT, b'{ "y":\t1.50 }', idempotency_key="i"),
            BatchMessage(ACCOUNT, b"[]"),
        ],
    )
    first, account, second, again, array = result
    assert isinstance(first, Published)
    assert again == Published(second.id, True)
    assert account == Refused("INVALID_PARAMETER", "Invalid account name format")
    assert isinstance(array, Refused)
    message = await call("message", first.id)
    assert (message.type, message.ordering_key) == ("x", "k")
    assert (await call("message", second.id)).size == len(b'{ "y":\t1.50 }')


async def test_a_message_is_read_back_byte_for_byte(call: Operator) -> None:
    body = b'{ "y":\t1.50,\n"\xc3\xa4": "\\ud800" }\n'
    published = await call("publish", ACCOUNT, body)
    assert await call("message_body", published.id) == body
    with pytest.raises(NotFound):
        await call("message_body", "x")


async def test_messages_without_an_idempotency_key_are_distinct(call: Operator) -> None:
    first, second = await call("publish_batch", [BatchMessage(ACCOUNT, {})] * 2)
    assert first.id != second.id


async def test_a_whole_batch_is_read(call: Operator) -> None:
    result = await call("publish_batch", [BatchMessage("a/b", b"{}")] * BATCH_MESSAGES)
    assert len(result) == BATCH_MESSAGES


async def test_accounts_and_messages_are_listed(call: Operator) -> None:
    published = [(await call("publish", account, b'{"type": "x y"}', ordering_key="k+1")).id for account in ("a", "b")]
    page = await page_of(call, "accounts", state="trouble", limit=1)
    assert [account.account for account in page.accounts] == ["a"]
    assert [account.account for account in await all_of(call, "accounts", limit=1)] == ["a", "b"]
    page = await page_of(call, "accounts", cursor=page.cursor)
    assert [account.account for account in page.accounts] == ["b"]
    assert page.cursor is None
    span = {"since": datetime(2020, 1, 1, tzinfo=UTC), "until": datetime(2099, 1, 1, tzinfo=UTC)}
    wanted = {"state": "pending", "message_type": "x y", "ordering_key": "k+1", "limit": 10, **span}
    assert [message.id for message in await all_of(call, "messages", "a", **wanted)] == published[:1]
    assert await all_of(call, "messages", "a", until=span["since"]) == []


async def test_an_account_is_paused_and_resumed_and_a_message_says_why(call: Operator) -> None:
    published = await call("publish", ACCOUNT, b"{}")
    assert [reason.code for reason in (await call("why", published.id)).reasons] == ["held"]
    assert (await call("pause", ACCOUNT)).lane.state == "paused"
    result = await call("why", published.id)
    assert (result.state, [reason.code for reason in result.reasons]) == ("pending", ["paused"])
    assert (await call("resume", ACCOUNT)).lane.state == "held"


async def test_the_given_limits_of_an_account_are_changed(call: Operator) -> None:
    own = {"in_flight": 3, "per_second": 0.5, "pending_messages": 10, "pending_bytes": 0, "publishes_per_second": 7}
    limits = (await call("set_limits", ACCOUNT, **own, changes_per_hour=99)).limits
    assert asdict(limits) == {**own, "changes_per_hour": 99}
    limits = (await call("set_limits", ACCOUNT, pending_messages=None)).limits
    assert asdict(limits) == {**own, "changes_per_hour": 99, "pending_messages": None}
    with pytest.raises(ApiException, match="changesPerHour"):
        await call("set_limits", ACCOUNT, changes_per_hour=-1)


async def test_the_audit_log_is_read_in_pages(call: Operator) -> None:
    await call("pause", ACCOUNT)
    await call("resume", ACCOUNT)
    newest = await call("audit", account=ACCOUNT, limit=1)
    (before,) = (await call("audit", account=ACCOUNT, cursor=newest.cursor, limit=1)).entries
    assert [newest.entries[0].action, before.action] == ["account.resume", "account.pause"]


async def test_a_search_finds_messages_by_type_state_and_time(call: Operator) -> None:
    published = await call("publish", ACCOUNT, b'{"type": "a b"}')
    assert [one.id for one in (await call("search", published.id)).messages] == [published.id]
    found = await call("search", f"{ACCOUNT} state:pending since:1h")
    assert ([one.id for one in found.messages], [one.account for one in found.accounts]) == ([published.id], [ACCOUNT])
    with pytest.raises(ApiException, match="since:"):
        await call("search", "since:yesterday")


async def test_messages_are_redelivered(call: Operator) -> None:
    published = await call("publish", ACCOUNT, b"{}")
    with pytest.raises(ApiException) as refused:
        await call("redeliver", published.id)
    assert (refused.value.status_code, refused.value.error_code) == (409, "CONFLICT")
    copy = await call("redeliver", published.id, as_new=True, max_retries=1)
    assert copy.id > published.id
    with pytest.raises(NotFound):
        await call("redeliver", "x")
    assert await call("redeliver_all", ACCOUNT, "dead", since=datetime(2020, 1, 1, tzinfo=UTC), dry_run=True) == 0
    assert await call("redeliver_all", ACCOUNT, "dead") == 0


NO_BATCH: list[tuple[type[Exception], object]] = [
    (ValueError, []),
    (ValueError, [BatchMessage("a", b"{}")] * (BATCH_MESSAGES + 1)),
    (ValueError, [BatchMessage("a", {"x": "y" * 4_000_000})] * 5),
    (ValueError, [BatchMessage("a", b'{\n"x": 1}')]),
    (ValueError, [BatchMessage("a", b'{}, "account": "b"')]),
    (ValueError, [BatchMessage("a", b"")]),
    (ValueError, [BatchMessage("a", b"{}", ordering_key="a b")]),
    (ValueError, [BatchMessage("a", b"{}", idempotency_key="")]),
    (TypeError, [BatchMessage(1, b"{}")]),  # type: ignore[arg-type]  # what a caller may do all the same
    (TypeError, [BatchMessage("a", "{}")]),  # type: ignore[arg-type]
    (TypeError, [b"{}"]),
]


@pytest.mark.parametrize(("error", "messages"), NO_BATCH)
async def test_an_invalid_batch_is_not_sent(error: type[Exception], messages: object) -> None:
    with OperatorClient("http://127.0.0.1:1", "id", "secret") as client, pytest.raises(error):
        client.publish_batch(messages)  # type: ignore[arg-type]


def test_times_need_a_zone() -> None:
    with OperatorClient("http://127.0.0.1:1", "id", "secret") as client:
        with pytest.raises(ValueError, match="since needs a time zone"):
            client.messages("a", since=datetime(2026, 1, 1))  # noqa: DTZ001
        with pytest.raises(TypeError, match="until must be a datetime"):
            client.redeliver_all("a", "dead", until="2026-01-01")  # type: ignore[arg-type]


def test_a_batch_must_have_one_result_for_each_message() -> None:
    one = b'{"id":"x","duplicate":false}\n'
    assert read_batch(2, one + one) == [Published("x", False)] * 2
    for body in (b"", one, one * 3):
        with pytest.raises(ValueError, match="results for 2 messages"):
            read_batch(2, body)

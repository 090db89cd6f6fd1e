"""Lists of accounts and of messages: filters and pagination."""

import msgspec
import pytest

from fotahook.contract.operator import AccountPage, MessagePage
from fotahook.service.operator import messages
from fotahook.store.records import SCAN_LIMIT, Attempt, DeliveryState, Health, LaneVerdict, NewMessage, Settlement

from .conftest import ACCOUNT, CALLBACK, MESSAGES, URL, Api, client_of

ACCOUNTS = "/v1/accounts"


async def names(api: Api, query: str = "", headers: dict[str, str] | None = None) -> list[str]:
    answer = await api("GET", f"{ACCOUNTS}?{query}", headers=api.bearer if headers is None else headers)
    assert answer.status == 200, answer
    return [one.account for one in msgspec.json.decode(answer.body, type=AccountPage).accounts]


async def publish(api: Api, body: bytes = b"{}", account: str = ACCOUNT, key: str | None = None) -> str:
    headers = api.bearer if key is None else {**api.bearer, "Ordering-Key": key}
    answer = await api("POST", f"/v1/accounts/{account}/messages", body, headers)
    message_id: str = answer.json["id"]
    return message_id


async def listed(api: Api, query: str = "") -> list[str]:
    answer = await api("GET", f"{MESSAGES}?{query}", headers=api.bearer)
    assert answer.status == 200, answer
    return [one.id for one in msgspec.json.decode(answer.body, type=MessagePage).messages]


async def settle_all(api: Api, state: DeliveryState) -> None:
    attempt = Attempt(started_at=api.clock.now, url=URL, outcome=state)
    while leases := await api.store.lease(1, 30):
        found = await api.store.fetch(leases[0], 2000)
        settlements = [Settlement(delivery=one, state=state, attempts=1, strikes=0, attempt=attempt) for one in found]
        await api.store.settle(leases[0], settlements, LaneVerdict(health=Health()), keep=0)


# Accounts


async def test_there_are_no_accounts_at_first(api: Api) -> None:
    assert (await api("GET", ACCOUNTS, headers=api.bearer)).json == {"accounts": [], "cursor": None}


async def test_a_listed_account_equals_a_single_one(api: Api) -> None:
    await api("POST", CALLBACK, msgspec.json.encode({"url": URL}), api.both)
    await publish(api)
    single = await api("GET", f"{ACCOUNTS}/{ACCOUNT}", headers=api.bearer)
    assert (await api("GET", ACCOUNTS, headers=api.bearer)).json["accounts"] == [single.json]


async def test_accounts_are_paginated(api: Api) -> None:
    wanted = ["a", "b", "c", "d", "\u00e4"]
    for account in ("d", "b", "%C3%A4", "a", "c"):
        await publish(api, account=account)
    found, cursor = [], ""
    while cursor is not None:
        page = (await api("GET", f"{ACCOUNTS}?limit=2&cursor={cursor}", headers=api.bearer)).json
        found += [one["account"] for one in page["accounts"]]
        cursor = page["cursor"]
    assert found == wanted


async def test_accounts_in_trouble_are_found(api: Api) -> None:
    await api("POST", CALLBACK, msgspec.json.encode({"url": URL}), api.both)
    await publish(api)
    await publish(api, account="held")
    assert await names(api, "state=trouble") == ["held"]
    [lease] = await api.store.lease(1, 30)
    verdict = LaneVerdict(health=Health(failures=3, reason="dns_error"), wait=60)
    await api.store.settle(lease, [], verdict, keep=0)
    assert await names(api, "state=trouble") == [ACCOUNT, "held"]
    assert await names(api, "state=waiting") == [ACCOUNT]
    assert await names(api, "state=open") == []


async def test_only_the_callers_own_accounts_are_listed(api: Api) -> None:
    for account in ("a", "b", "c"):
        await publish(api, account=account)
    mine = await client_of(api, accounts=["c", "a", "never used"])
    assert await names(api, headers=mine) == ["a", "c"]
    assert await names(api, headers=await client_of(api, accounts=[])) == []


async def test_listing_accounts_needs_its_scope(api: Api) -> None:
    without = await client_of(api, scopes=("callbacks", "publish"))
    assert (await api("GET", ACCOUNTS, headers=without)).error == (403, "INVALID_ACCESS")


# Messages


async def test_messages_are_listed_newest_first_and_equal_single_ones(api: Api) -> None:
    first = await publish(api, b'{"type": "x"}', key="k")
    second = await publish(api)
    answer = await api("GET", MESSAGES, headers=api.bearer)
    single = await api("GET", f"/v1/messages/{first}", headers=api.bearer)
    assert [one["id"] for one in answer.json["messages"]] == [second, first]
    assert answer.json["messages"][1] == single.json
    assert answer.json["cursor"] is None


async def test_messages_are_filtered_by_the_query(api: Api) -> None:
    await api("POST", CALLBACK, msgspec.json.encode({"url": URL}), api.both)
    dead = await publish(api, b'{"type": "upgrade progress"}')
    await settle_all(api, "dead")
    api.clock.advance(60)
    pending = await publish(api, key="device+1")
    assert await listed(api, "state=dead") == [dead]
    assert await listed(api, "state=pending&type=&key=") == [pending]
    assert await listed(api, "state=delivered") == []
    assert await listed(api, "type=upgrade+progress") == [dead]
    assert await listed(api, "key=device%2B1") == [pending]
    assert await listed(api, "since=2025-06-15T15:07:40Z") == [pending]
    assert await listed(api, "until=2025-06-15T17:07:40%2B02:00") == [dead]
    assert await listed(api, "since=2025-06-15T15:06:40Z&until=2025-06-15T15:06:40.5Z") == [dead]


async def test_messages_are_paginated(api: Api) -> None:
    wanted = [await publish(api) for _ in range(5)]
    found, cursor = [], ""
    while cursor is not None:
        page = (await api("GET", f"{MESSAGES}?limit=2&cursor={cursor}", headers=api.bearer)).json
        await publish(api, account="other")
        found += [one["id"] for one in page["messages"]]
        cursor = page["cursor"]
    assert found == wanted[::-1]


async def test_a_rare_message_is_found_behind_many_others(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    rare = await publish(api, b'{"type": "rare"}')
    await api.store.accept([NewMessage(account=ACCOUNT, body=b"{}") for _ in range(SCAN_LIMIT)])
    assert await listed(api, "type=rare") == [rare]
    monkeypatch.setattr(messages, "READS_PER_PAGE", 1)
    page = (await api("GET", f"{MESSAGES}?type=rare", headers=api.bearer)).json
    assert page["messages"] == []
    assert await listed(api, f"type=rare&cursor={page['cursor']}") == [rare]


# What is asked


BAD_QUERIES = {
    "a state that is none": "state=gone",
    "no number": "limit=many",
    "no page": "limit=0",
    "too large a page": "limit=201",
    "a name misspelt": "stat=dead",
    "a parameter twice": "limit=1&limit=2",
    "not UTF-8": "cursor=%FF",
    "many parameters": "&".join(f"a{number}=1" for number in range(30)),
    "no cursor": "cursor=%20",
    "half a cursor": "cursor=a",
    "a cursor of nothing but NUL": "cursor=AAAA",
    "a cursor that is not ASCII": "cursor=%C3%A4",
    "a cursor that is no text": "cursor=_-_-",
}


@pytest.mark.parametrize("query", BAD_QUERIES.values(), ids=BAD_QUERIES)
@pytest.mark.parametrize("path", [ACCOUNTS, MESSAGES])
async def test_an_invalid_query(api: Api, path: str, query: str) -> None:
    assert (await api("GET", f"{path}?{query}", headers=api.bearer)).error == (400, "INVALID_PARAMETER")


@pytest.mark.parametrize(
    "query", ["since=yesterday", "since=2025-06-15", "until=2025-06-15T15:06:40", "key=a%20b", "type=%00", "cursor=YQ"]
)
async def test_an_invalid_messages_query(api: Api, query: str) -> None:
    assert (await api("GET", f"{MESSAGES}?{query}", headers=api.bearer)).error == (400, "INVALID_PARAMETER")


async def test_a_query_must_be_ascii(api: Api) -> None:
    answer = await api("GET", f"{MESSAGES}?key=\u00e4", headers=api.bearer)
    assert answer.error == (400, "INVALID_PARAMETER")

"""Redelivery of one message and of many."""

import msgspec
import pytest

from fotahook.contract.operator import Redelivered, Redeliveries
from fotahook.store.records import Retention

from .conftest import ACCOUNT, CALLBACK, MESSAGES, URL, Answer, Api, client_of
from .test_listing import publish, settle_all

MANY = f"/v1/accounts/{ACCOUNT}/redeliver"


@pytest.fixture
async def dead(api: Api) -> str:
    """The id of a message that was given up."""
    await api("POST", CALLBACK, msgspec.json.encode({"url": URL}), api.both)
    message_id = await publish(api)
    await settle_all(api, "dead")
    return message_id


async def redeliver(api: Api, message_id: str, body: bytes = b"") -> Answer:
    return await api("POST", f"/v1/messages/{message_id}/redeliver", body, api.bearer)


async def redeliver_many(api: Api, **wanted: object) -> Answer:
    return await api("POST", MANY, msgspec.json.encode(wanted), api.bearer)


async def state(api: Api, message_id: str) -> str:
    message = (await api("GET", f"/v1/messages/{message_id}", headers=api.bearer)).json
    text: str = message["deliveries"][0]["state"]
    return text


@pytest.mark.parametrize("body", [b"", b" ", b"{}", b'{"asNew": false}'])
async def test_a_settled_message_is_redelivered_under_its_id(api: Api, dead: str, body: bytes) -> None:
    answer = await redeliver(api, dead, body)
    assert (answer.status, answer.json) == (202, {"id": dead})
    assert await state(api, dead) == "pending"


async def test_a_message_asked_for_as_new_gets_another_id(api: Api, dead: str) -> None:
    answer = await redeliver(api, dead, b'{"asNew": true}')
    copy = msgspec.json.decode(answer.body, type=Redelivered).id
    assert (answer.status, copy > dead) == (202, True)
    assert (await state(api, dead), await state(api, copy)) == ("dead", "pending")


async def test_a_pending_message_is_sent_anyway(api: Api, dead: str) -> None:
    await redeliver(api, dead)
    assert (await redeliver(api, dead)).error == (409, "CONFLICT")


async def test_a_pruned_message_is_not_redelivered(api: Api, dead: str) -> None:
    api.clock.advance(60)
    while await api.store.tidy(Retention(seconds=1)):
        pass
    assert (await redeliver(api, dead)).error == (410, "GONE")
    assert (await redeliver(api, dead, b'{"asNew": true}')).error == (410, "GONE")
    assert (await api("GET", f"/v1/messages/{dead}/body", headers=api.bearer)).error == (410, "GONE")


@pytest.mark.parametrize("body", [b"null", b"[]", b"x", b'{"asNew": 1}', b'{"asnew": true}'])
async def test_an_invalid_redelivery(api: Api, dead: str, body: bytes) -> None:
    assert (await redeliver(api, dead, body)).error == (400, "INVALID_PARAMETER")
    assert await state(api, dead) == "dead"


async def test_redelivering_needs_its_scope_and_its_account(api: Api, dead: str) -> None:
    elsewhere = await client_of(api, accounts=["mine"])
    without = await client_of(api, scopes=("callbacks", "publish"))
    for message_id in (dead, "x"):
        theirs = await api("POST", f"/v1/messages/{message_id}/redeliver", b"", elsewhere)
        assert theirs.error == (404, "NOT_FOUND")
    assert (await api("POST", f"/v1/messages/{dead}/redeliver", b"", without)).error == (403, "INVALID_ACCESS")
    assert await state(api, dead) == "dead"


async def test_many_are_counted_first_and_then_sent(api: Api, dead: str) -> None:
    counted = await redeliver_many(api, state="dead", dryRun=True)
    assert (counted.status, counted.json) == (200, {"count": 1})
    assert not await api.store.tidy(Retention())
    wished = await redeliver_many(api, state="dead")
    assert (wished.status, msgspec.json.decode(wished.body, type=Redeliveries).count) == (202, 1)
    assert await api.store.tidy(Retention())
    assert await state(api, dead) == "pending"


async def test_many_are_chosen_by_state_and_by_time(api: Api, dead: str) -> None:
    assert (await redeliver_many(api, state="delivered", dryRun=True)).json == {"count": 0}
    early, late = "2025-06-15T15:06:40Z", "2025-06-15T15:06:41Z"
    assert (await redeliver_many(api, state="dead", since=early, until=late, dryRun=True)).json == {"count": 1}
    assert (await redeliver_many(api, state="dead", since=late, dryRun=True)).json == {"count": 0}
    assert (await redeliver_many(api, state="dead", until=early, dryRun=True)).json == {"count": 0}


@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"state": "pending"},
        {"state": None},
        {"state": "dead", "since": "yesterday"},
        {"state": "dead", "until": "2025-06-15T15:06:40"},
        {"state": "dead", "dryRun": "yes"},
        {"state": "dead", "dryrun": True},
    ],
)
async def test_an_invalid_redelivery_of_many(api: Api, dead: str, wanted: dict[str, object]) -> None:
    assert (await redeliver_many(api, **wanted)).error == (400, "INVALID_PARAMETER")
    assert (await api("POST", MANY, b"", api.bearer)).error == (400, "INVALID_PARAMETER")
    assert not await api.store.tidy(Retention())


async def test_messages_of_another_account_are_not_redelivered(api: Api, dead: str) -> None:
    answer = await api("POST", "/v1/accounts/other/redeliver", b'{"state": "dead"}', api.bearer)
    assert answer.json == {"count": 0}
    assert (await api("GET", f"{MESSAGES}?state=dead", headers=api.bearer)).json["messages"][0]["id"] == dead

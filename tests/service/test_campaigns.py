"""Campaigns by what was published, and the search over everything."""

from datetime import UTC, datetime
from urllib.parse import quote

import msgspec
import pytest

from fotahook.service.errors import ApiError
from fotahook.service.operator import campaigns
from fotahook.service.operator.campaigns import parse_search
from fotahook.store.records import Health, LaneVerdict, MessageFilter
from tests.store.conftest import settled

from .conftest import ACCOUNT, Api, client_of

CAMPAIGNS = f"/v1/accounts/{ACCOUNT}/campaigns"
CAMPAIGN = "60b5d639-ccdc-4db8-8824-069bd94c95bf"


async def publish(api: Api, device: str, status: str, *, account: str = ACCOUNT, campaign: str = CAMPAIGN) -> str:
    """The id of a message about one device."""
    devices = [{"deviceId": device, "status": status, "resultReason": "Why"}]
    progress = {"campaignId": campaign, "deviceList": devices}
    body = msgspec.json.encode({"accountName": account, "type": "upgradeProgress", "upgradeProgress": progress})
    found: str = (await api("POST", f"/v1/accounts/{account}/messages", body, api.bearer)).json["id"]
    return found


async def test_campaigns_are_listed_newest_first_with_their_devices_by_result(api: Api) -> None:
    await publish(api, "d-1", "UpgradeSuccess")
    await publish(api, "d-2", "UpgradedFailed")
    await publish(api, "d-3", "Accepted")
    await publish(api, "e-1", "UpgradeSuccess", account="other", campaign="later")
    page = (await api("GET", "/v1/campaigns", b"", api.bearer)).json
    assert [(one["account"], one["campaignId"]) for one in page["campaigns"]] == [
        ("other", "later"),
        (ACCOUNT, CAMPAIGN),
    ]
    found = page["campaigns"][1]
    assert [found[name] for name in ("succeeded", "failed", "other", "silent", "overdue", "repaired")] == [
        1,
        1,
        1,
        0,
        0,
        0,
    ]
    assert page["cursor"] is None
    mine = await client_of(api, [ACCOUNT])
    assert [one["account"] for one in (await api("GET", "/v1/campaigns", b"", mine)).json["campaigns"]] == [ACCOUNT]


async def test_many_campaigns_come_in_pages(api: Api) -> None:
    for number in range(campaigns.CAMPAIGNS + 1):
        await publish(api, "d", "Accepted", campaign=f"campaign-{number}")
    first = (await api("GET", "/v1/campaigns", b"", api.bearer)).json
    second = (await api("GET", f"/v1/campaigns?cursor={first['cursor']}", b"", api.bearer)).json
    assert (len(first["campaigns"]), [one["campaignId"] for one in second["campaigns"]]) == (20, ["campaign-0"])


async def test_a_campaign_has_its_devices_and_the_reasons_of_failures(api: Api) -> None:
    message = await publish(api, "d-1", "UpgradeFailed")
    await publish(api, "d-2", "UpgradeSuccess")
    await api.store.expect(ACCOUNT, CAMPAIGN, ["d-3"], ends_at=api.clock() - 1)
    found = (await api("GET", f"{CAMPAIGNS}/{CAMPAIGN}", b"", api.bearer)).json
    assert (found["failed"], found["silent"], found["overdue"], found["reasons"]) == (
        1, 1, 1, [{"reason": "Why", "count": 1}]
    )  # fmt: skip

    async def devices(query: str) -> list[tuple[str, str, str | None]]:
        page = (await api("GET", f"{CAMPAIGNS}/{CAMPAIGN}/devices?{query}", b"", api.bearer)).json
        return [(one["deviceId"], one["kind"], one["source"]) for one in page["devices"]]

    everything = [("d-1", "failed", "callback"), ("d-2", "succeeded", "callback"), ("d-3", "overdue", None)]
    assert await devices("") == everything
    assert await devices("status=failed") == everything[:1]
    assert await devices("status=succeeded") == everything[1:2]
    assert await devices("status=overdue") == everything[2:]
    assert await devices("device=d-2") == [("d-2", "succeeded", None)]
    assert await devices("device=d-9") == []
    page = (await api("GET", f"{CAMPAIGNS}/{CAMPAIGN}/devices", b"", api.bearer)).json
    assert page["devices"][0]["messageId"] == message
    assert (await api("GET", f"{CAMPAIGNS}/none", b"", api.bearer)).error == (404, "NOT_FOUND")


async def test_nobody_is_overdue_before_the_end(api: Api) -> None:
    await publish(api, "d-1", "Accepted")
    path = f"{CAMPAIGNS}/{CAMPAIGN}/devices"
    assert (await api("GET", f"{path}?status=overdue", b"", api.bearer)).json["devices"] == []
    assert (await api("GET", f"{path}?status=silent", b"", api.bearer)).json["devices"][0]["kind"] == "other"


async def test_devices_come_in_pages_of_any_size(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaigns, "DEVICES_PER_READ", 2)
    for number in range(7):
        await publish(api, f"d-{number}", "UpgradeSuccess" if number % 2 else "UpgradeFailed")
    found: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        path = f"{CAMPAIGNS}/{CAMPAIGN}/devices?status=failed&limit=1" + (f"&cursor={cursor}" if cursor else "")
        page = (await api("GET", path, b"", api.bearer)).json
        found += [one["deviceId"] for one in page["devices"]]
        cursor = page["cursor"]
    assert found == ["d-0", "d-2", "d-4", "d-6"]


async def test_a_search_finds_accounts_messages_devices_and_campaigns_of_the_caller(api: Api) -> None:
    message = await publish(api, "990013907835573", "UpgradeSuccess")
    await publish(api, "990013907835573", "Accepted", account="other", campaign="c-2")

    async def search(text: str, headers: dict[str, str] | None = None) -> dict[str, list[str]]:
        found = (await api("GET", f"/v1/search?q={text}", b"", headers or api.bearer)).json
        names = {"accounts": "account", "messages": "id", "devices": "account", "campaigns": "campaignId"}
        return {kind: [one[name] for one in found[kind]] for kind, name in names.items() if found[kind]}

    assert await search("00001") == {"accounts": [ACCOUNT]}
    assert await search(ACCOUNT) == {"accounts": [ACCOUNT], "messages": [message]}
    assert await search(message) == {"messages": [message]}
    assert sorted((await search("990013907835573"))["devices"]) == [ACCOUNT, "other"]
    assert await search(CAMPAIGN[:9]) == {"campaigns": [CAMPAIGN]}
    assert await search("%20nothing") == {}
    mine = await client_of(api, ["other"])
    assert await search(message, mine) == {}
    assert await search("990013907835573", mine) == {"devices": ["other"]}
    assert (await api("GET", "/v1/search?q=", b"", api.bearer)).error == (400, "INVALID_PARAMETER")


NOW = datetime(2026, 11, 25, 20, tzinfo=UTC).timestamp()
HOUR = 3600.0


@pytest.mark.parametrize(
    ("text", "rest", "matching"),
    [
        ("0000123456", "0000123456", None),
        ("  other: words ", "  other: words ", None),
        ("type:upgradeProgress", "", MessageFilter(type="upgradeProgress")),
        ("type:a:b state:dead", "", MessageFilter(type="a:b", state="dead")),
        ("0001 state:pending", "0001", MessageFilter(state="pending")),
        ("since:2d 0001", "0001", MessageFilter(since=NOW - 48 * HOUR)),
        ("until:30m since:1w", "", MessageFilter(since=NOW - 168 * HOUR, until=NOW - HOUR / 2)),
        ("since:2026-11-25T21:00:00+02:00", "", MessageFilter(since=NOW - HOUR)),
    ],
)
def test_the_words_of_a_search(text: str, rest: str, matching: MessageFilter | None) -> None:
    assert parse_search(text, NOW) == (rest, matching)


@pytest.mark.parametrize(
    "text",
    [
        "state:gone",
        "state:",
        "type:a type:b",
        "since:yesterday",
        "since:1y",
        "until:2026-11-25T20:00:00",
        "since:999999w",
    ],
)
def test_filters_that_mean_nothing_are_refused(text: str) -> None:
    with pytest.raises(ApiError, match="INVALID_PARAMETER"):
        parse_search(text, NOW)


async def test_a_search_by_filters_finds_the_messages_of_the_caller(api: Api) -> None:
    first = await publish(api, "d", "Accepted")
    api.clock.advance(HOUR - 600)
    second = await publish(api, "d", "Accepted", account="other")
    third = await publish(api, "d", "Accepted")

    async def search(text: str, headers: dict[str, str] | None = None) -> list[str]:
        found = (await api("GET", f"/v1/search?q={quote(text)}", b"", headers or api.bearer)).json
        assert found["devices"] == found["campaigns"] == []
        return [one["id"] for one in found["messages"]]

    assert await search("type:upgradeProgress") == await search("state:pending") == [third, second, first]
    assert await search("type:other") == await search("state:delivered") == await search("nobody state:pending") == []
    assert await search("type:upgradeProgress since:30m") == [third, second]
    assert await search("type:upgradeProgress until:30m") == [first]
    assert await search(f"{ACCOUNT[:6]} state:pending") == [third, first]
    mine = await client_of(api, ["other"])
    assert await search("state:pending", mine) == await search("type:upgradeProgress", mine) == [second]
    await api.store.register(ACCOUNT, "https://a.example/", actor="test")
    [lease] = await api.store.lease(1, 30)
    [delivery] = await api.store.fetch(lease, 1)
    await api.store.settle(lease, [settled(delivery, "dead")], LaneVerdict(health=Health()), keep=0)
    assert await search("state:dead since:2h") == await search(f"{ACCOUNT} state:dead") == [first]
    assert await search("state:dead", mine) == await search("state:dead since:30m") == []
    assert (await api("GET", "/v1/search?q=state:d", b"", api.bearer)).error == (400, "INVALID_PARAMETER")

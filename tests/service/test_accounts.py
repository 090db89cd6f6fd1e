"""Accounts and their signing keys, as operators see them."""

import msgspec
import pytest

from fotahook.contract.keys import account_signing_key
from fotahook.contract.operator import AccountState, CallbackHistory
from fotahook.contract.signing import parse_secret
from fotahook.service.operator import accounts
from fotahook.store.records import Attempt, Health, LaneVerdict, Limits, Settlement

from .conftest import ACCOUNT, CALLBACK, MESSAGES, URL, Answer, Api, client_of
from .serving import SECRET_KEY

PATH = f"/v1/accounts/{ACCOUNT}"
KEYS = f"{PATH}/signing-keys"
NO_LIMITS = {
    "inFlight": None,
    "perSecond": None,
    "pendingMessages": None,
    "pendingBytes": None,
    "publishesPerSecond": None,
    "changesPerHour": None,
}


async def keys(api: Api) -> list[dict[str, object]]:
    found: list[dict[str, object]] = (await api("GET", KEYS, headers=api.bearer)).json["signingKeys"]
    return found


async def test_an_unused_account(api: Api) -> None:
    answer = await api("GET", PATH, headers=api.bearer)
    assert answer.json == {
        "account": ACCOUNT,
        "callback": None,
        "lane": {"state": "held", "reason": None, "until": None, "inFlight": 0, "failures": 0},
        "backlog": {"pending": 0, "dead": 0, "oldestAcceptedAt": None},
        "limits": NO_LIMITS,
        "known": False,
    }
    assert msgspec.json.decode(answer.body, type=AccountState).account == ACCOUNT


async def test_an_account_with_a_callback_and_a_backlog(api: Api) -> None:
    await api("POST", CALLBACK, msgspec.json.encode({"url": URL}), api.both)
    await api("POST", MESSAGES, b"{}", api.bearer)
    api.clock.advance(60)
    await api("POST", MESSAGES, b"{}", api.bearer)
    answer = await api("GET", PATH, headers=api.bearer)
    assert answer.json == {
        "account": ACCOUNT,
        "callback": {"url": URL, "revision": 1, "registeredAt": "2025-06-15T15:06:40Z"},
        "lane": {"state": "open", "reason": None, "until": None, "inFlight": 4, "failures": 0},
        "backlog": {"pending": 2, "dead": 0, "oldestAcceptedAt": "2025-06-15T15:06:40Z"},
        "limits": NO_LIMITS,
        "known": True,
    }


async def test_an_account_is_known_by_its_callbacks_and_messages_alone(api: Api) -> None:
    async def is_known(account: str) -> bool:
        known: bool = (await api("GET", f"/v1/accounts/{account}", headers=api.bearer)).json["known"]
        listed = (await api("GET", "/v1/accounts", headers=api.bearer)).json["accounts"]
        assert all(one["known"] is known for one in listed if one["account"] == account)
        return known

    await api("POST", "/v1/accounts/typo/pause", b"", api.bearer)
    await api("PATCH", "/v1/accounts/typo", b'{"limits": {"inFlight": 2}}', api.bearer)
    assert not await is_known("typo")
    await api("POST", CALLBACK, msgspec.json.encode({"url": URL}), api.both)
    await api("DELETE", CALLBACK, b"", api.both)
    assert await is_known(ACCOUNT)
    await api("POST", "/v1/accounts/messages/messages", b"{}", api.bearer)
    await api.store.register("messages", URL, actor="test")
    [lease] = await api.store.lease(1, 30)
    [delivery] = await api.store.fetch(lease, 1)
    attempt = Attempt(started_at=1.0, url=URL, outcome="delivered")
    done = Settlement(delivery=delivery, state="delivered", attempts=1, strikes=0, attempt=attempt)
    await api.store.settle(lease, [done], LaneVerdict(health=Health()), keep=0)
    await api.store.deregister("messages", actor="test")
    assert await is_known("messages")


async def test_a_lane_that_waits_says_why_and_until_when(api: Api) -> None:
    await api("POST", CALLBACK, msgspec.json.encode({"url": URL}), api.both)
    await api("POST", MESSAGES, b"{}", api.bearer)
    [lease] = await api.store.lease(1, 30)
    verdict = LaneVerdict(health=Health(failures=3, reason="connect_refused"), wait=60)
    await api.store.settle(lease, [], verdict, keep=0)
    lane = (await api("GET", PATH, headers=api.bearer)).json["lane"]
    assert lane == {
        "state": "waiting",
        "reason": "connect_refused",
        "until": "2025-06-15T15:07:40Z",
        "inFlight": 0,
        "failures": 3,
    }


async def change(api: Api, limits: object) -> Answer:
    return await api("PATCH", PATH, msgspec.json.encode({"limits": limits}), api.bearer)


async def test_limits_are_changed_one_by_one(api: Api) -> None:
    answer = await change(api, {"inFlight": 2, "perSecond": 0.5})
    assert (answer.status, answer.json["limits"]) == (200, {**NO_LIMITS, "inFlight": 2, "perSecond": 0.5})
    assert (await change(api, {"inFlight": 256})).json["limits"] == {**NO_LIMITS, "inFlight": 256, "perSecond": 0.5}
    assert (await change(api, {"perSecond": None})).json["limits"] == {**NO_LIMITS, "inFlight": 256}
    assert (await change(api, {})).json["limits"] == {**NO_LIMITS, "inFlight": 256}
    assert await api.store.limits(ACCOUNT) == Limits(in_flight=256)
    assert msgspec.json.decode(answer.body, type=AccountState).limits.per_second == 0.5


@pytest.mark.parametrize(
    "limits",
    [
        None,
        5,
        {"inFlight": 0},
        {"inFlight": 257},
        {"inFlight": 1.5},
        {"inFlight": True},
        {"inFlight": "2"},
        {"perSecond": 0},
        {"perSecond": -1},
        {"perSecond": 0.0001},
        {"perSecond": 1e9},
        {"perSecond": 10**400},
        {"inflight": 2},
    ],
)
async def test_invalid_limits_are_refused(api: Api, limits: object) -> None:
    before = await api.store.limits(ACCOUNT)
    assert (await change(api, limits)).error == (400, "INVALID_PARAMETER")
    for body in (b"", b"{}", b"[]", b'{"limits": {}, "url": "x"}'):
        assert (await api("PATCH", PATH, body, api.bearer)).error == (400, "INVALID_PARAMETER")
    assert await api.store.limits(ACCOUNT) == before


async def test_a_lane_may_have_no_more_in_flight_than_its_window_and_its_limit(api: Api) -> None:
    await api("POST", CALLBACK, msgspec.json.encode({"url": URL}), api.both)
    await api("POST", MESSAGES, b"{}", api.bearer)
    [lease] = await api.store.lease(1, 30)
    await api.store.settle(lease, [], LaneVerdict(health=Health(window=6)), keep=0)
    assert (await api("GET", PATH, headers=api.bearer)).json["lane"]["inFlight"] == 6
    assert (await change(api, {"inFlight": 4})).json["lane"]["inFlight"] == 4


async def test_an_account_is_paused_and_resumed(api: Api) -> None:
    await api("POST", CALLBACK, msgspec.json.encode({"url": URL}), api.both)
    await api("POST", MESSAGES, b"{}", api.bearer)
    paused = await api("POST", f"{PATH}/pause", b"", api.bearer)
    assert (paused.status, paused.json["lane"]["state"]) == (200, "paused")
    assert await api.store.lease(1, 30) == []
    resumed = await api("POST", f"{PATH}/resume", b"", api.bearer)
    assert (resumed.status, resumed.json["lane"]["state"]) == (200, "open")
    assert len(await api.store.lease(1, 30)) == 1


async def test_an_unused_account_can_be_paused(api: Api) -> None:
    assert (await api("POST", f"{PATH}/resume", b"", api.bearer)).json["lane"]["state"] == "held"
    assert (await api("POST", f"{PATH}/pause", b"", api.bearer)).json["lane"]["state"] == "paused"


async def test_resuming_ends_a_wait(api: Api) -> None:
    await api("POST", CALLBACK, msgspec.json.encode({"url": URL}), api.both)
    await api("POST", MESSAGES, b"{}", api.bearer)
    [lease] = await api.store.lease(1, 30)
    await api.store.settle(lease, [], LaneVerdict(health=Health(failures=3, reason="dns_error"), wait=60), keep=0)
    resumed = (await api("POST", f"{PATH}/resume", b"", api.bearer)).json["lane"]
    assert (resumed["state"], resumed["failures"], resumed["reason"]) == ("open", 0, None)


async def test_a_callbacks_history_names_the_actors_newest_first(api: Api) -> None:
    mine = await client_of(api, scopes=("callbacks",))
    await api("POST", CALLBACK, msgspec.json.encode({"url": URL}), api.both)
    api.clock.advance(60)
    await api("PUT", CALLBACK, msgspec.json.encode({"url": URL + "/2"}), mine)
    await api("DELETE", CALLBACK, headers=api.both)
    await api("PUT", CALLBACK, msgspec.json.encode({"url": URL}), api.both)
    answer = await api("GET", f"{PATH}/callbacks", headers=api.bearer)
    history = answer.json["history"]
    assert [(one["revision"], one["action"], one["url"]) for one in history] == [
        (4, "registered", URL),
        (3, "deregistered", None),
        (2, "replaced", URL + "/2"),
        (1, "registered", URL),
    ]
    assert history[-1] == {
        "url": URL,
        "action": "registered",
        "actor": "dev/dev",
        "at": "2025-06-15T15:06:40Z",
        "revision": 1,
    }
    assert history[2]["actor"] not in ("dev/dev", "")
    assert msgspec.json.decode(answer.body, type=CallbackHistory).history[0].url == URL


async def test_callback_history_shows_the_last_thousand_changes(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts, "HISTORY_LIMIT", 2)
    for _ in range(3):
        await api("PUT", CALLBACK, msgspec.json.encode({"url": URL}), api.both)
    history = (await api("GET", f"{PATH}/callbacks", headers=api.bearer)).json["history"]
    assert [(one["revision"], one["action"]) for one in history] == [(3, "replaced"), (2, "replaced")]


async def test_a_new_signing_key_shows_its_secret_once(api: Api) -> None:
    created = await api("POST", KEYS, b"", api.bearer)
    assert (created.status, created.header("cache-control")) == (201, "no-store")
    key_id, secret = created.json["id"], created.json["secret"]
    assert parse_secret(secret) == account_signing_key(SECRET_KEY, key_id)
    assert await keys(api) == [{"id": key_id, "createdAt": "2025-06-15T15:06:40Z", "ageSeconds": 0, "expiresAt": None}]


async def test_after_a_rotation_the_old_keys_stay_valid_for_a_day(api: Api) -> None:
    old = (await api("POST", KEYS, b"", api.bearer)).json["id"]
    api.clock.advance(60)
    new = (await api("POST", KEYS, b"{}", api.bearer)).json["id"]
    assert [(key["id"], key["expiresAt"]) for key in await keys(api)] == [(old, "2025-06-16T15:07:40Z"), (new, None)]
    api.clock.advance(24 * 3600)
    await api.sign_in()
    assert [key["id"] for key in await keys(api)] == [new]


async def test_an_overlap_never_makes_a_key_live_longer(api: Api) -> None:
    oldest = (await api("POST", KEYS, b"", api.bearer)).json["id"]
    for overlap in (20, 1000):
        await api("POST", KEYS, b'{"overlapSeconds": %d}' % overlap, api.bearer)
    ends = {key["id"]: key["expiresAt"] for key in await keys(api)}
    assert ends[oldest] == "2025-06-15T15:07:00Z"


async def test_no_overlap_ends_the_old_keys_at_once(api: Api) -> None:
    await api("POST", KEYS, b"", api.bearer)
    new = (await api("POST", KEYS, b'{"overlapSeconds": 0}', api.bearer)).json["id"]
    assert [key["id"] for key in await keys(api)] == [new]


@pytest.mark.parametrize("overlap", [b"-1", b"2592001", b'"1"', b"true", b"null", b"1e999", b"[]", b'1, "overlap": 2'])
async def test_an_invalid_overlap(api: Api, overlap: bytes) -> None:
    before = api.rows()
    answer = await api("POST", KEYS, b'{"overlapSeconds": %b}' % overlap, api.bearer)
    assert answer.error == (400, "INVALID_PARAMETER")
    assert api.rows() == before


async def test_an_account_has_ten_live_keys_at_the_most(api: Api) -> None:
    for _ in range(10):
        assert (await api("POST", KEYS, b"", api.bearer)).status == 201
    assert (await api("POST", KEYS, b"", api.bearer)).error == (409, "CONFLICT")


async def test_a_deleted_key_is_gone_at_once(api: Api) -> None:
    key_id = (await api("POST", KEYS, b"", api.bearer)).json["id"]
    answer = await api("DELETE", f"{KEYS}/{key_id}", headers=api.bearer)
    assert (answer.status, answer.json) == (200, {"success": True})
    assert await keys(api) == []
    assert (await api("DELETE", f"{KEYS}/{key_id}", headers=api.bearer)).error == (404, "NOT_FOUND")


async def test_a_key_is_deleted_under_its_own_account_only(api: Api) -> None:
    key_id = (await api("POST", KEYS, b"", api.bearer)).json["id"]
    for path in (f"/v1/accounts/other/signing-keys/{key_id}", f"{KEYS}/", f"{KEYS}/%FF"):
        assert (await api("DELETE", path, headers=api.bearer)).error == (404, "NOT_FOUND")
    assert len(await keys(api)) == 1


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("PATCH", ""),
        ("GET", "/messages"),
        ("GET", "/callbacks"),
        ("POST", "/pause"),
        ("POST", "/resume"),
        ("POST", "/redeliver"),
        ("GET", "/signing-keys"),
        ("POST", "/signing-keys"),
        ("DELETE", "/signing-keys/x"),
    ],
)
async def test_operating_needs_its_scope_and_its_account(api: Api, method: str, path: str) -> None:
    elsewhere = await client_of(api, accounts=["mine"])
    without = await client_of(api, scopes=("callbacks", "publish"))
    before = api.rows()
    assert (await api(method, PATH + path, b"", without)).error == (403, "INVALID_ACCESS")
    theirs = await api(method, PATH + path, b"", elsewhere)
    assert theirs == await api(method, f"/v1/accounts/nowhere{path}", b"", elsewhere)
    assert theirs.error == (404, "NOT_FOUND")
    assert api.rows() == before

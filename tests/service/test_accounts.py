"""Accounts and their signing keys, as operators see them."""

import msgspec
import pytest

from fotahook.contract.keys import account_signing_key
from fotahook.contract.operator import AccountState
from fotahook.contract.signing import parse_secret
from fotahook.store.base import Health, LaneVerdict

from .conftest import ACCOUNT, CALLBACK, MESSAGES, URL, Api, client_of
from .serving import SECRET_KEY

PATH = f"/v1/accounts/{ACCOUNT}"
KEYS = f"{PATH}/signing-keys"


async def keys(api: Api) -> list[dict[str, object]]:
    told: list[dict[str, object]] = (await api("GET", KEYS, headers=api.bearer)).json["signingKeys"]
    return told


async def test_an_account_that_nothing_happened_to(api: Api) -> None:
    answer = await api("GET", PATH, headers=api.bearer)
    assert answer.json == {
        "account": ACCOUNT,
        "callback": None,
        "lane": {"state": "held", "reason": None, "until": None, "failures": 0},
        "backlog": {"pending": 0, "dead": 0, "oldestAcceptedAt": None},
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
        "lane": {"state": "open", "reason": None, "until": None, "failures": 0},
        "backlog": {"pending": 2, "dead": 0, "oldestAcceptedAt": "2025-06-15T15:06:40Z"},
    }


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
        "failures": 3,
    }


async def test_a_new_signing_key_shows_its_secret_once(api: Api) -> None:
    created = await api("POST", KEYS, b"", api.bearer)
    assert (created.status, created.header("cache-control")) == (201, "no-store")
    key_id, secret = created.json["id"], created.json["secret"]
    assert parse_secret(secret) == account_signing_key(SECRET_KEY, key_id)
    assert await keys(api) == [{"id": key_id, "createdAt": "2025-06-15T15:06:40Z", "ageSeconds": 0, "expiresAt": None}]


async def test_after_a_rotation_the_old_keys_go_on_for_a_day(api: Api) -> None:
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


@pytest.mark.parametrize("overlap", [b"-1", b"2592001", b'"1"', b"true", b"null", b"1e999", b"[]"])
async def test_an_overlap_that_is_none(api: Api, overlap: bytes) -> None:
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
    [("GET", ""), ("GET", "/signing-keys"), ("POST", "/signing-keys"), ("DELETE", "/signing-keys/x")],
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

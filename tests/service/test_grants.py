"""Least right: nothing is granted unless said; scopes, networks and expiry hold for whatever is issued."""

from collections.abc import Mapping

import pytest

from fotahook.service import create_credential, grant, revoke, rotate_secret
from fotahook.service.credentials import SCOPES, Kind, provision_dev, withdraw_dev
from fotahook.store import SqliteStore

from .conftest import (
    ACCOUNT,
    CALLBACK,
    CHEAP,
    GRANT,
    MESSAGES,
    RESET,
    TOKEN,
    Answer,
    Api,
    ask,
    basic,
    bearer,
    client_of,
)

PATH = f"/v1/accounts/{ACCOUNT}"


async def test_nothing_is_granted_unless_said(api: Api) -> None:
    secret = await create_credential(api.store, "client", "app", clock=api.clock)
    found = await api.store.credential("client", "app")
    assert found is not None
    assert (found.accounts, found.scopes, found.networks, found.expires_at) == ((), (), (), None)
    headers = bearer(await api.token(basic("app", secret)))
    for path in ("/v1/accounts", PATH, "/v1/stats", "/v1/audit"):
        assert (await api("GET", path, headers=headers)).error == (403, "INVALID_ACCESS")
    await grant(api.store, "client", "app", scopes=SCOPES)
    api.clock.advance(1)
    assert (await api("GET", PATH, headers=headers)).error == (404, "NOT_FOUND")
    assert (await api("GET", "/v1/accounts", headers=headers)).json["accounts"] == []


@pytest.mark.parametrize(
    ("scope", "allowed"),
    [
        ("read", {"state"}),
        ("bodies", {"body"}),
        ("operate", {"state", "change"}),
        ("publish", set()),
        ("callbacks", set()),
    ],
)
async def test_reading_states_reading_bodies_and_operating_are_granted_apart(
    api: Api, scope: str, allowed: set[str]
) -> None:
    message = (await api("POST", MESSAGES, b'{"secret": "of the tenant"}', api.bearer)).json["id"]
    headers = await client_of(api, scopes=(scope,))
    calls = {
        "state": [("GET", path) for path in ("/v1/accounts", PATH, f"/v1/messages/{message}", f"{PATH}/signing-keys")],
        "body": [("GET", f"/v1/messages/{message}/body")],
        "change": [("POST", f"{PATH}/pause"), ("POST", f"{PATH}/resume"), ("GET", "/v1/audit")],
    }
    for kind, asked in calls.items():
        for method, path in asked:
            answer = await api(method, path, headers=headers)
            assert (answer.status == 200) is (kind in allowed), (method, path, answer)
            assert kind == "body" or b"of the tenant" not in answer.body


async def asked_from(api: Api, address: str | None, path: str, headers: Mapping[str, str]) -> Answer:
    return await ask(api.app, "GET", path, headers=headers, client=address)


async def test_a_client_and_a_user_are_good_only_in_their_networks(api: Api) -> None:
    networks = ["192.0.2.0/24", "2001:db8::/32"]
    both = await client_of(api)
    (name,) = {each.id for each in await api.store.credentials("client", "")}
    kinds: tuple[Kind, ...] = ("client", "user")
    for kind in kinds:
        await grant(api.store, kind, name, networks=networks)
        api.clock.advance(1)
        for inside in ("192.0.2.9", "2001:db8::1", "::ffff:192.0.2.9"):
            assert (await asked_from(api, inside, CALLBACK, both)).status == 200
        for outside in ("198.51.100.1", "2001:db9::1", None, "unix"):
            assert (await asked_from(api, outside, CALLBACK, both)).error == (403, "INVALID_ACCESS")
        await grant(api.store, kind, name, networks=[])
    api.clock.advance(1)
    assert (await asked_from(api, None, CALLBACK, both)).status == 200
    with pytest.raises(ValueError, match="not a network"):
        await grant(api.store, "client", name, networks=["here"])


async def test_no_token_is_issued_outside_the_networks(api: Api) -> None:
    secret = await create_credential(api.store, "client", "app", networks=["192.0.2.0/24"], clock=api.clock)
    assert (await api("POST", TOKEN, GRANT, basic("app", secret))).error == (403, "INVALID_ACCESS")
    assert await api.store.credentials("token", "app") == []


async def test_nothing_that_a_client_or_user_got_outlives_it(api: Api) -> None:
    ends = api.clock.now + 1000
    secret = await create_credential(
        api.store, "client", "app", accounts=None, scopes=SCOPES, expires_at=ends, clock=api.clock
    )
    answer = await api("POST", TOKEN, GRANT, basic("app", secret))
    assert answer.json["expires_in"] == 1000
    headers = bearer(answer.json["access_token"])
    assert (await api("GET", PATH, headers=headers)).status == 200
    both = await client_of(api)
    (name,) = {each.id for each in await api.store.credentials("user", "")}
    await grant(api.store, "user", name, expires_at=ends)
    api.clock.advance(900)
    # A session in use is renewed, but not beyond its user's end.
    assert (await api("GET", CALLBACK, headers=both)).status == 200
    api.clock.advance(100)
    assert (await api("GET", PATH, headers=headers)).error == (401, "INVALID_CREDENTIALS")
    assert (await api("POST", TOKEN, GRANT, basic("app", secret))).fault == (401, "900901")
    assert (await api("GET", CALLBACK, headers=both)).error == (401, "REQUEST_FAILED.SessionToken.Expired")


async def test_a_former_secret_is_good_until_the_overlap_has_passed(api: Api) -> None:
    former = await create_credential(api.store, "client", "app", clock=api.clock)
    present = await rotate_secret(api.store, "app", overlap=60, clock=api.clock)
    assert present is not None
    assert await api.token(basic("app", former)) == await api.token(basic("app", present))
    assert (await api("POST", TOKEN, GRANT, basic("app", "wrong"))).fault == (401, "900901")
    api.clock.advance(60)
    assert (await api("POST", TOKEN, GRANT, basic("app", former))).fault == (401, "900901")
    last = await rotate_secret(api.store, "app", overlap=3600, clock=api.clock)
    assert last is not None
    await revoke(api.store, "client", "app")
    for secret in (former, present, last):
        assert (await api("POST", TOKEN, GRANT, basic("app", secret))).fault == (401, "900901")
    assert await api.store.credentials("secret", "app") == []
    assert await rotate_secret(api.store, "app", overlap=60) is None


async def test_what_dev_made_is_gone_without_it_whatever_its_password_is(api: Api) -> None:
    reset = await api("PUT", RESET, b'{"oldPassword": "dev-password"}', api.both)
    await withdraw_dev(api.store)
    for kind in ("client", "user", "token", "session"):
        assert await api.store.credential(kind, "dev") is None
        assert await api.store.credentials(kind, "dev") == []
    await provision_dev(api.store, clock=api.clock, cost=CHEAP)
    token = await api.token()
    refused = b'{"username": "dev", "password": "%b"}' % reset.json["newPassword"].encode()
    assert (await api("POST", "/api/m2m/v1/session/login", refused, bearer(token))).error == (400, "LOGIN_REFUSED")


async def test_a_client_named_dev_that_dev_did_not_make_stays(store: SqliteStore) -> None:
    await create_credential(store, "client", "dev")
    await withdraw_dev(store)
    assert await store.credential("client", "dev") is not None

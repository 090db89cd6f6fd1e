"""Clients and users: created, granted and revoked."""

from collections.abc import Awaitable, Callable

import msgspec
import pytest

from fotahook.service import create_credential, grant, revoke
from fotahook.service.credentials import SCOPES, provision_dev, withdraw_dev
from fotahook.store import SqliteStore
from fotahook.store.records import Credential

from .conftest import ACCOUNT, CALLBACK, CHEAP, GRANT, LOGIN, RESET, TOKEN, Api, FakeClock, basic, bearer


async def test_a_secret_is_returned_and_not_stored(api: Api) -> None:
    secret = await create_credential(
        api.store, "client", "app-1", accounts=["a"], scopes=["operate", "publish"], clock=api.clock
    )
    found = await api.store.credential("client", "app-1")
    assert found is not None
    assert secret.encode() not in found.secret_hash
    assert (found.accounts, found.scopes, found.created_at) == (("a",), ("publish", "operate"), api.clock.now)
    await api.token(basic("app-1", secret))


async def test_a_user_logs_in_with_the_password_that_was_returned(api: Api) -> None:
    password = await create_credential(api.store, "user", "operator@example.com", clock=api.clock, cost=CHEAP)
    await api.login(await api.token(), "operator@example.com", password)


async def test_secrets_differ(store: SqliteStore) -> None:
    assert await create_credential(store, "client", "a") != await create_credential(store, "client", "b")


async def test_a_name_is_unique(store: SqliteStore) -> None:
    await create_credential(store, "client", "app-1")
    with pytest.raises(ValueError, match="already"):
        await create_credential(store, "client", "app-1")
    await create_credential(store, "user", "app-1", cost=CHEAP)


@pytest.mark.parametrize("name", ["", "with space", "with:colon", "x" * 65, "\u00e9", "a\n"])
async def test_an_invalid_name_is_refused(store: SqliteStore, name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        await create_credential(store, "client", name)


async def test_invalid_grants_are_refused(store: SqliteStore) -> None:
    with pytest.raises(ValueError, match="no such scope: admin"):
        await create_credential(store, "client", "app", scopes=["publish", "admin"])
    with pytest.raises(ValueError, match="slash"):
        await create_credential(store, "user", "app", accounts=["a/b"])


async def test_the_development_client_is_the_same_after_every_start(store: SqliteStore, clock: FakeClock) -> None:
    for _ in range(2):
        await provision_dev(store, clock=clock, cost=CHEAP)
    found = await store.credential("client", "dev")
    assert found is not None
    assert (found.accounts, found.scopes) == (None, SCOPES)


async def test_withdraw_dev_revokes_the_development_credentials(api: Api) -> None:
    await provision_dev(api.store, clock=api.clock, cost=CHEAP)
    token = await api.token()
    await withdraw_dev(api.store)
    assert await api.store.credential("client", "dev") is None
    assert await api.store.credential("user", "dev") is None
    assert await api.store.credentials("token", "dev") == []
    assert token


async def test_withdraw_dev_keeps_a_client_with_another_secret(store: SqliteStore) -> None:
    await create_credential(store, "client", "dev")
    await withdraw_dev(store)
    assert await store.credential("client", "dev") is not None


async def test_revoking_a_client_ends_its_tokens(api: Api) -> None:
    secret = await create_credential(api.store, "client", "app-1", clock=api.clock)
    token = await api.token(basic("app-1", secret))
    assert await revoke(api.store, "client", "app-1") is True
    assert await revoke(api.store, "client", "app-1") is False
    headers = {"Authorization": f"Bearer {token}"}
    assert (await api("GET", "/v1/accounts", headers=headers)).error == (401, "INVALID_CREDENTIALS")
    assert (await api("POST", TOKEN, GRANT, basic("app-1", secret))).fault == (401, "900901")
    assert (await api("GET", "/v1/accounts", headers=api.bearer)).status == 200


async def test_revoking_a_user_ends_the_sessions(api: Api) -> None:
    password = await create_credential(
        api.store, "user", "someone", accounts=None, scopes=SCOPES, clock=api.clock, cost=CHEAP
    )
    session = await api.login(await api.token(), "someone", password)
    headers = {**api.bearer, "VZ-M2M-Token": session}
    assert (await api("GET", CALLBACK, headers=headers)).status == 200
    assert await revoke(api.store, "user", "someone") is True
    assert await revoke(api.store, "user", "someone") is False
    # Remembered for a second after it was last read.
    api.clock.advance(1)
    assert (await api("GET", CALLBACK, headers=headers)).error == (401, "REQUEST_FAILED.SessionToken.Expired")
    assert (await api("GET", CALLBACK, headers=api.both)).status == 200


@pytest.fixture
def dropped_meanwhile(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is granted something is dropped just before that is written."""
    before_writing(api, monkeypatch, lambda: drop_both(api))


def before_writing(api: Api, monkeypatch: pytest.MonkeyPatch, do: Callable[[], Awaitable[object]]) -> None:
    """Do something just before the next credential is written, as another process may."""
    save, replace, done = api.store.save_credential, api.store.replace_credential, False

    async def once() -> None:
        nonlocal done
        if not done:
            done = True
            await do()

    async def late_save(credential: Credential) -> None:
        await once()
        await save(credential)

    async def late_replace(old: Credential, new: Credential) -> bool:
        await once()
        return await replace(old, new)

    monkeypatch.setattr(api.store, "save_credential", late_save)
    monkeypatch.setattr(api.store, "replace_credential", late_replace)


async def drop_both(api: Api) -> None:
    await revoke(api.store, "client", "dev")
    await revoke(api.store, "user", "dev")


@pytest.mark.usefixtures("dropped_meanwhile")
async def test_no_token_outlives_its_client(api: Api) -> None:
    api.clock.advance(3600)
    assert (await api("POST", TOKEN, GRANT, basic())).fault == (401, "900901")
    assert await api.store.credentials("token", "dev") == []


@pytest.mark.usefixtures("dropped_meanwhile")
async def test_no_session_outlives_its_user(api: Api) -> None:
    body = b'{"username": "dev", "password": "dev-password"}'
    assert (await api("POST", LOGIN, body, api.bearer)).error == (400, "LOGIN_REFUSED")
    assert await api.store.credentials("session", "dev") == []


@pytest.mark.usefixtures("dropped_meanwhile")
async def test_a_session_of_a_revoked_user_is_not_renewed(api: Api) -> None:
    api.clock.advance(600)
    assert (await api("GET", CALLBACK, headers=api.both)).error == (401, "REQUEST_FAILED.SessionToken.Expired")
    assert await api.store.credentials("session", "dev") == []


# Grants


async def test_a_grant_changes_only_what_is_given(store: SqliteStore) -> None:
    await create_credential(store, "client", "app", accounts=["1"], scopes=["publish"])
    before = await store.credential("client", "app")
    assert await grant(store, "client", "app", scopes=["operate", "publish"]) == await store.credential("client", "app")
    await grant(store, "client", "app", accounts=["2"])
    found = await store.credential("client", "app")
    assert before is not None
    assert found == msgspec.structs.replace(before, accounts=("2",), scopes=("publish", "operate"))
    await grant(store, "client", "app", accounts=None)
    found = await store.credential("client", "app")
    assert found is not None
    assert found.accounts is None


async def test_a_grant_to_an_unknown_client_or_of_an_unknown_scope(store: SqliteStore) -> None:
    assert await grant(store, "client", "app", accounts=None) is None
    assert await grant(store, "user", "app", accounts=None) is None
    await create_credential(store, "client", "app", scopes=["publish"])
    for grants in ({"scopes": ["admin"]}, {"accounts": ["a/b"]}):
        with pytest.raises(ValueError, match=r"admin|slash"):
            await grant(store, "client", "app", **grants)  # type: ignore[arg-type]  # of several types
    found = await store.credential("client", "app")
    assert found is not None
    assert (found.accounts, found.scopes) == ((), ("publish",))


async def test_a_live_token_and_a_live_session_follow_a_grant(api: Api) -> None:
    await grant(api.store, "client", "dev", accounts=["other"], scopes=["operate"])
    api.clock.advance(1)
    assert (await api("GET", f"/v1/accounts/{ACCOUNT}", headers=api.bearer)).error == (404, "NOT_FOUND")
    assert (await api("GET", CALLBACK, headers=api.both)).error == (403, "INVALID_ACCESS")
    # Still the same token, as long as it lives.
    assert bearer(await api.token()) == api.bearer
    await grant(api.store, "client", "dev", accounts=None, scopes=["callbacks"])
    await grant(api.store, "user", "dev", accounts=["other"])
    api.clock.advance(1)
    assert (await api("GET", CALLBACK, headers=api.both)).error == (400, "REQUEST_FAILED.AccountNotFound")
    await grant(api.store, "user", "dev", accounts=[ACCOUNT])
    api.clock.advance(1)
    assert (await api("GET", CALLBACK, headers=api.both)).status == 200


async def narrow_both(api: Api) -> None:
    await grant(api.store, "client", "dev", scopes=["publish"])
    await grant(api.store, "user", "dev", scopes=["publish"])


async def test_no_token_grants_more_than_its_client_has(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    api.clock.advance(3600)
    before_writing(api, monkeypatch, lambda: narrow_both(api))
    headers = bearer(await api.token())
    assert (await api("GET", "/v1/accounts", headers=headers)).error == (403, "INVALID_ACCESS")


async def test_no_session_grants_more_than_its_user_has(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    token = await api.token()
    before_writing(api, monkeypatch, lambda: grant(api.store, "user", "dev", scopes=["publish"]))
    headers = {**bearer(token), "VZ-M2M-Token": await api.login(token)}
    assert (await api("GET", CALLBACK, headers=headers)).error == (403, "INVALID_ACCESS")


async def test_a_renewed_session_applies_a_concurrent_grant(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    api.clock.advance(600)
    before_writing(api, monkeypatch, lambda: grant(api.store, "user", "dev", scopes=["publish"]))
    assert (await api("GET", CALLBACK, headers=api.both)).error == (403, "INVALID_ACCESS")


async def test_a_grant_and_a_new_password_at_once_both_hold(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    before_writing(api, monkeypatch, lambda: grant(api.store, "user", "dev", accounts=["other"]))
    answer = await api("PUT", RESET, b'{"oldPassword": "dev-password"}', api.both)
    await api.login(await api.token(), "dev", answer.json["newPassword"])
    found = await api.store.credential("user", "dev")
    assert found is not None
    assert found.accounts == ("other",)


async def test_a_grant_reaches_a_token_that_changes_at_that_moment(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    (token,) = await api.store.credentials("token", "dev")
    read, renewed = api.store.credentials, msgspec.structs.replace(token, expires_at=api.clock.now + 1000)

    async def late_read(kind: str, owner: str) -> list[Credential]:
        found = await read(kind, owner)
        await api.store.save_credential(renewed)
        return found

    with monkeypatch.context() as patched:
        patched.setattr(api.store, "credentials", late_read)
        await grant(api.store, "client", "dev", scopes=["publish"])
    assert await api.store.credentials("token", "dev") == [msgspec.structs.replace(renewed, scopes=("publish",))]

"""Clients and users are made with a secret that is shown once."""

import pytest

from fotahook.service import create_client, create_user, drop_client, drop_user, provision_dev, withdraw_dev
from fotahook.store import SqliteStore
from fotahook.store.base import Credential

from .conftest import CALLBACK, GRANT, LOGIN, TOKEN, Api, FakeClock, basic


async def test_a_secret_is_returned_and_not_stored(api: Api) -> None:
    secret = await create_client(api.store, "app-1", accounts=["a"], scopes=["operate", "publish"], clock=api.clock)
    found = await api.store.credential("client", "app-1")
    assert found is not None
    assert secret.encode() not in found.secret_hash
    assert (found.accounts, found.scopes, found.created_at) == (("a",), ("publish", "operate"), api.clock.now)
    await api.token(basic("app-1", secret))


async def test_a_user_logs_in_with_the_password_that_was_returned(api: Api) -> None:
    password = await create_user(api.store, "operator@example.com", clock=api.clock)
    await api.login(await api.token(), "operator@example.com", password)


async def test_secrets_differ(store: SqliteStore) -> None:
    assert await create_client(store, "a") != await create_client(store, "b")


async def test_a_name_is_taken_once(store: SqliteStore) -> None:
    await create_client(store, "app-1")
    with pytest.raises(ValueError, match="already"):
        await create_client(store, "app-1")
    await create_user(store, "app-1")


@pytest.mark.parametrize("name", ["", "with space", "with:colon", "x" * 65, "\u00e9", "a\n"])
async def test_a_name_that_does_not_fit_a_header(store: SqliteStore, name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        await create_client(store, name)


async def test_grants_that_are_none(store: SqliteStore) -> None:
    with pytest.raises(ValueError, match="no such scope: admin"):
        await create_client(store, "app", scopes=["publish", "admin"])
    with pytest.raises(ValueError, match="slash"):
        await create_user(store, "app", accounts=["a/b"])


async def test_the_development_client_is_the_same_after_every_start(store: SqliteStore, clock: FakeClock) -> None:
    for _ in range(2):
        await provision_dev(store, clock=clock)
    found = await store.credential("client", "dev")
    assert found is not None
    assert (found.accounts, found.scopes) == (None, ("callbacks", "publish", "operate"))


async def test_what_the_development_mode_gave_ends_with_it(api: Api) -> None:
    await provision_dev(api.store, clock=api.clock)
    token = await api.token()
    await withdraw_dev(api.store)
    assert await api.store.credential("client", "dev") is None
    assert await api.store.credential("user", "dev") is None
    assert await api.store.credentials("token", "dev") == []
    assert token


async def test_a_client_that_merely_has_the_name_stays(store: SqliteStore) -> None:
    await create_client(store, "dev")
    await withdraw_dev(store)
    assert await store.credential("client", "dev") is not None


async def test_a_dropped_client_takes_its_tokens_along(api: Api) -> None:
    secret = await create_client(api.store, "app-1", clock=api.clock)
    token = await api.token(basic("app-1", secret))
    assert await drop_client(api.store, "app-1") is True
    assert await drop_client(api.store, "app-1") is False
    headers = {"Authorization": f"Bearer {token}"}
    assert (await api("GET", "/v1/accounts", headers=headers)).error == (401, "INVALID_CREDENTIALS")
    assert (await api("POST", TOKEN, GRANT, basic("app-1", secret))).fault == (401, "900901")
    assert (await api("GET", "/v1/accounts", headers=api.bearer)).status == 200


async def test_a_dropped_user_takes_the_sessions_along(api: Api) -> None:
    password = await create_user(api.store, "someone", clock=api.clock)
    session = await api.login(await api.token(), "someone", password)
    headers = {**api.bearer, "VZ-M2M-Token": session}
    assert (await api("GET", CALLBACK, headers=headers)).status == 200
    assert await drop_user(api.store, "someone") is True
    assert await drop_user(api.store, "someone") is False
    # Remembered for a second after it was last read.
    api.clock.advance(1)
    assert (await api("GET", CALLBACK, headers=headers)).error == (401, "REQUEST_FAILED.SessionToken.Expired")
    assert (await api("GET", CALLBACK, headers=api.both)).status == 200


@pytest.fixture
def dropped_meanwhile(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is granted something is dropped just before that is written."""
    save = api.store.save_credential

    async def save_for_somebody_who_is_gone(credential: Credential) -> None:
        await drop_client(api.store, "dev")
        await drop_user(api.store, "dev")
        await save(credential)

    monkeypatch.setattr(api.store, "save_credential", save_for_somebody_who_is_gone)


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
async def test_no_session_is_kept_alive_for_a_user_who_is_gone(api: Api) -> None:
    api.clock.advance(600)
    assert (await api("GET", CALLBACK, headers=api.both)).error == (401, "REQUEST_FAILED.SessionToken.Expired")
    assert await api.store.credentials("session", "dev") == []

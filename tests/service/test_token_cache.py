"""Tokens are cached for a second, and never beyond their expiry."""

import pytest

from fotahook.service.context import TokenCache
from fotahook.store import SqliteStore
from fotahook.store.records import Credential

from .conftest import CALLBACK, Api, FakeClock


@pytest.fixture
def cache(store: SqliteStore, clock: FakeClock) -> TokenCache:
    return TokenCache(store, clock)


def token(name: str, ends: float | None = None) -> Credential:
    return Credential(kind="token", id=name, owner="dev", expires_at=ends)


async def test_a_token_that_another_process_ends_is_valid_for_a_second(
    cache: TokenCache, store: SqliteStore, clock: FakeClock
) -> None:
    await store.save_credential(token("a"))
    assert await cache.find("token", "a") is not None
    await store.drop_credentials("token", ["a"])
    clock.advance(0.9)
    assert await cache.find("token", "a") is not None
    clock.advance(0.1)
    assert await cache.find("token", "a") is None


async def test_a_cached_token_expires_on_time(cache: TokenCache, store: SqliteStore, clock: FakeClock) -> None:
    await store.save_credential(token("a", ends=clock.now + 0.5))
    assert await cache.find("token", "a") is not None
    clock.advance(0.5)
    assert await cache.find("token", "a") is None


async def test_a_clock_that_is_set_back_does_not_prolong_the_cache(
    cache: TokenCache, store: SqliteStore, clock: FakeClock
) -> None:
    await store.save_credential(token("a"))
    await cache.find("token", "a")
    await store.drop_credentials("token", ["a"])
    clock.advance(-100)
    assert await cache.find("token", "a") is None


async def test_a_missing_token_is_not_cached(cache: TokenCache, store: SqliteStore) -> None:
    assert await cache.find("token", "a") is None
    await store.save_credential(token("a"))
    assert await cache.find("token", "a") is not None


async def test_the_cache_is_bounded(cache: TokenCache, store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fotahook.service.limits._MAX_ENTRIES", 2)
    for name in ("a", "b", "c"):
        await store.save_credential(token(name))
        assert await cache.find("token", name) is not None
    await store.drop_credentials("token", ["a", "c"])
    assert await cache.find("token", "a") is None
    assert await cache.find("token", "c") is not None


async def test_a_token_read_while_one_is_invalidated_is_not_cached(
    cache: TokenCache, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = store.credential

    async def revoked_meanwhile(kind: str, credential_id: str) -> Credential | None:
        found = await read(kind, credential_id)
        await store.drop_credentials(kind, [credential_id])
        cache.invalidate(kind, credential_id)
        return found

    await store.save_credential(token("a"))
    monkeypatch.setattr(store, "credential", revoked_meanwhile)
    await cache.find("token", "a")
    monkeypatch.undo()
    assert await cache.find("token", "a") is None


async def test_a_session_that_ends_while_it_is_renewed_has_ended(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    api.clock.advance(600)
    read, reads = api.store.credential, 0

    async def logged_out_after_the_first_read(kind: str, credential_id: str) -> Credential | None:
        nonlocal reads
        found = await read(kind, credential_id)
        if kind == "session":
            reads += 1
            await api.store.drop_credentials(kind, [credential_id])
        return found

    monkeypatch.setattr(api.store, "credential", logged_out_after_the_first_read)
    answer = await api("GET", CALLBACK, headers=api.both)
    assert answer.error == (401, "REQUEST_FAILED.SessionToken.Expired")
    assert reads == 2

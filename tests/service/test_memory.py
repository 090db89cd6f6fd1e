"""Tokens are remembered for a second, and never beyond their end."""

import pytest

from fotahook.service import context
from fotahook.service.context import Memory
from fotahook.service.settings import Settings
from fotahook.store import SqliteStore
from fotahook.store.records import Credential

from .conftest import CALLBACK, Api, FakeClock
from .serving import SECRET_KEY


@pytest.fixture
def memory(store: SqliteStore, clock: FakeClock) -> Memory:
    return Memory(store, Settings(secret_key=SECRET_KEY, clock=clock))


def token(name: str, ends: float | None = None) -> Credential:
    return Credential(kind="token", id=name, owner="dev", expires_at=ends)


async def test_what_another_process_ends_is_known_for_a_second(
    memory: Memory, store: SqliteStore, clock: FakeClock
) -> None:
    await store.save_credential(token("a"))
    assert await memory.find("token", "a") is not None
    await store.drop_credentials("token", ["a"])
    clock.advance(0.9)
    assert await memory.find("token", "a") is not None
    clock.advance(0.1)
    assert await memory.find("token", "a") is None


async def test_what_is_remembered_still_ends_on_time(memory: Memory, store: SqliteStore, clock: FakeClock) -> None:
    await store.save_credential(token("a", ends=clock.now + 0.5))
    assert await memory.find("token", "a") is not None
    clock.advance(0.5)
    assert await memory.find("token", "a") is None


async def test_a_clock_that_is_set_back_does_not_prolong_memory(
    memory: Memory, store: SqliteStore, clock: FakeClock
) -> None:
    await store.save_credential(token("a"))
    await memory.find("token", "a")
    await store.drop_credentials("token", ["a"])
    clock.advance(-100)
    assert await memory.find("token", "a") is None


async def test_what_is_not_there_is_asked_for_again(memory: Memory, store: SqliteStore) -> None:
    assert await memory.find("token", "a") is None
    await store.save_credential(token("a"))
    assert await memory.find("token", "a") is not None


async def test_memory_is_bounded(memory: Memory, store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context, "_MEMORY_LIMIT", 2)
    for name in ("a", "b", "c"):
        await store.save_credential(token(name))
        assert await memory.find("token", name) is not None
    await store.drop_credentials("token", ["a", "c"])
    assert await memory.find("token", "a") is None
    assert await memory.find("token", "c") is not None


async def test_what_was_read_while_something_was_forgotten_is_not_kept(
    memory: Memory, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = store.credential

    async def revoked_meanwhile(kind: str, credential_id: str) -> Credential | None:
        found = await read(kind, credential_id)
        await store.drop_credentials(kind, [credential_id])
        memory.forget(kind, credential_id)
        return found

    await store.save_credential(token("a"))
    monkeypatch.setattr(store, "credential", revoked_meanwhile)
    await memory.find("token", "a")
    monkeypatch.undo()
    assert await memory.find("token", "a") is None


async def test_a_session_that_ends_while_it_is_prolonged_has_ended(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
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

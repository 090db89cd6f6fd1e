"""Passwords are stored as argon2id hashes, computed one at a time, and an unknown user costs the same."""

import asyncio
import threading
from collections.abc import Callable

import msgspec
import pytest
from argon2 import PasswordHasher

from fotahook.service import create_credential
from fotahook.service.credentials import COST, PasswordCost, Passwords, provision_dev, withdraw_dev
from tests.deadlines import DEADLINE

from .conftest import CHEAP, LOGIN, Api

DEARER = PasswordCost(memory_kib=16, passes=1)


def body(name: str, password: str) -> bytes:
    return msgspec.json.encode({"username": name, "password": password})


async def stored(api: Api, name: str = "dev") -> bytes:
    user = await api.store.credential("user", name)
    assert user is not None
    return user.secret_hash


async def test_passwords_are_stored_as_argon2id_at_owasps_cost(api: Api) -> None:
    password = await create_credential(api.store, "user", "ops")
    known = await stored(api, "ops")
    assert known.startswith(b"$argon2id$v=19$m=19456,t=2,p=1$")
    assert password.encode() not in known
    await api.login(await api.token(), "ops", password)


@pytest.mark.parametrize("password", ["", "dev-password", "\u00e9\U0001f600", "\ud800", "a\x00b", "x" * 10_000])
async def test_any_text_is_a_password(password: str) -> None:
    passwords = Passwords(CHEAP)
    known = await passwords.hash(password)
    assert await passwords.verify(known, password)
    assert not await passwords.verify(known, password + "x")


@pytest.mark.parametrize("known", [b"", b"x", b"$argon2id$", bytes(32), b"$argon2id$v=19$m=8,t=1,p=1$AAAA$AAAA"])
async def test_an_invalid_hash_never_verifies(known: bytes) -> None:
    assert not await Passwords(CHEAP).verify(known, "dev-password")


async def test_a_refused_login_costs_the_same_whether_or_not_the_user_exists(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def counted(work: Callable[..., object]) -> Callable[..., object]:
        def count(*given: object) -> object:
            done.append("once")
            return work(*given)

        return count

    for name in ("hash", "verify"):
        monkeypatch.setattr(PasswordHasher, name, counted(getattr(PasswordHasher, name)))
    for name in ("dev", "nobody", ""):
        done.clear()
        assert (await api("POST", LOGIN, body(name, "wrong"), api.bearer)).error == (400, "LOGIN_REFUSED")
        assert done == ["once"]


async def test_hashes_are_computed_one_at_a_time_without_blocking_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    passwords, gate = Passwords(CHEAP), threading.Event()
    running: set[int] = set()
    crowds: list[int] = []

    def work(hasher: PasswordHasher, password: bytes) -> str:
        running.add(id(password))
        crowds.append(len(running))
        gate.wait(DEADLINE)
        running.discard(id(password))
        return "hash"

    monkeypatch.setattr(PasswordHasher, "hash", work)
    hashing = [asyncio.ensure_future(passwords.hash(str(number))) for number in range(5)]
    hashing[1].cancel()
    await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(*hashing, return_exceptions=True)
    assert set(crowds) == {1}


async def test_the_development_user_is_hashed_too_and_withdrawn_by_the_password_it_has(api: Api) -> None:
    await provision_dev(api.store, clock=api.clock)
    assert (await stored(api)).startswith(b"$argon2id$v=19$m=%d," % COST.memory_kib)
    await withdraw_dev(api.store)
    assert await api.store.credential("user", "dev") is None
    await create_credential(api.store, "user", "dev", cost=CHEAP)
    await withdraw_dev(api.store)
    assert await api.store.credential("user", "dev") is not None

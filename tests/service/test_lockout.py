"""Five failed logins in a row lock a user for an address, for a time that doubles."""

import asyncio

import msgspec
import pytest

from fotahook.service import limits
from fotahook.service.errors import ApiError
from fotahook.service.limits import Lockout

from .conftest import LOGIN, RESET, Answer, Api, FakeClock

NOW = 1_750_000_000.0


async def login(api: Api, password: str = "wrong", username: str = "dev") -> Answer:
    body = msgspec.json.encode({"username": username, "password": password})
    return await api("POST", LOGIN, body, api.bearer)


def fail(locks: Lockout, times: int, now: float = NOW) -> None:
    for _ in range(times):
        locks.failed("dev", "a", now)


def locked_for(locks: Lockout, now: float = NOW, username: str = "dev", address: str = "a") -> int:
    try:
        locks.check(username, address, now)
    except ApiError as error:
        return int(error.headers["Retry-After"])
    return 0


async def test_after_five_failures_even_the_right_password_is_refused_for_a_minute(api: Api) -> None:
    for _ in range(5):
        refused = await login(api)
        assert (refused.error, refused.header("retry-after")) == ((400, "LOGIN_REFUSED"), None)
    locked = await login(api, "dev-password")
    assert (locked.error, locked.header("retry-after")) == ((400, "LOGIN_REFUSED"), "60")
    api.clock.advance(60)
    assert (await login(api, "dev-password")).status == 200


async def test_a_user_who_does_not_exist_is_locked_like_any_other(api: Api) -> None:
    for name in ("dev", "nobody"):
        for _ in range(5):
            await login(api, username=name)
    assert await login(api) == await login(api, username="nobody")


async def test_concurrent_wrong_logins_are_locked_after_five(api: Api) -> None:
    answers = await asyncio.gather(*(login(api) for _ in range(20)))
    assert sum(answer.header("retry-after") is None for answer in answers) == 5


async def test_concurrent_correct_logins_all_succeed(api: Api) -> None:
    answers = await asyncio.gather(*(login(api, "dev-password") for _ in range(20)))
    assert {answer.status for answer in answers} == {200}


async def test_a_successful_login_resets_the_failure_count(api: Api) -> None:
    for _ in range(3):
        for _ in range(4):
            await login(api)
        assert (await login(api, "dev-password")).status == 200


async def test_wrong_old_passwords_count_as_failures(api: Api) -> None:
    for _ in range(5):
        await api("PUT", RESET, b'{"oldPassword": "wrong"}', api.both)
    answer = await api("PUT", RESET, b'{"oldPassword": "dev-password"}', api.both)
    assert (answer.error, answer.header("retry-after")) == ((400, "LOGIN_REFUSED"), "60")


@pytest.mark.parametrize(
    ("failures", "seconds"), [(4, 0), (5, 60), (6, 120), (7, 240), (10, 1920), (11, 3600), (2000, 3600)]
)
def test_each_further_failure_locks_for_twice_as_long_up_to_an_hour(failures: int, seconds: int) -> None:
    locks = Lockout()
    fail(locks, failures)
    assert locked_for(locks) == seconds


def test_a_lock_ends_and_the_next_failure_locks_again(clock: FakeClock) -> None:
    locks = Lockout()
    fail(locks, 5)
    assert locked_for(locks, NOW + 59.5) == 1
    assert locked_for(locks, NOW + 60) == 0
    fail(locks, 1, NOW + 60)
    assert locked_for(locks, NOW + 60) == 120


def test_a_lock_applies_to_one_user_and_one_address() -> None:
    locks = Lockout()
    fail(locks, 5)
    assert locked_for(locks, username="other") == 0
    assert locked_for(locks, address="b") == 0


def test_failures_are_forgotten_after_a_day() -> None:
    locks = Lockout()
    fail(locks, 4)
    fail(locks, 4, NOW + 24 * 3600)
    assert locked_for(locks, NOW + 24 * 3600) == 0


def test_a_clock_that_is_set_back_locks_no_longer_than_an_hour() -> None:
    locks = Lockout()
    fail(locks, 5)
    assert locked_for(locks, NOW - 1_000_000) == 3600


def test_the_number_of_locks_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_MAX_ENTRIES", 2)
    locks = Lockout()
    fail(locks, 5)
    for name in ("x", "y"):
        locks.failed(name * 10_000, "a", NOW)
    assert locked_for(locks) == 0

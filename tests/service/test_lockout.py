"""Five failed logins in a row lock a user for an address, for a time that doubles."""

import asyncio

import msgspec
import pytest

from fotahook.service import limits
from fotahook.service.context import Service
from fotahook.service.credentials import Passwords
from fotahook.service.errors import ApiError
from fotahook.service.limits import Lockout, RateLimiter
from fotahook.service.routing import App
from fotahook.store.records import Credential

from .conftest import GRANT, LOGIN, RESET, TOKEN, Answer, Api, FakeClock, ask, basic, bearer, client_of

NOW = 1_750_000_000.0


async def login(api: Api, password: str = "wrong", username: str = "dev") -> Answer:
    body = msgspec.json.encode({"username": username, "password": password})
    return await api("POST", LOGIN, body, api.bearer)


def fail(locks: Lockout, times: int, now: float = NOW) -> None:
    for _ in range(times):
        locks.failed("dev", "c", "192.0.2.1", now)


def service_of(api: Api) -> Service:
    assert isinstance(api.app, App)
    return api.app.resources[LOGIN]._service


def locked_for(
    locks: Lockout, now: float = NOW, username: str = "dev", address: str = "192.0.2.1", client: str = "c"
) -> int:
    try:
        locks.check(username, client, address, now)
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


def test_a_lock_applies_to_one_user_client_and_network() -> None:
    locks = Lockout()
    fail(locks, 5)
    assert locked_for(locks, username="other") == 0
    assert locked_for(locks, address="192.0.2.2") == 0
    assert locked_for(locks, client="d") == 0
    for number in range(5):
        locks.failed("dev", "c", f"2001:db8::{number}", NOW)
    assert locked_for(locks, address="2001:db8::ffff") == 60
    assert locked_for(locks, address="2001:db8:0:1::") == 0


def test_of_all_guesses_at_one_user_few_pass_in_an_hour() -> None:
    locks = Lockout()
    locks.succeeded("dev", "c", "198.51.100.1")
    for number in range(200):
        locks.failed("dev", "c", f"192.0.2.{number}", NOW)
    # 36 seconds for each guess.
    assert locked_for(locks, address="203.0.113.1") == 36
    assert locked_for(locks, address="203.0.113.1", now=NOW + 36) == 0
    assert locked_for(locks, address="203.0.113.1", username="other") == 0
    # Where the user logged in before, guesses elsewhere do not matter.
    assert locked_for(locks, address="198.51.100.1") == 0


def test_the_number_of_places_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_MAX_ENTRIES", 2)
    monkeypatch.setattr(limits, "USER_FAILURES", 1)
    locks = Lockout()
    for place in ("192.0.2.1", "192.0.2.2", "192.0.2.3"):
        locks.succeeded("dev", "c", place)
    locks.failed("dev", "c", "203.0.113.1", NOW)
    assert [locked_for(locks, address=f"192.0.2.{n}") for n in (1, 2, 3)] == [3600, 0, 0]


def test_failures_are_forgotten_after_a_day() -> None:
    locks = Lockout()
    fail(locks, 4)
    fail(locks, 4, NOW + 24 * 3600)
    assert locked_for(locks, NOW + 24 * 3600) == 0


def test_a_clock_that_was_ahead_locks_nobody() -> None:
    locks = Lockout()
    fail(locks, 5, NOW + 400 * 24 * 3600)
    assert locked_for(locks) == 0
    # Nor does it count: it may have been any time ago.
    fail(locks, 4)
    assert locked_for(locks) == 0
    fail(locks, 1)
    assert locked_for(locks) == 60


def test_the_number_of_locks_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_MAX_ENTRIES", 2)
    locks = Lockout()
    fail(locks, 5)
    for name in ("x", "y"):
        locks.failed(name * 10_000, "c", "192.0.2.1", NOW)
    assert locked_for(locks) == 0


# The queue


async def test_one_client_cannot_fill_the_queue_of_logins(api: Api) -> None:
    other = await client_of(api)
    async with service_of(api).password_lock:
        waiting = [asyncio.create_task(login(api, "dev-password")) for _ in range(40)]
        refused, pending = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        while len(refused) < 8:
            refused, pending = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.sleep(0)
        assert {task.result().error for task in refused} == {(503, "BUSY")}
        assert len(pending) == 32
        body = msgspec.json.encode({"username": "dev", "password": "dev-password"})
        others = asyncio.create_task(api("POST", LOGIN, body, other))
        await asyncio.sleep(0.01)
    assert (await others).status == 200
    assert {task.result().status for task in (await asyncio.wait(pending))[0]} == {200}


async def test_logins_of_clients_that_hung_up_are_dropped(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    verified = 0
    verify = Passwords.verify

    async def counted(self: Passwords, stored: bytes | None, password: str) -> bool:
        nonlocal verified
        verified += 1
        return await verify(self, stored, password)

    monkeypatch.setattr(Passwords, "verify", counted)
    body = msgspec.json.encode({"username": "dev", "password": "dev-password"})
    for _ in range(3):
        assert (await ask(api.app, "POST", LOGIN, [body, None], api.bearer)).status == 400
    assert verified == 0


async def test_one_client_logs_in_only_so_often(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    service = service_of(api)
    service.login_limiter = RateLimiter(2)
    assert [(await login(api, "dev-password")).status for _ in range(3)] == [200, 200, 429]
    other = await client_of(api)
    body = msgspec.json.encode({"username": "dev", "password": "dev-password"})
    assert (await api("POST", LOGIN, body, other)).status == 200


async def test_an_address_that_guesses_tokens_is_refused_but_not_known_clients_at_it(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = service_of(api)
    service.stranger_limiter = RateLimiter(3)
    read, looked_up = api.store.credential, 0

    async def look_up(kind: str, credential_id: str) -> Credential | None:
        nonlocal looked_up
        looked_up += 1
        return await read(kind, credential_id)

    monkeypatch.setattr(api.store, "credential", look_up)
    wrong = [await api("GET", "/v1/accounts", headers=bearer(f"wrong-{n}")) for n in range(5)]
    assert [answer.status for answer in wrong] == [401, 401, 401, 429, 429]
    # Once refused, its guesses do not reach the store.
    assert looked_up == 3
    assert (await api("GET", "/v1/accounts", headers=api.bearer)).status == 200
    assert (await api("POST", TOKEN, GRANT, basic())).status == 429
    api.clock.advance(60)
    assert (await api("POST", TOKEN, GRANT, basic())).status == 200

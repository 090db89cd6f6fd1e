"""Sessions: started by a login, renewed by use, ended by 20 idle minutes or a logout."""

import asyncio
from uuid import UUID

import msgspec
import pytest

from .conftest import ACCOUNT, CALLBACK, LOGIN, LOGOUT, RESET, URL, Api, bearer


async def test_a_login_returns_a_guid(api: Api) -> None:
    token = await api.login(await api.token())
    assert str(UUID(token)) == token


@pytest.mark.parametrize("case", [str.upper, str.lower])
async def test_a_guid_is_the_same_in_either_case(api: Api, case: type[str]) -> None:
    headers = {**api.both, "VZ-M2M-Token": case(api.both["VZ-M2M-Token"])}
    assert (await api("GET", CALLBACK, headers=headers)).status == 200


async def test_a_session_ends_after_20_idle_minutes(api: Api) -> None:
    api.clock.advance(1199)
    assert (await api("GET", CALLBACK, headers=api.both)).status == 200
    api.clock.advance(1200)
    answer = await api("GET", CALLBACK, headers=api.both)
    assert answer.error == (401, "REQUEST_FAILED.SessionToken.Expired")


async def test_a_session_in_use_is_renewed(api: Api) -> None:
    for _ in range(4):
        api.clock.advance(600)
        assert (await api("GET", CALLBACK, headers=api.both)).status == 200


async def test_a_session_in_use_is_not_written_with_every_call(api: Api) -> None:
    before = api.rows()
    for _ in range(3):
        api.clock.advance(5)
        await api("GET", CALLBACK, headers=api.both)
    assert api.rows() == before
    api.clock.advance(10)
    await api("GET", CALLBACK, headers=api.both)
    assert api.rows() != before


@pytest.mark.parametrize(
    ("token", "code"),
    [
        (None, "REQUEST_FAILED.SessionToken.Format"),
        ("", "REQUEST_FAILED.SessionToken.Format"),
        ("nonsense", "INPUT_INVALID.SessionToken.Invalid"),
        ("{6f1d5d7c-7d1e-4b56-9d5f-111111111111}", "INPUT_INVALID.SessionToken.Invalid"),
        ("6f1d5d7c7d1e4b569d5f111111111111", "INPUT_INVALID.SessionToken.Invalid"),
        ("6f1d5d7c-7d1e-4b56-9d5f-111111111111", "REQUEST_FAILED.SessionToken.Expired"),
    ],
)
@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", CALLBACK), ("POST", CALLBACK), ("PUT", CALLBACK), ("DELETE", CALLBACK), ("POST", LOGOUT), ("PUT", RESET)],
)
async def test_calls_without_a_valid_session_are_refused(
    api: Api, method: str, path: str, token: str | None, code: str
) -> None:
    before = api.rows()
    headers = api.bearer if token is None else {**api.bearer, "VZ-M2M-Token": token}
    answer = await api(method, path, msgspec.json.encode({"url": URL}), headers)
    assert answer.error == (401, code)
    assert api.rows() == before


async def test_a_logout_ends_the_session_and_not_the_callback(api: Api) -> None:
    await api("POST", CALLBACK, msgspec.json.encode({"url": URL}), api.both)
    answer = await api("POST", LOGOUT, b"", api.both)
    assert (answer.status, answer.json) == (200, {"sessionToken": api.both["VZ-M2M-Token"]})
    assert (await api("GET", CALLBACK, headers=api.both)).error == (401, "REQUEST_FAILED.SessionToken.Expired")
    assert await api.store.callback(ACCOUNT) is not None


async def test_a_call_that_keeps_the_session_alive_does_not_undo_a_logout(api: Api) -> None:
    api.clock.advance(600)
    await asyncio.gather(
        *(api("GET", CALLBACK, headers=api.both) for _ in range(5)), api("POST", LOGOUT, b"", api.both)
    )
    assert (await api("GET", CALLBACK, headers=api.both)).error == (401, "REQUEST_FAILED.SessionToken.Expired")


async def test_a_user_may_have_several_sessions(api: Api) -> None:
    token = await api.token()
    other = {**bearer(token), "VZ-M2M-Token": await api.login(token)}
    await api("POST", LOGOUT, b"", api.both)
    assert (await api("GET", CALLBACK, headers=other)).status == 200


async def test_a_refused_login_does_not_say_what_was_wrong(api: Api) -> None:
    answers = [
        await api("POST", LOGIN, msgspec.json.encode({"username": name, "password": password}), api.bearer)
        for name, password in (("dev", "wrong"), ("nobody", "dev-password"), ("", ""), ("dev", ""), ("d\x00v", "\x00"))
    ]
    assert answers[0].error == (400, "LOGIN_REFUSED")
    assert all(answer == answers[0] for answer in answers)


async def test_a_new_password_replaces_the_old_one_at_once(api: Api) -> None:
    answer = await api("PUT", RESET, b'{"oldPassword": "dev-password"}', api.both)
    password = answer.json["newPassword"]
    assert len(password) >= 20
    await api.login(await api.token(), "dev", password)
    old = msgspec.json.encode({"username": "dev", "password": "dev-password"})
    assert (await api("POST", LOGIN, old, api.bearer)).error == (400, "LOGIN_REFUSED")


async def test_a_new_password_needs_the_old_one(api: Api) -> None:
    before = api.rows()
    answer = await api("PUT", RESET, b'{"oldPassword": "wrong"}', api.both)
    assert answer.error == (400, "LOGIN_REFUSED")
    assert api.rows() == before


async def test_one_of_two_concurrent_resets_wins(api: Api) -> None:
    answers = await asyncio.gather(*(api("PUT", RESET, b'{"oldPassword": "dev-password"}', api.both) for _ in range(2)))
    assert sorted(answer.status for answer in answers) == [200, 400]

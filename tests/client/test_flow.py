"""The pipeline alone: no client, no socket, no clock."""

import time
from collections.abc import Generator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fotahook.client._effects import Acquire, Invoke, Runtime, Send, Sleep
from fotahook.client._flow import Pipeline
from fotahook.client._retry import MAX_BACKOFF, MAX_RETRY_AFTER, retry_delay
from fotahook.client._settings import Limits, Settings
from fotahook.client._tokens import BearerToken, SessionToken
from fotahook.contract.auth import OauthToken, SessionCredentials, ThingspaceOauthCredentials
from fotahook.contract.calls import callback_call, read_summary
from fotahook.contract.errors import (
    ApiException,
    AuthenticationError,
    ConnectionFailed,
    LoginRefused,
    ResponseError,
    ServerError,
    TimedOut,
    TlsError,
)
from fotahook.contract.exchange import Headers, Reply, Secret, retry_after
from fotahook.contract.servers import servers_at

CALL = callback_call("GET", "a", read_summary)
RUNTIME = Runtime(monotonic=lambda: 0.0, now=lambda: 1000.0, jitter=lambda: 0.0, new_key=lambda: "key")
LIMITS = Limits(deadline=60.0, max_retries=2)


class Lock:
    """Counts acquisitions minus releases."""

    def __init__(self) -> None:
        self.held = 0

    def acquire(self) -> None:
        self.held += 1

    def release(self) -> None:
        self.held -= 1


def pipeline() -> Pipeline:
    bearer = BearerToken(ThingspaceOauthCredentials("id", "secret"), RUNTIME)
    session = SessionToken(SessionCredentials("user", "password"), RUNTIME)
    one = Pipeline(servers_at("http://x"), bearer, session, Settings(), RUNTIME)
    one.renew_locks(Lock)
    return one


def ok(body: bytes) -> Reply:
    return Reply(200, "OK", Headers(), body)


TOKEN, SESSION = ok(b'{"access_token": "t"}'), ok(b'{"sessionToken": "s"}')


def run_call(one: Pipeline, replies: list[Reply | Exception]) -> tuple[list[str], object]:
    """Run a call with scripted replies; returns the effects and the result."""
    flow: Generator[Any, Any, Any] = one.perform(CALL, LIMITS)
    effects: list[str] = []
    given: object = None
    try:
        while True:
            effect = flow.throw(given) if isinstance(given, Exception) else flow.send(given)
            given = None
            match effect:
                case Send(request):
                    effects.append(request.url.rpartition("/")[2])
                    given = replies.pop(0)
                case Sleep(seconds):
                    effects.append(f"sleep {seconds:g}")
                case Acquire(lock):
                    assert isinstance(lock, Lock)
                    lock.held += 1
                    effects.append("acquire")
    except StopIteration as done:
        return effects, done.value.data
    except (ApiException, ResponseError, LoginRefused, ConnectionFailed, TimedOut) as error:
        return effects, type(error)


def test_locks_are_held_only_while_tokens_are_fetched() -> None:
    one = pipeline()
    effects, data = run_call(one, [TOKEN, SESSION, ok(b"")])
    assert effects == ["acquire", "acquire", "token", "login", "a"]
    assert data is None
    assert run_call(one, [ok(b"")])[0] == ["a"]
    assert one.bearer is not None
    assert one.session is not None
    assert isinstance(one.bearer.lock, Lock)
    assert isinstance(one.session.lock, Lock)
    assert (one.bearer.lock.held, one.session.lock.held) == (0, 0)


failures = st.sampled_from([408, 429, 500, 503, 401, 400, 403, 302, 204]).map(lambda s: Reply(s, "", Headers(), b""))

lost = st.sampled_from([ConnectionFailed("x"), TimedOut("x"), ResponseError("x")])


@given(st.lists(failures | lost | st.sampled_from([TOKEN, SESSION, ok(b"{")]), max_size=12))
def test_for_any_responses_all_locks_are_released_and_logins_are_bounded(replies: list[Reply | Exception]) -> None:
    one = pipeline()
    effects, _ = run_call(one, [*replies, *[Reply(400, "", Headers(), b"")] * 20])
    assert one.bearer is not None
    assert one.session is not None
    assert isinstance(one.bearer.lock, Lock)
    assert isinstance(one.session.lock, Lock)
    assert (one.bearer.lock.held, one.session.lock.held) == (0, 0)
    # Three attempts of each call, and again after a renewal.
    assert effects.count("login") <= 6
    assert effects.count("a") <= 6


def test_a_closed_flow_releases_its_locks() -> None:
    one = pipeline()
    flow = one.perform(CALL, LIMITS)
    acquire = next(flow)
    assert isinstance(acquire, Acquire)
    assert isinstance(acquire.lock, Lock)
    acquire.lock.held += 1
    flow.send(None)
    flow.close()
    assert acquire.lock.held == 0


def test_a_token_fetched_by_another_flow_is_used() -> None:
    one = pipeline()
    assert one.session is not None
    flow = one.perform(CALL, LIMITS)
    assert isinstance(next(flow), Acquire)
    one.session._token = Secret("s")
    one.session._used_at = 1000.0
    assert isinstance(flow.send(None), Acquire)


def test_the_update_hook_is_called_after_the_token_is_cached() -> None:
    hooked = ThingspaceOauthCredentials("id", "secret", oauth_on_token_update=lambda _: None)
    bearer = BearerToken(hooked, RUNTIME)
    flow = bearer.fetch(lambda call, authorization=None: iter_of(OauthToken("t")))
    assert isinstance(next(flow), Invoke)
    assert bearer.last == Secret("t")


def iter_of(value: object) -> Generator[Any, Any, Any]:
    return value
    yield


@pytest.mark.parametrize("failure", [TimedOut("x"), TlsError("x"), ResponseError("x"), LoginRefused("x")])
def test_other_errors_are_not_retried(failure: Any) -> None:
    assert retry_delay(failure, 1, now=0, jitter=0) is None


@given(
    status=st.integers(400, 700),
    tries=st.integers(1, 10_000),
    now=st.floats(0, 1e10),
    jitter=st.floats(0, 1),
    after=st.none() | st.text() | st.integers().map(str),
)
def test_a_retry_delay_is_bounded_and_only_for_transient_statuses(
    status: int, tries: int, now: float, jitter: float, after: str | None
) -> None:
    headers = Headers([("Retry-After", after)] if after is not None else [])
    failure = ServerError("x", reply=Reply(status, "", headers, b""))
    wait = retry_delay(failure, tries, now=now, jitter=jitter)
    assert (wait is not None) == (status in (408, 429) or status >= 500)
    assert wait is None or 0 <= wait <= max(MAX_BACKOFF, MAX_RETRY_AFTER)


@given(tries=st.integers(1, 50), jitter=st.floats(0, 1))
def test_half_of_the_backoff_is_random(tries: int, jitter: float) -> None:
    wait = retry_delay(ConnectionFailed("x"), tries, now=0, jitter=jitter)
    longest = retry_delay(ConnectionFailed("x"), tries, now=0, jitter=1)
    assert wait is not None
    assert longest is not None
    assert longest / 2 <= wait <= longest


@pytest.mark.parametrize(
    "date", ["Thu, 01 Jan 1970 01:00:00 GMT", "Thu, 01 Jan 1970 01:00:00 -0000", "Thu Jan  1 01:00:00 1970"]
)
def test_a_retry_after_without_a_zone_means_utc(date: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "America/New_York")
        time.tzset()
        assert retry_after(date, 0.0) == 3600
    time.tzset()


def test_an_invalid_retry_after_is_ignored() -> None:
    assert retry_after(None, 0) is None
    assert retry_after("²", 0) is None
    assert retry_after("9" * 400, 0) == float("inf")


def test_an_authentication_error_is_not_retried() -> None:
    assert retry_delay(AuthenticationError("x"), 1, now=0, jitter=0) is None

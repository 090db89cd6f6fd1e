"""The deciding code alone: no client, no socket, no clock."""

import time
from collections.abc import Generator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fotahook.client._effects import Acquire, Hooks, Invoke, Runtime, Send, Sleep
from fotahook.client._flow import Limits, Pipeline
from fotahook.client._retry import MAX_BACKOFF, MAX_RETRY_AFTER, retry_after, retry_delay
from fotahook.client._tokens import BearerToken, SessionToken
from fotahook.contract.auth import OauthToken, SessionCredentials, ThingspaceOauthCredentials
from fotahook.contract.calls import list_registered_callbacks
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
from fotahook.contract.exchange import Headers, Reply
from fotahook.contract.servers import servers_at

CALL = list_registered_callbacks("a")
RUNTIME = Runtime(monotonic=lambda: 0.0, now=lambda: 1000.0, jitter=lambda: 0.0, new_key=lambda: "key")
LIMITS = Limits(deadline=60.0, max_retries=2)


class Lock:
    """Counts how often it was taken and let go."""

    def __init__(self) -> None:
        self.held = 0

    def release(self) -> None:
        self.held -= 1


def pipeline() -> Pipeline:
    bearer = BearerToken(ThingspaceOauthCredentials("id", "secret"), RUNTIME)
    session = SessionToken(SessionCredentials("user", "password"), RUNTIME)
    one = Pipeline(servers_at("http://x"), bearer, session, Hooks(), RUNTIME)
    one.renew_locks(Lock)
    return one


def ok(body: bytes) -> Reply:
    return Reply(200, "OK", Headers(), body)


TOKEN, SESSION = ok(b'{"access_token": "t"}'), ok(b'{"sessionToken": "s"}')


def play(one: Pipeline, replies: list[Reply | Exception]) -> tuple[list[str], object]:
    """Drive a call with the replies; the steps it took, and what it came to."""
    steps: Generator[Any, Any, Any] = one.perform(CALL, LIMITS)
    taken: list[str] = []
    given: object = None
    try:
        while True:
            step = steps.throw(given) if isinstance(given, Exception) else steps.send(given)
            given = None
            match step:
                case Send(request):
                    taken.append(request.url.rpartition("/")[2])
                    given = replies.pop(0)
                case Sleep(seconds):
                    taken.append(f"sleep {seconds:g}")
                case Acquire(lock):
                    assert isinstance(lock, Lock)
                    lock.held += 1
                    taken.append("acquire")
    except StopIteration as done:
        return taken, done.value.data
    except (ApiException, ResponseError, LoginRefused, ConnectionFailed, TimedOut) as error:
        return taken, type(error)


def test_a_cold_call_holds_the_locks_while_it_fetches_and_no_longer() -> None:
    one = pipeline()
    taken, data = play(one, [TOKEN, SESSION, ok(b"")])
    assert taken == ["acquire", "acquire", "token", "login", "a"]
    assert data is None
    assert play(one, [ok(b"")])[0] == ["a"]
    assert one.bearer is not None
    assert one.session is not None
    assert isinstance(one.bearer.lock, Lock)
    assert isinstance(one.session.lock, Lock)
    assert (one.bearer.lock.held, one.session.lock.held) == (0, 0)


failures = st.sampled_from([408, 429, 500, 503, 401, 400, 403, 302, 204]).map(lambda s: Reply(s, "", Headers(), b""))

lost = st.sampled_from([ConnectionFailed("x"), TimedOut("x"), ResponseError("x")])


@given(st.lists(failures | lost | st.sampled_from([TOKEN, SESSION, ok(b"{")]), max_size=12))
def test_whatever_comes_back_every_lock_is_free_in_the_end_and_logins_are_few(replies: list[Reply | Exception]) -> None:
    one = pipeline()
    taken, _ = play(one, [*replies, *[Reply(400, "", Headers(), b"")] * 20])
    assert one.bearer is not None
    assert one.session is not None
    assert isinstance(one.bearer.lock, Lock)
    assert isinstance(one.session.lock, Lock)
    assert (one.bearer.lock.held, one.session.lock.held) == (0, 0)
    # Three tries of each call, and each once more after renewal.
    assert taken.count("login") <= 6
    assert taken.count("a") <= 6


def test_a_closed_flow_lets_its_locks_go() -> None:
    one = pipeline()
    steps = one.perform(CALL, LIMITS)
    hold = next(steps)
    assert isinstance(hold, Acquire)
    assert isinstance(hold.lock, Lock)
    hold.lock.held += 1
    steps.send(None)
    steps.close()
    assert hold.lock.held == 0


def test_a_token_that_came_while_waiting_is_taken() -> None:
    one = pipeline()
    assert one.session is not None
    steps = one.perform(CALL, LIMITS)
    assert isinstance(next(steps), Acquire)
    one.session._token = "s"
    one.session._used_at = 1000.0
    assert isinstance(steps.send(None), Acquire)


def test_an_update_hook_is_asked_after_the_token_is_kept() -> None:
    hooked = ThingspaceOauthCredentials("id", "secret", oauth_on_token_update=lambda _: None)
    bearer = BearerToken(hooked, RUNTIME)
    steps = bearer.fetch(lambda call, authorization=None: iter_of(OauthToken("t")))
    assert isinstance(next(steps), Invoke)
    assert bearer.last == "t"


def iter_of(value: object) -> Generator[Any, Any, Any]:
    return value
    yield


@pytest.mark.parametrize("failure", [TimedOut("x"), TlsError("x"), ResponseError("x"), LoginRefused("x")])
def test_only_connections_and_answers_are_worth_a_retry(failure: Any) -> None:
    assert retry_delay(failure, 1, now=0, jitter=0) is None


@given(
    status=st.integers(400, 700),
    tries=st.integers(1, 10_000),
    now=st.floats(0, 1e10),
    jitter=st.floats(0, 1),
    after=st.none() | st.text() | st.integers().map(str),
)
def test_a_wait_is_bounded_and_only_for_what_may_pass(
    status: int, tries: int, now: float, jitter: float, after: str | None
) -> None:
    headers = Headers([("Retry-After", after)] if after is not None else [])
    failure = ServerError("x", reply=Reply(status, "", headers, b""))
    wait = retry_delay(failure, tries, now=now, jitter=jitter)
    assert (wait is not None) == (status in (408, 429) or status >= 500)
    assert wait is None or 0 <= wait <= max(MAX_BACKOFF, MAX_RETRY_AFTER)


@given(tries=st.integers(1, 50), jitter=st.floats(0, 1))
def test_half_of_a_wait_is_left_to_chance(tries: int, jitter: float) -> None:
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


def test_a_retry_after_that_says_nothing_is_ignored() -> None:
    assert retry_after(None, 0) is None
    assert retry_after("²", 0) is None
    assert retry_after("9" * 400, 0) == float("inf")


def test_an_authentication_error_is_final() -> None:
    assert retry_delay(AuthenticationError("x"), 1, now=0, jitter=0) is None

"""The pipeline alone: no client, no socket, no clock."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fotahook.client._flow import MAX_BACKOFF, MAX_RETRY_AFTER, Pipeline, Token, retry_delay
from fotahook.client._runtime import Runtime, Send, Transport, run_now
from fotahook.client._settings import Limits, Settings
from fotahook.contract.auth import SessionCredentials, ThingspaceOauthCredentials
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


class Script(Transport):
    """A transport with scripted replies, which notes what it is asked for; also the one lock, which counts."""

    def __init__(self) -> None:
        super().__init__(Settings(), RUNTIME)
        self.replies: list[Reply | BaseException] = []
        self.asked: list[str] = []
        self.held = 0

    async def send(self, send: Send, deadline: float) -> Reply:
        self.asked.append(send.request.url.rpartition("/")[2])
        reply = self.replies.pop(0)
        if isinstance(reply, BaseException):
            raise reply
        return reply

    async def acquire(self, token: object, deadline: float) -> Callable[[], None]:
        self.asked.append("acquire")
        self.held += 1
        return self.release

    def release(self) -> None:
        self.held -= 1

    async def invoke(self, function: Callable[[Any], object], argument: object, deadline: float) -> Any:
        return function(argument)

    async def sleep(self, seconds: float) -> None:
        self.asked.append(f"sleep {seconds:g}")


def pipeline(script: Script, **options: Any) -> Pipeline:
    oauth, login = ThingspaceOauthCredentials("id", "secret", **options), SessionCredentials("user", "password")
    return Pipeline(servers_at("http://x"), oauth, login, Settings(), RUNTIME, script)


def ok(body: bytes) -> Reply:
    return Reply(200, "OK", Headers(), body)


TOKEN, SESSION = ok(b'{"access_token": "t"}'), ok(b'{"sessionToken": "s"}')


def run_call(one: Pipeline, script: Script, replies: list[Reply | BaseException]) -> tuple[list[str], object]:
    """Run a call with scripted replies; returns what it asked its transport for, and its result."""
    script.replies, script.asked = replies, []
    try:
        return script.asked, run_now(one.perform(CALL, LIMITS)).data
    except (ApiException, ResponseError, LoginRefused, ConnectionFailed, TimedOut) as error:
        return script.asked, type(error)


def test_locks_are_held_only_while_tokens_are_fetched() -> None:
    script = Script()
    one = pipeline(script)
    asked, data = run_call(one, script, [TOKEN, SESSION, ok(b"")])
    assert asked == ["acquire", "acquire", "token", "login", "a"]
    assert data is None
    assert run_call(one, script, [ok(b"")])[0] == ["a"]
    assert script.held == 0


failures = st.sampled_from([408, 429, 500, 503, 401, 400, 403, 302, 204]).map(lambda s: Reply(s, "", Headers(), b""))

lost = st.sampled_from([ConnectionFailed("x"), TimedOut("x"), ResponseError("x")])


@given(st.lists(failures | lost | st.sampled_from([TOKEN, SESSION, ok(b"{")]), max_size=12))
def test_for_any_responses_all_locks_are_released_and_logins_are_bounded(replies: list[Reply | BaseException]) -> None:
    script = Script()
    asked, _ = run_call(pipeline(script), script, [*replies, *[Reply(400, "", Headers(), b"")] * 20])
    assert script.held == 0
    # Three attempts of each call, and again after a renewal.
    assert asked.count("login") <= 6
    assert asked.count("a") <= 6


def test_an_interrupted_flow_releases_its_locks() -> None:
    script = Script()
    with pytest.raises(KeyboardInterrupt):
        run_call(pipeline(script), script, [KeyboardInterrupt()])
    assert (script.asked, script.held) == (["acquire", "acquire", "token"], 0)


def test_a_token_fetched_by_another_flow_is_used() -> None:
    class Meanwhile(Script):
        async def acquire(self, token: object, deadline: float) -> Callable[[], None]:
            if isinstance(token, Token) and token.idle:
                token.value, token.valid_until = Secret("s"), 2000.0
            return await super().acquire(token, deadline)

    script = Meanwhile()
    assert run_call(pipeline(script), script, [TOKEN, ok(b"")]) == (["acquire", "acquire", "token", "a"], None)


def test_the_update_hook_is_called_after_the_token_is_cached() -> None:
    script = Script()
    cached: list[object] = []
    one: Pipeline = pipeline(script, oauth_on_token_update=lambda _: cached.append(one.bearer.value))
    run_call(one, script, [TOKEN, SESSION, ok(b"")])
    assert cached == [Secret("Bearer t")]


FINAL = [TimedOut("x"), TlsError("x"), ResponseError("x"), LoginRefused("x"), AuthenticationError("x")]


def test_a_flow_that_waits_cannot_run_in_a_thread() -> None:
    with pytest.raises(RuntimeError, match="a flow waited in a thread"):
        run_now(asyncio.sleep(0))


@pytest.mark.parametrize("failure", FINAL)
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

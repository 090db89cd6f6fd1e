"""The rate limit of a client affects neither other clients nor health checks."""

import pytest

from fotahook.service import Settings, build_app
from fotahook.service.errors import ApiError
from fotahook.service.health import HEALTH_PATHS
from fotahook.service.limits import RateLimiter

from .conftest import CALLBACK, GRANT, MESSAGES, TOKEN, Api, basic, client_of
from .serving import SECRET_KEY


@pytest.fixture
async def limited(api: Api) -> Api:
    """A service in which a client has ten requests a minute, none of them spent."""
    api.app = build_app(api.store, Settings(secret_key=SECRET_KEY, clock=api.clock, requests_per_minute=10))
    return api


async def test_a_client_over_its_rate_limit_gets_retry_after(limited: Api) -> None:
    for _ in range(10):
        assert (await limited("POST", MESSAGES, b"{}", limited.bearer)).status == 202
    for method, path, body, headers in (
        ("POST", MESSAGES, b"{}", limited.bearer),
        ("GET", CALLBACK, b"", limited.both),
        ("POST", TOKEN, GRANT, basic()),
    ):
        answer = await limited(method, path, body, headers)
        assert answer.error == (429, "TOO_MANY_REQUESTS")
        assert answer.header("retry-after") == "6"
    limited.clock.advance(6)
    assert (await limited("POST", MESSAGES, b"{}", limited.bearer)).status == 202
    assert (await limited("POST", MESSAGES, b"{}", limited.bearer)).status == 429


async def test_other_clients_are_not_limited(limited: Api) -> None:
    other = await client_of(limited)
    answers = [await limited("GET", CALLBACK, headers=limited.both) for _ in range(11)]
    assert [answer.status for answer in answers] == [200] * 10 + [429]
    assert (await limited("GET", CALLBACK, headers=other)).status == 200
    for path in HEALTH_PATHS:
        assert (await limited("GET", path, headers=limited.both)).status == 200


async def test_unauthenticated_requests_are_not_counted(limited: Api) -> None:
    for _ in range(20):
        assert (await limited("POST", TOKEN, GRANT, basic("dev", "wrong"))).status == 401
    assert (await limited("POST", TOKEN, GRANT, basic())).status == 200


def test_a_bucket_holds_one_minute_of_requests() -> None:
    limiter = RateLimiter(60)
    for now in (0.0, 1_000_000.0):
        for _ in range(60):
            limiter.count("a", now)
        with pytest.raises(ApiError, match="429"):
            limiter.count("a", now)


def test_a_clock_that_is_set_back_locks_nobody_out() -> None:
    limiter = RateLimiter(1)
    limiter.count("a", 1_000_000.0)
    limiter.count("a", 500.0)
    with pytest.raises(ApiError, match="429"):
        limiter.count("a", 501.0)


def test_zero_means_no_limit() -> None:
    limiter = RateLimiter(0)
    for _ in range(1000):
        limiter.count("a", 1.0)


def test_the_number_of_buckets_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fotahook.service.limits._MAX_ENTRIES", 2)
    limiter = RateLimiter(1)
    for client in ("a", "b", "c", "a"):
        limiter.count(client, 1.0)
    assert len(limiter._used_until) == 2

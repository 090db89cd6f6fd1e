"""No input ends in a 500 or a traceback: arbitrary bytes as paths, headers and bodies, at every route."""

import asyncio
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fotahook.service import Settings, build_app, provision_dev
from fotahook.store import SqliteStore

from .conftest import (
    ACCOUNT,
    CALLBACK,
    LOGIN,
    LOGOUT,
    MESSAGES,
    RESET,
    REVOKE,
    TOKEN,
    Api,
    FakeClock,
    basic,
)
from .serving import SECRET_KEY

ROUTES = [
    CALLBACK,
    TOKEN,
    REVOKE,
    LOGIN,
    LOGOUT,
    RESET,
    MESSAGES,
    f"/v1/accounts/{ACCOUNT}",
    f"/v1/accounts/{ACCOUNT}/signing-keys",
    f"/v1/accounts/{ACCOUNT}/signing-keys/x",
    "/v1/messages",
    "/v1/messages/x",
    "/v1/messages/x/body",
    "/v1/messages/x/attempts",
    "/v1/messages/x/why",
    "/v1/messages/x/redeliver",
    "/v1/accounts",
    f"/v1/accounts/{ACCOUNT}/callbacks",
    f"/v1/accounts/{ACCOUNT}/pause",
    f"/v1/accounts/{ACCOUNT}/redeliver",
    "/v1/signing-key",
    "/healthz",
    "/readyz",
    "/openapi.json",
]
METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"]
KNOWN = [b"authorization", b"vz-m2m-token", b"idempotency-key", b"ordering-key", b"content-length", b"content-type"]
FRAGMENTS = [
    b'{"url": "',
    b'"type": "',
    b"grant_type=client_credentials",
    b"\\ud800",
    b"\x00",
    b"%00",
    b"[" * 2000,
    b"}",
]

paths = st.one_of(
    st.sampled_from(ROUTES).map(str.encode),
    st.binary(max_size=80).map(lambda tail: b"/" + tail),
    st.tuples(
        st.sampled_from([b"/api/fota/v2/callbacks/", b"/v1/messages/", b"/v1/accounts/"]), st.binary(max_size=80)
    ).map(b"".join),
    st.tuples(
        st.sampled_from([MESSAGES, "/v1/accounts"]),
        st.sampled_from(["state", "type", "key", "since", "until", "cursor", "limit"]),
        st.binary(max_size=20).map(lambda value: value.hex("%")) | st.text("abc0123456789-:TZ=&%", max_size=20),
    ).map(lambda parts: "{}?{}={}".format(*parts).encode()),
    st.binary(max_size=30).map(lambda segment: f"/v1/accounts/{segment.hex('%')}/messages".encode()),
)
bodies = st.one_of(
    st.binary(max_size=200), st.lists(st.sampled_from(FRAGMENTS) | st.binary(max_size=20), max_size=6).map(b"".join)
)
headers = st.lists(st.tuples(st.sampled_from(KNOWN) | st.binary(max_size=20), st.binary(max_size=60)), max_size=4)


@contextmanager
def running_api() -> Iterator[tuple[asyncio.Runner, Api]]:
    """One service for all examples: hypothesis must not open a store for each."""
    with tempfile.TemporaryDirectory() as folder, asyncio.Runner() as runner:
        file, clock = Path(folder) / "fuzz.db", FakeClock()
        store = runner.run(SqliteStore.open(file, clock=clock))
        try:
            runner.run(provision_dev(store, clock=clock))
            api = Api(build_app(store, Settings(secret_key=SECRET_KEY, clock=clock)), store, file, clock)
            runner.run(api.sign_in())
            yield runner, api
        finally:
            runner.run(store.close())


@pytest.fixture(scope="module")
def fuzzed() -> Iterator[tuple[asyncio.Runner, Api]]:
    with running_api() as running:
        yield running


@settings(max_examples=600, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(
    method=st.sampled_from(METHODS) | st.text(max_size=10),
    path=paths,
    body=st.lists(bodies, min_size=1, max_size=3),
    extra=headers,
    credentials=st.sampled_from(["none", "basic", "bearer", "both"]),
)
def test_whatever_comes_has_an_answer(
    fuzzed: tuple[asyncio.Runner, Api],
    method: str,
    path: bytes,
    body: list[bytes],
    extra: list[tuple[bytes, bytes]],
    credentials: str,
) -> None:
    runner, api = fuzzed
    known = {"none": {}, "basic": basic(), "bearer": api.bearer, "both": api.both}[credentials]
    pairs = [(name.lower().encode(), value.encode()) for name, value in known.items()]
    answer = runner.run(api(method, path, body, [*pairs, *extra]))
    assert answer.status < 500, answer
    if answer.status >= 400 and method != "HEAD":
        assert set(answer.json) & {"errorCode", "fault"}

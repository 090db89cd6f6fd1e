"""No input causes a 500 or a traceback: arbitrary paths, headers and bodies, at every route."""

import asyncio
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fotahook.service import Settings, build_app
from fotahook.service.credentials import provision_dev
from fotahook.store import SqliteStore

from .conftest import ACCOUNT, MESSAGES, Api, FakeClock, basic
from .serving import SECRET_KEY

APP = build_app(None, Settings(secret_key=SECRET_KEY))  # type: ignore[arg-type]  # nothing of it is called
ROUTES = [path.encode() for path in APP.resources]
NAMED = {b"{account}": [ACCOUNT.encode(), b"", b"%", b"a%2Fb"], b"{id}": [b"x", b"%00", b"\xff"]}
"""What stands in for a parameter of a path, beside arbitrary bytes; an id is once in a while that of a message."""
METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"]
KNOWN = [
    b"authorization",
    b"vz-m2m-token",
    b"idempotency-key",
    b"ordering-key",
    b"last-event-id",
    b"content-length",
    b"content-type",
]
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


@st.composite
def route_paths(draw: st.DrawFn) -> bytes:
    path = draw(st.sampled_from(ROUTES))
    for name, values in NAMED.items():
        path = path.replace(name, draw(st.sampled_from(values) | st.just(name) | st.binary(max_size=30)))
    return path


paths = st.one_of(
    route_paths(),
    route_paths(),
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
def running_api() -> Iterator[tuple[asyncio.Runner, Api, bytes]]:
    """One service for all examples, with a message in it: hypothesis must not open a store for each."""
    with tempfile.TemporaryDirectory() as folder, asyncio.Runner() as runner:
        file, clock = Path(folder) / "fuzz.db", FakeClock()
        store = runner.run(SqliteStore.open(file, clock=clock))
        try:
            runner.run(provision_dev(store, clock=clock))
            api = Api(build_app(store, Settings(secret_key=SECRET_KEY, clock=clock)), store, file, clock)
            runner.run(api.sign_in())
            message = runner.run(api("POST", MESSAGES, b"{}", api.bearer))
            yield runner, api, message.json["id"].encode()
        finally:
            runner.run(store.close())


@pytest.fixture(scope="module")
def fuzzed() -> Iterator[tuple[asyncio.Runner, Api, bytes]]:
    with running_api() as running:
        yield running


@settings(
    max_examples=600,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(
    method=st.sampled_from(METHODS) | st.text(max_size=10),
    path=paths,
    body=st.lists(bodies, min_size=1, max_size=3),
    extra=headers,
    credentials=st.sampled_from(["none", "basic", "bearer", "both"]),
)
def test_any_request_is_answered(
    fuzzed: tuple[asyncio.Runner, Api, bytes],
    caplog: pytest.LogCaptureFixture,
    method: str,
    path: bytes,
    body: list[bytes],
    extra: list[tuple[bytes, bytes]],
    credentials: str,
) -> None:
    runner, api, message_id = fuzzed
    path = path.replace(b"{id}", message_id).replace(b"{account}", ACCOUNT.encode())
    known = {"none": {}, "basic": basic(), "bearer": api.bearer, "both": api.both}[credentials]
    pairs = [(name.lower().encode(), value.encode()) for name, value in known.items()]
    answer = runner.run(api(method, path, body, [*pairs, *extra]))
    assert answer.status < 500, answer
    if answer.status >= 400 and method != "HEAD":
        assert set(answer.json) & {"errorCode", "fault"}
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


@pytest.mark.parametrize("path", ROUTES, ids=bytes.decode)
@settings(max_examples=15, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=bodies, extra=headers, method=st.sampled_from(METHODS))
def test_any_authenticated_request_is_answered(
    fuzzed: tuple[asyncio.Runner, Api, bytes],
    caplog: pytest.LogCaptureFixture,
    path: bytes,
    method: str,
    body: bytes,
    extra: list[tuple[bytes, bytes]],
) -> None:
    """With good tokens, so that what is fuzzed reaches the handler, of every route."""
    runner, api, message_id = fuzzed
    if path.endswith(b"/logout"):
        # The last example may have been a good one.
        runner.run(api.sign_in())
    token = basic() if b"oauth2" in path else api.both
    pairs = [(name.lower().encode(), value.encode()) for name, value in token.items()]
    path = path.replace(b"{id}", message_id).replace(b"{account}", ACCOUNT.encode())
    answer = runner.run(api(method, path, body, [*pairs, *extra]))
    assert answer.status < 500, answer
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []

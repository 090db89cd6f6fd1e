"""Arbitrary bytes over a socket to every route of a service process: no 5xx response, no traceback in its log."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import urllib3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.cli.processes import Running, running
from tests.deadlines import DEADLINE
from tests.service.test_fuzz import ROUTES, bodies, route_paths

METHODS = [b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"TRACE", b"CONNECT", b"PRI", b"get"]
FRAMING = [
    b"Content-Length: 5",
    b"Content-Length: -1",
    b"Content-Length: 99999999999999999999",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: gzip, chunked",
    b"Expect: 100-continue",
    b"Connection: Upgrade\r\nUpgrade: websocket",
    b"Connection: keep-alive",
    b" folded",
]
EXAMPLES = settings(
    max_examples=200,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def lines(size: int) -> st.SearchStrategy[bytes]:
    """Bytes without line ends, after which the server might rightly wait for more."""
    return st.binary(max_size=size).map(lambda text: text.replace(b"\r", b"").replace(b"\n", b""))


targets = st.one_of(route_paths(), lines(60).map(lambda tail: b"/" + tail), lines(30))
names = st.sampled_from([b"Authorization", b"VZ-M2M-Token", b"X-Request-Id", b"Host", b"Idempotency-Key"]) | lines(10)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("raw")
    with running("serve", "--dev", "--port", "0", "--log-requests", cwd=folder) as service:
        yield service
        # Whatever was sent, the service stops cleanly and no request failed.
        assert service.stop() == 0
        assert failures_in(service.log) == []


def failures_in(log: Path) -> list[str]:
    """The messages of a log that tell of failures."""
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    return [
        entry["message"]
        for entry in entries
        if entry["level"] in ("error", "critical") or "exception" in entry or entry.get("status", 0) >= 500
    ]


@pytest.fixture(scope="module")
def tokens(service: Running) -> bytes:
    """Headers of a client that may call everything."""
    with urllib3.PoolManager() as http:
        url = service.url
        basic = urllib3.make_headers(basic_auth="dev:dev-secret")
        grant = b"grant_type=client_credentials"
        token = http.request("POST", f"{url}/api/ts/v1/oauth2/token", body=grant, headers=basic).json()["access_token"]
        body, bearer = b'{"username": "dev", "password": "dev-password"}', {"Authorization": f"Bearer {token}"}
        login = http.request("POST", f"{url}/api/m2m/v1/session/login", body=body, headers=bearer).json()
    return f"Authorization: Bearer {token}\r\nVZ-M2M-Token: {login['sessionToken']}\r\n".encode()


def first_line(service: Running, request: bytes) -> bytes:
    """The first line of the response; an event stream has no end to wait for."""
    host, port = service.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=DEADLINE) as peer:
        peer.sendall(request)
        return peer.makefile("rb").readline()


@EXAMPLES
@given(
    method=st.sampled_from(METHODS) | lines(8),
    target=targets,
    header=st.tuples(names, lines(40)),
    body=bodies,
    known=st.booleans(),
)
def test_every_complete_request_gets_a_response(
    service: Running,
    tokens: bytes,
    method: bytes,
    target: bytes,
    header: tuple[bytes, bytes],
    body: bytes,
    known: bool,
) -> None:
    target = target.replace(b"{account}", b"0000123456-00001")
    head = b"%b %b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n%b" % (method, target, tokens if known else b"")
    head += b"%b: %b\r\nContent-Length: %d\r\n\r\n" % (*header, len(body))
    assert first_line(service, head + body)[:10] in (b"HTTP/1.1 2", b"HTTP/1.1 4")


@EXAMPLES
@given(
    start=lines(40) | st.sampled_from([b"POST " + path + b" HTTP/1.1" for path in ROUTES]),
    head=st.lists(st.sampled_from(FRAMING) | lines(30), max_size=4),
    rest=st.binary(max_size=200)
    | st.lists(st.sampled_from([b"5\r\nhello\r\n", b"0\r\n\r\n", b"ffff\r\n"])).map(b"".join),
    known=st.booleans(),
)
def test_the_service_survives_incomplete_requests(
    service: Running, tokens: bytes, start: bytes, head: list[bytes], rest: bytes, known: bool
) -> None:
    host, port = service.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=DEADLINE) as peer:
        peer.sendall(b"\r\n".join([start, *head]) + b"\r\n" + (tokens if known else b"") + b"\r\n" + rest)
    assert first_line(service, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n") == b"HTTP/1.1 200 OK\r\n"

"""The service behind a real server."""

import logging
import socket

import msgspec
import pytest
import urllib3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.deadlines import DEADLINE

from .conftest import ACCOUNT, CALLBACK, GRANT, LOGIN, LOGOUT, MESSAGES, TOKEN, basic, bearer

EXAMPLE = "https://10.120.102.183:50559/CallbackListener/FirmwareServiceMessages.asmx"


@pytest.fixture
def http() -> urllib3.PoolManager:
    return urllib3.PoolManager(retries=False, timeout=DEADLINE)


@pytest.fixture
def both(http: urllib3.PoolManager, base_url: str) -> dict[str, str]:
    """Both tokens, fetched as any client would."""
    token = http.request("POST", base_url + TOKEN, body=GRANT, headers=basic()).json()["access_token"]
    body = msgspec.json.encode({"username": "dev", "password": "dev-password"})
    session = http.request("POST", base_url + LOGIN, body=body, headers=bearer(token)).json()["sessionToken"]
    return {**bearer(token), "VZ-M2M-Token": session}


def test_the_four_calls_and_a_message(http: urllib3.PoolManager, base_url: str, both: dict[str, str]) -> None:
    url = base_url + CALLBACK
    body = msgspec.json.encode({"url": EXAMPLE})
    headers = {**both, "Content-Type": "*/*"}
    empty = http.request("GET", url, headers=both)
    assert (empty.status, empty.data) == (200, b"")
    assert http.request("POST", url, body=body, headers=headers).json() == {"url": EXAMPLE}
    assert http.request("PUT", url, body=body, headers=headers).json() == {"url": EXAMPLE}
    assert http.request("GET", url, headers=both).json() == {"url": EXAMPLE}
    assert http.request("DELETE", url, headers=both).json() == {"success": True}
    published = http.request("POST", base_url + MESSAGES, body=b'{"type": "x"}', headers=both)
    assert published.status == 202
    account = http.request("GET", f"{base_url}/v1/accounts/{ACCOUNT}", headers=both).json()
    assert account["backlog"]["pending"] == 1
    assert http.request("POST", base_url + LOGOUT, headers=both).json() == {"sessionToken": both["VZ-M2M-Token"]}


def test_an_encoded_slash_stays_within_the_account(
    http: urllib3.PoolManager, base_url: str, both: dict[str, str]
) -> None:
    answer = http.request("GET", f"{base_url}/api/fota/v2/callbacks/a%2Fb", headers=both)
    assert (answer.status, answer.json()["errorMessage"]) == (400, "Invalid account name format")


@pytest.mark.parametrize("path", ["..", "."])
def test_dots_are_refused_as_they_are_sent(base_url: str, both: dict[str, str], path: str) -> None:
    lines = [f"GET /api/fota/v2/callbacks/{path} HTTP/1.1", "Host: localhost", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in both.items()]
    answer = exchange(base_url, "\r\n".join([*lines, "", ""]).encode())
    assert b" 400 " in answer.split(b"\r\n")[0]
    assert b"Invalid account name format" in answer


def test_a_body_that_is_too_large_is_refused_before_it_is_sent(base_url: str, both: dict[str, str]) -> None:
    lines = [f"POST {MESSAGES} HTTP/1.1", "Host: localhost", "Connection: close", "Content-Length: 300000000"]
    lines += [f"{name}: {value}" for name, value in both.items()]
    answer = exchange(base_url, "\r\n".join([*lines, "", ""]).encode())
    assert b" 413 " in answer.split(b"\r\n")[0]


def test_the_connection_goes_on_after_an_error(http: urllib3.PoolManager, base_url: str, both: dict[str, str]) -> None:
    for body, status in ((b"x" * 300_000, 413), (b"nonsense", 400), (b"", 400), (b"{}", 202)):
        assert http.request("POST", base_url + MESSAGES, body=body, headers=both).status == status
    head = http.request("HEAD", base_url + CALLBACK, headers=both)
    assert (head.status, head.data) == (200, b"")
    assert http.request("GET", base_url + "/healthz").status == 200


def line(size: int) -> st.SearchStrategy[bytes]:
    """Any bytes that do not end a line: with those, the server might rightly wait for more."""
    return st.binary(max_size=size).map(lambda text: text.replace(b"\r", b"").replace(b"\n", b""))


@pytest.fixture
def lively(base_url: str, caplog: pytest.LogCaptureFixture) -> str:
    caplog.set_level(logging.ERROR)
    return base_url


@settings(max_examples=60, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=line(60),
    header=st.tuples(line(20), line(40)),
    body=st.binary(max_size=100),
    method=st.sampled_from([b"GET", b"POST", b"PUT", b"DELETE", b"\xff"]),
)
def test_arbitrary_bytes_leave_the_service_alive(
    lively: str,
    caplog: pytest.LogCaptureFixture,
    path: bytes,
    header: tuple[bytes, bytes],
    body: bytes,
    method: bytes,
) -> None:
    name, value = header
    head = b"%b /api/fota/v2/callbacks/%b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%b: %b\r\n" % (
        method,
        path,
        name,
        value,
    )
    answer = exchange(lively, head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    assert answer[:10] in (b"HTTP/1.1 2", b"HTTP/1.1 4"), answer
    assert "Traceback" not in caplog.text


def test_a_disconnect_during_the_body_is_not_logged_as_an_error(
    base_url: str, both: dict[str, str], http: urllib3.PoolManager, caplog: pytest.LogCaptureFixture
) -> None:
    lines = [f"POST {MESSAGES} HTTP/1.1", "Host: localhost", "Content-Length: 100"]
    lines += [f"{name}: {value}" for name, value in both.items()]
    with connection(base_url) as peer:
        peer.sendall("\r\n".join([*lines, "", '{"half": ']).encode())
    account = http.request("GET", f"{base_url}/v1/accounts/{ACCOUNT}", headers=both).json()
    assert account["backlog"]["pending"] == 0
    assert "Traceback" not in caplog.text


def connection(base_url: str) -> socket.socket:
    host, port = base_url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=DEADLINE)


def exchange(base_url: str, request: bytes) -> bytes:
    """What comes back for these bytes until the service closes the connection."""
    with connection(base_url) as peer:
        peer.sendall(request)
        return b"".join(iter(lambda: peer.recv(65536), b""))

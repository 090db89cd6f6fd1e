"""The limits of a server as it is started, and that it stays well while others hang on."""

import json
import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import urllib3

from fotahook import Client, FotaV2CallbackRegistrationRequest, SessionCredentials, ThingspaceOauthCredentials
from fotahook.cli.listen import ListenOptions, configure
from fotahook.listener import Listener
from fotahook.service.health import HEALTH_PATHS
from fotahook.testing import make_certificates
from tests.deadlines import DEADLINE

from .conftest import Run, is_one_line
from .processes import Running, running

ACCOUNT = "0000123456-00001"
SLOW = 100
"""Clients of each kind."""
SLOW_HEAD = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: "
SLOW_BODY = (
    "POST /v1/accounts/{}/messages HTTP/1.1\r\nHost: localhost\r\n"
    "Authorization: Bearer {}\r\nContent-Length: 100\r\n\r\n{{"
)


def connect(url: str, sent: bytes) -> socket.socket:
    host, _, port = url.removeprefix("http://").partition(":")
    peer = socket.create_connection((host, int(port.partition("/")[0])), timeout=DEADLINE)
    peer.sendall(sent)
    return peer


def received(peer: socket.socket) -> bytes:
    """Everything that comes until the server hangs up."""
    with peer:
        return b"".join(iter(lambda: peer.recv(65536), b""))


@contextmanager
def hanging_on(url: str) -> Iterator[list[socket.socket]]:
    """Clients that begin a head, or the body of a message that they may publish, and never end it."""
    slow_body = SLOW_BODY.format(ACCOUNT, ask_for_token(url).json()["access_token"]).encode()
    with ExitStack() as stack:
        yield [stack.enter_context(connect(url, begun)) for begun in (SLOW_HEAD, slow_body) for _ in range(SLOW)]


def ask_for_token(url: str) -> urllib3.BaseHTTPResponse:
    with urllib3.PoolManager(retries=False, timeout=DEADLINE) as http:
        headers = urllib3.make_headers(basic_auth="dev:dev-secret")
        return http.request(
            "POST", f"{url}/api/ts/v1/oauth2/token", body=b"grant_type=client_credentials", headers=headers
        )


def call_everything(url: str) -> None:
    with urllib3.PoolManager(retries=False, timeout=DEADLINE) as http:
        for path in HEALTH_PATHS:
            assert http.request("GET", url + path).status == 200
    with Client(
        base_url=url,
        thingspace_oauth_credentials=ThingspaceOauthCredentials("dev", "dev-secret"),
        vz_m2m_token_credentials=SessionCredentials("dev", "dev-password"),
        timeout=DEADLINE,
        max_retries=0,
        proxy="",
    ) as client:
        callbacks = client.software_management_callbacks_v2
        body = FotaV2CallbackRegistrationRequest("https://listener.example.com/")
        assert callbacks.register_callback(ACCOUNT, body).data.url == body.url
        assert callbacks.update_callback(ACCOUNT, body).data.url == body.url
        assert callbacks.list_registered_callbacks(ACCOUNT).data is not None
        assert callbacks.deregister_callback(ACCOUNT).data.success


@pytest.fixture
def service(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Running]:
    """A service with the flags that the test names."""
    with running("serve", "--dev", "--port", "0", *getattr(request, "param", ()), cwd=tmp_path) as service:
        yield service


def test_with_200_slow_clients_hanging_on_everybody_else_is_served(service: Running) -> None:
    with hanging_on(service.url) as peers:
        for _ in range(3):
            call_everything(service.url)
        for peer in peers:
            # Still there, still slow.
            peer.sendall(b"x")
        call_everything(service.url)
    assert service.stop() == 0
    assert "Traceback" not in service.log.read_text()


@pytest.mark.parametrize("service", [("--connections-per-address", "10")], indirect=True)
def test_slow_clients_with_more_than_their_share_push_out_one_another(service: Running) -> None:
    with hanging_on(service.url):
        call_everything(service.url)
    entries = [json.loads(line) for line in service.log.read_text().splitlines()]
    (entry,) = [entry for entry in entries if "--connections-per-address" in entry["message"]]
    assert entry["level"] == "warning"


@pytest.mark.parametrize("service", [("--header-timeout", "0.1", "--body-timeout", "0.1")], indirect=True)
def test_slow_clients_are_ended(service: Running) -> None:
    with hanging_on(service.url) as peers:
        result = [received(peer) for peer in peers]
    assert {answer.split(b"\r\n")[0] for answer in result} == {b"HTTP/1.1 408 Request Timeout"}
    call_everything(service.url)


@pytest.mark.parametrize("service", [("--requests-per-minute", "3")], indirect=True)
def test_health_is_answered_to_a_client_that_had_its_share(service: Running) -> None:
    answers = [ask_for_token(service.url) for _ in range(4)]
    assert [answer.status for answer in answers] == [200, 200, 200, 429]
    assert answers[-1].json()["errorCode"] == "TOO_MANY_REQUESTS"
    assert int(answers[-1].headers["Retry-After"]) > 0
    with urllib3.PoolManager() as http:
        assert http.request("GET", f"{service.url}/healthz").status == 200


@pytest.mark.parametrize("service", [("--header-bytes", "5000", "--log-requests")], indirect=True)
def test_what_becomes_no_request_is_refused_in_our_shape(service: Running) -> None:
    large = b"GET / HTTP/1.1\r\nHost: localhost\r\nX: %b\r\n\r\n" % (b"x" * 5000)
    for sent, status, code in ((large, b"431", "HEADERS_TOO_LARGE"), (b"\0\r\n\r\n", b"400", "INVALID_PARAMETER")):
        head, _, body = received(connect(service.url, sent)).partition(b"\r\n\r\n")
        assert head.split()[1] == status
        assert json.loads(body)["errorCode"] == code
    with urllib3.PoolManager() as http:
        request_id = http.request("GET", f"{service.url}/healthz", headers={"X-Request-Id": "mine"}).headers[
            "X-Request-Id"
        ]
    assert service.stop() == 0
    (entry,) = [json.loads(line) for line in service.log.read_text().splitlines()]
    assert (entry["request_id"], entry["message"]) == (request_id, "GET /healthz: 200") == ("mine", "GET /healthz: 200")


def test_a_listener_has_them_too(tmp_path: Path) -> None:
    with running("listen", "--port", "0", "--header-timeout", "0.1", cwd=tmp_path) as listener:
        slow = connect(listener.url, SLOW_HEAD)
        assert received(slow).startswith(b"HTTP/1.1 408 ")
        with urllib3.PoolManager() as http:
            assert http.request("GET", listener.url.rstrip("/") + "/healthz").headers["X-Request-Id"]


@pytest.mark.parametrize(
    ("module", "flags"), [("0.1", ()), ("3600", ("--body-timeout", "0.1"))], ids=["by the module", "by the flag"]
)
def test_a_listener_ends_slow_bodies_whether_it_reads_them_or_not(
    tmp_path: Path, module: str, flags: tuple[str, ...]
) -> None:
    source = f"import fotahook\nlistener = fotahook.Listener(body_timeout={module})\n"
    (tmp_path / "handlers.py").write_text(source)
    with running("listen", "handlers:listener", "--port", "0", *flags, cwd=tmp_path) as listener:
        for path, statuses in (("/", ["408"]), ("/elsewhere", ["404", "408"])):
            begun = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{{".encode()
            result = received(connect(listener.url, begun)).decode()
            assert re.findall(r"HTTP/1.1 (\d+)", result) == statuses
            assert '"errorCode":"REQUEST_TIMEOUT"' in result


def test_a_listener_gives_bodies_the_time_of_the_flag_or_else_of_its_module(tmp_path: Path) -> None:
    listener = Listener(body_timeout=45)
    configure(listener, ListenOptions())
    assert listener.settings.body_timeout == 45
    configure(listener, ListenOptions(body_timeout=120))
    assert listener.settings.body_timeout == 120


@pytest.mark.parametrize("command", ["serve", "listen"])
@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--header-bytes", "100"),
        ("--header-timeout", "0"),
        ("--body-timeout", "nan"),
        ("--idle-timeout", "4000"),
        ("--connections-per-address", "0"),
    ],
)
def test_limits_out_of_range_are_refused(run: Run, command: str, flag: str, value: str) -> None:
    result = run(command, "--port", "0", flag, value)
    assert result.code == 2
    assert is_one_line(result.err)
    assert f'{value}" for {flag}. Must be' in result.err.replace("0.0", "0").replace("4000.0", "4000")


def test_a_number_of_requests_below_zero_is_refused(run: Run) -> None:
    assert "Must be >= 0" in run("serve", "--requests-per-minute", "-1").err


def test_a_client_that_says_no_farewell_does_not_hold_up_the_end(tmp_path: Path) -> None:
    made = make_certificates(tmp_path, "127.0.0.1")
    flags = ("--tls-cert", str(made.cert_file), "--tls-key", str(made.key_file))
    with running("serve", "--port", "0", *flags, cwd=tmp_path) as service:
        host, _, port = service.url.removeprefix("https://").partition(":")
        context = ssl.create_default_context(cafile=made.ca_file)
        with context.wrap_socket(socket.create_connection((host, int(port))), server_hostname=host) as peer:
            peer.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert b"".join(iter(lambda: peer.recv(65536), b"")).startswith(b"HTTP/1.1 200 ")
            assert service.stop() == 0
        # It would say that it waited in vain.
        assert service.log.read_text() == ""


def test_connections_that_never_begin_tls_leave_room_for_others(tmp_path: Path) -> None:
    made = make_certificates(tmp_path, "127.0.0.1")
    flags = ("--tls-cert", str(made.cert_file), "--tls-key", str(made.key_file), "--connections-per-address", "50")
    before = "ulimit -n 256;"
    with ExitStack() as stack:
        service = stack.enter_context(running("serve", "--port", "0", *flags, cwd=tmp_path, before=before))
        port = int(service.url.rpartition(":")[2])
        for number in range(360):
            # From 9 addresses: each has fewer than its share.
            source = (f"127.0.0.{2 + number // 40}", 0)
            stack.enter_context(socket.create_connection(("127.0.0.1", port), DEADLINE, source))
        pool = urllib3.PoolManager(ca_certs=str(made.ca_file), retries=False, timeout=DEADLINE)
        with pool as http:
            assert http.request("GET", f"{service.url}/readyz").status == 200
            # Reads the store.
            unknown = urllib3.make_headers(basic_auth="a:b")
            assert http.request("POST", f"{service.url}/api/ts/v1/oauth2/token", headers=unknown).status == 401
        assert service.stop() == 0
    warning = json.loads(service.log.read_text().splitlines()[0])
    assert warning["message"].startswith("128 connections are open, all that the limit on open files leaves room for")

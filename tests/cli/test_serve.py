"""`fotahook serve` as a process: ready, signals, drain, restart, and everything wrong with how it is started."""

import asyncio
import errno
import json
import signal
import socket
import ssl
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from threading import Event, Thread

import asyncpg
import pytest
import urllib3
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from fotahook.cli import serve as serving
from fotahook.cli.shared.errors import describe
from fotahook.client import OperatorClient
from fotahook.contract.errors import AuthenticationError
from fotahook.contract.events import MessageAccepted
from fotahook.contract.keys import generate_secret_key, parse_secret_key
from fotahook.delivery import Dispatcher
from fotahook.service.event_feed import Cursors
from fotahook.store.events import EventCursor
from fotahook.store.postgres.connection import migrate_url
from fotahook.testing import Certificates, make_certificates
from tests.deadlines import DEADLINE
from tests.ports import unused_port
from tests.postgres import Server

from .conftest import Run, is_one_line
from .processes import FOTAHOOK, Running, end, environment, fotahook, running, start

ACCOUNT = "0000123456-00001"


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Running]:
    with running("serve", "--dev", "--port", "0", cwd=tmp_path) as service:
        yield service


def test_the_ready_line_names_url_store_and_mode(service: Running) -> None:
    assert service.ready.startswith("fotahook ready http://127.0.0.1:")
    assert service.ready.endswith(" store=sqlite:///fotahook.db mode=dev\n")
    with urllib3.PoolManager() as http:
        assert http.request("GET", f"{service.url}/readyz").status == 200


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGHUP, 0), (signal.SIGINT, 130)])
def test_a_signal_stops_it(service: Running, number: signal.Signals, code: int) -> None:
    assert service.stop(number) == code
    assert "Traceback" not in service.log.read_text()


def test_a_restarted_service_delivers_what_was_pending(tmp_path: Path) -> None:
    for duplicate in (False, True):
        with running("serve", "--dev", "--port", "0", cwd=tmp_path) as service:
            with OperatorClient(service.url, "dev", "dev-secret", proxy="") as client:
                assert client.publish(ACCOUNT, b"{}", idempotency_key="k").duplicate is duplicate
            assert service.stop() == 0
    assert stat.S_IMODE((tmp_path / "fotahook.db.key").stat().st_mode) == 0o600


def test_event_streams_end_with_the_service_and_resume_after_a_restart(tmp_path: Path) -> None:
    port = str(unused_port())
    with running("serve", "--dev", "--port", port, cwd=tmp_path) as service:
        client = OperatorClient(service.url, "dev", "dev-secret", proxy="")
        key = parse_secret_key((tmp_path / "fotahook.db.key").read_text())
        beginning = Cursors(key).seal_events(EventCursor())
        events = client.events(ACCOUNT, after=beginning)
        first = client.publish(ACCOUNT, b"{}")
        assert next(events).data == next(client.events(after=beginning)).data
        assert service.stop() == 0
        assert "ERROR" not in service.log.read_text().upper()
    with client, running("serve", "--dev", "--port", port, cwd=tmp_path):
        second = client.publish(ACCOUNT, b"{}")
        event = next(events).data
    assert isinstance(event, MessageAccepted)
    assert event.id == second.id > first.id


@pytest.mark.parametrize("numbers", [(signal.SIGTERM,), (signal.SIGHUP, signal.SIGHUP)])
def test_a_delivery_under_way_is_finished_before_it_ends(
    service: Running, tmp_path: Path, numbers: tuple[signal.Signals, ...]
) -> None:
    """A closing terminal sends SIGHUP more than once, which hurries nothing."""
    with socket.create_server(("127.0.0.1", 0)) as receiver:
        receiver.settimeout(DEADLINE)
        url = f"http://127.0.0.1:{receiver.getsockname()[1]}/"
        assert fotahook("callbacks", "register", ACCOUNT, url, "--base-url", service.url, "--dev").returncode == 0
        with OperatorClient(service.url, "dev", "dev-secret", proxy="") as client:
            message_id = client.publish(ACCOUNT, b"{}").id
        taken, _ = receiver.accept()
        with taken:
            request = taken.recv(65536)
            assert message_id.encode() in request
            for number in numbers:
                service.process.send_signal(number)
                wait_until_refused(service.url)
            taken.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            assert service.process.wait(DEADLINE) == 0
    with (
        running("serve", "--dev", "--port", "0", cwd=tmp_path) as again,
        OperatorClient(again.url, "dev", "dev-secret", proxy="") as client,
    ):
        (delivery,) = client.message(message_id).deliveries
        assert (delivery.state, delivery.attempts) == ("delivered", 1)


def wait_until_refused(url: str) -> None:
    """Return when nothing listens there any more."""
    host, _, port = url.removeprefix("http://").partition(":")
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        with socket.socket() as attempt:
            if attempt.connect_ex((host, int(port))) == errno.ECONNREFUSED:
                return
    raise TimeoutError(f"{url} still accepts connections")


def test_without_dev_nobody_is_known_and_private_addresses_are_refused(tmp_path: Path) -> None:
    with running("serve", "--port", "0", cwd=tmp_path) as service:
        assert "mode=dev" not in service.ready
        with (
            OperatorClient(service.url, "dev", "dev-secret", proxy="") as client,
            pytest.raises(AuthenticationError),
        ):
            client.account(ACCOUNT)


def test_logs_are_json_and_on_stderr(service: Running) -> None:
    url = "http://127.0.0.1:1/"  # nobody listens at this port
    assert fotahook("callbacks", "register", ACCOUNT, url, "--base-url", service.url, "--dev").returncode == 0
    with OperatorClient(service.url, "dev", "dev-secret", proxy="") as client:
        message_id = client.publish(ACCOUNT, b"{}").id
        while not client.attempts(message_id):
            pass
    assert service.stop() == 0
    entries = [json.loads(line) for line in service.log.read_text().splitlines()]
    # How soon it is tried again is up to chance: there may be more than one line.
    assert {entry["level"] for entry in entries} == {"warning"}
    assert set(entries[0]) >= {"timestamp", "logger", "message"}
    assert message_id in entries[0]["message"]


def test_it_serves_over_tls(tmp_path: Path) -> None:
    made = make_certificates(tmp_path, "127.0.0.1")
    flags = ("--tls-cert", str(made.cert_file), "--tls-key", str(made.key_file))
    with running("serve", "--port", "0", *flags, cwd=tmp_path) as service:
        assert service.url.startswith("https://")
        with urllib3.PoolManager(ca_certs=str(made.ca_file), ssl_minimum_version=ssl.TLSVersion.TLSv1_2) as http:
            assert http.request("GET", f"{service.url}/healthz").status == 200


def test_it_shows_the_console(service: Running) -> None:
    with urllib3.PoolManager() as http:
        page = http.request("GET", f"{service.url}/")
        assert page.headers["Content-Type"].startswith("text/html")
        assert "default-src 'none'" in page.headers["Content-Security-Policy"]
        for name in ("console.css", "console.js"):
            assert name in page.data.decode()
            assert http.request("GET", f"{service.url}/{name}").status == 200


# How it does not start


def test_a_port_in_use_is_reported(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = fotahook("serve", "--port", str(port), cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert is_one_line(done.stderr)
    assert f"{port} is in use" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_second_service_on_one_file_is_refused(service: Running, tmp_path: Path) -> None:
    done = fotahook("serve", "--port", "0", cwd=tmp_path)
    assert done.returncode == 1
    assert is_one_line(done.stderr)
    assert "another process" in done.stderr


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> tuple[Certificates, Certificates]:
    """Two pairs that do not belong together."""
    return tuple(make_certificates(tmp_path_factory.mktemp(name), "127.0.0.1") for name in ("a", "b"))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (("--store", "mysql://localhost/fotahook"), 2, "sqlite:///"),
        (("--store", "fotahook.db"), 2, "sqlite:///"),
        (("--store", "sqlite:///no/such/folder.db"), 1, "folder.db"),
        (("--store", "sqlite:///noise"), 1, "noise"),
        (("--role", "api"), 2, "--role api: a SQLite store has one process for all"),
        (("--role", "dispatcher"), 2, "--role dispatcher: "),
        (("--role", "both"), 2, "--role"),
        (("--port", "65536"), 2, "--port 65536"),
        (("--host", "203.0.113.1"), 1, "203.0.113.1"),
        (("--lease", "3"), 2, "--lease 3"),
        (("--lease", "nan"), 2, "--lease nan"),
        (("--in-flight", "0"), 2, "for --in-flight. Must be >= 1"),
        (("--allow-network", "10.0.0.1/8"), 2, "--allow-network"),
        (("--ca-file", "absent"), 1, "--ca-file absent"),
        (("--ca-file", "noise"), 1, "--ca-file noise"),
        (("--client-cert", "noise"), 1, "--client-cert noise"),
        (("--tls-cert", "noise"), 1, "--tls-cert noise"),
        (("--tls-key", "noise"), 2, "--tls-cert"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_options_that_prevent_a_start_are_reported(
    run: Run, tmp_path: Path, arguments: tuple[str, ...], code: int, complaint: str
) -> None:
    (tmp_path / "noise").write_text("neither a certificate nor a database\n" * 100)
    result = run("serve", *(() if "--port" in arguments else ("--port", "0")), *arguments)
    assert result.code == code
    assert result.out == ""
    assert is_one_line(result.err.splitlines(keepends=True)[-1])
    assert complaint in result.err
    # Nothing is left behind, not even beside a file that turned out to be no store.
    assert [file.name for file in tmp_path.iterdir()] == ["noise"]


def test_a_key_of_another_certificate_is_refused(run: Run, certificates: tuple[Certificates, Certificates]) -> None:
    one, other = certificates
    result = run("serve", "--port", "0", "--tls-cert", str(one.cert_file), "--tls-key", str(other.key_file))
    assert result.code == 1
    assert "belong together" in result.err


def test_an_encrypted_key_is_refused_and_nobody_is_asked_for_its_passphrase(
    run: Run, tmp_path: Path, certificates: tuple[Certificates, Certificates]
) -> None:
    one, _ = certificates
    key = load_pem_private_key(one.key_file.read_bytes(), None)
    locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"hunter2"))
    (tmp_path / "key.pem").write_bytes(locked)
    (tmp_path / "both.pem").write_bytes(locked + one.cert_file.read_bytes())
    for flags, named, file in (
        (("--tls-cert", str(one.cert_file), "--tls-key", "key.pem"), "--tls-key key.pem", "key.pem"),
        (("--tls-cert", "both.pem"), "--tls-cert both.pem", "both.pem"),
        (("--client-cert", "both.pem"), "--client-cert both.pem", "both.pem"),
    ):
        result = run("serve", "--port", "0", *flags)
        assert result.code == 1
        assert f"fotahook: {named}: the private key is encrypted, and fotahook does not ask" in result.err
        assert f"openssl pkey -in {file} prints" in result.err


async def test_the_end_of_its_dispatcher_is_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def break_down(self: Dispatcher) -> None:
        raise RuntimeError("out of order")

    monkeypatch.setattr(Dispatcher, "run", break_down)
    options = serving.ServeOptions(port=0, store=f"sqlite:///{tmp_path / 's.db'}")
    with pytest.raises(RuntimeError) as raised:
        await serving._serve(options, str(tmp_path / "s.db"))
    code, line = describe(raised.value)
    assert code == 1
    assert "out of order" in (line or "")


def test_it_is_killed_and_starts_again(tmp_path: Path) -> None:
    for _ in range(2):
        service = start("serve", "--dev", "--port", "0", cwd=tmp_path)
        end(service.process)


def test_metrics_can_have_an_address_of_their_own(tmp_path: Path) -> None:
    with running("serve", "--port", "0", "--metrics-listen", "127.0.0.1:0", cwd=tmp_path) as service:
        metrics = service.ready.split("metrics=")[1].split()[0]
        with urllib3.PoolManager(retries=False, timeout=DEADLINE) as http:
            assert http.request("GET", f"{service.url}/metrics").status == 404
            assert b"fotahook_store_up 1.0" in http.request("GET", metrics).data
            assert http.request("GET", metrics.replace("/metrics", "/openapi.json")).status == 404
        assert service.stop() == 0


@pytest.mark.parametrize("address", ["here", "127.0.0.1:", "127.0.0.1:http", "127.0.0.1:99999"])
def test_an_address_for_metrics_needs_a_port(tmp_path: Path, address: str) -> None:
    done = fotahook("serve", "--port", "0", "--metrics-listen", address, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("fotahook: ")


# It goes away again in the last step before each is ready: the service looks up its key, the listener tries to write.
@pytest.mark.parametrize(
    ("command", "hangs", "statement"), [("serve", False, b"secret_key"), ("listen", True, b"'probe'")]
)
def test_a_store_that_is_away_at_the_start_or_goes_away_again_is_waited_for(
    tmp_path: Path, postgres_server: Server, command: str, hangs: bool, statement: bytes
) -> None:
    asyncio.run(_create_database(postgres_server, f"wait_{command}"))
    port = unused_port()
    url = f"postgresql://postgres@127.0.0.1:{port}/wait_{command}"
    flag = "--store" if command == "serve" else "--inbox"
    log = tmp_path / "log"
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [*FOTAHOOK, command, "--port", "0", flag, url],
            cwd=tmp_path,
            env=environment(FOTAHOOK_SECRET_KEY=generate_secret_key()),
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    try:
        # One that hangs takes connections and says nothing.
        with socket.create_server(("127.0.0.1", port)) if hangs else nullcontext():
            deadline = time.monotonic() + DEADLINE
            while "trying again in 1 s" not in log.read_text():
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline
                time.sleep(0.01)
        with passing_on(port, postgres_server.port, lost_at=statement) as lost:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("fotahook ready "), log.read_text()
            assert lost.is_set()
            process.terminate()
            assert process.wait(DEADLINE) == 0
    finally:
        end(process)


async def _create_database(server: Server, name: str) -> None:
    connection = await asyncpg.connect(server.url)
    await connection.execute(f"create database {name}")
    await connection.close()
    await migrate_url(server.url.removesuffix("postgres") + name)


@contextmanager
def passing_on(port: int, to: int, *, lost_at: bytes) -> Iterator[Event]:
    """A port whose connections go on to another one; the first that says something is lost, which sets the event."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection("127.0.0.1", to)
        with suppress(OSError):
            await asyncio.gather(copy(reader, there[1]), copy(there[0], writer))

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            if lost_at in data and not lost.is_set():
                lost.set()
                break
            writer.write(data)
        writer.close()

    async def serve() -> None:
        async with await asyncio.start_server(connected, "127.0.0.1", port):
            started.set()
            await asyncio.to_thread(stopping.wait)

    started, stopping, lost = Event(), Event(), Event()
    thread = Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert started.wait(DEADLINE)
    try:
        yield lost
    finally:
        stopping.set()
        thread.join(DEADLINE)

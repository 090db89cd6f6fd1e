"""`fotahook listen --register` and a service: what is asked when, what counts as the same URL, and how it ends."""

import asyncio
import json
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import urllib3

from fotahook.client import AsyncClient
from fotahook.client._runtime import Runtime
from fotahook.contract.auth import SessionCredentials, ThingspaceOauthCredentials
from fotahook.listener.registration import Registration, RegistrationRefused
from tests.client.conftest import Chunks, Clock, Peer, Received, respond
from tests.deadlines import DEADLINE
from tests.ports import unused_port

from .conftest import is_one_line
from .processes import FOTAHOOK, end, environment, fotahook, running

ACCOUNT = "0000123456-00001"
CREDENTIALS = ThingspaceOauthCredentials("dev", "dev-secret")
BODY = b'{"accountName": "0000123456-00001", "type": "upgradeProgress"}'


@dataclass
class Service:
    """A service that keeps one callback. `before` is done for a method before its call is carried out."""

    peer: Peer
    registered: str | None = None
    before: dict[str, Callable[[], None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.peer.routes["callbacks/"] = self._call

    def _call(self, seen: Received) -> Chunks:
        self.before.get(seen.method, lambda: None)()
        match seen.method:
            case "GET":
                return respond(body={"url": self.registered} if self.registered else b"")
            case "POST" | "PUT":
                self.registered = json.loads(seen.body)["url"]
                return respond(body={"url": self.registered})
        self.registered = None
        return respond(body={"success": True})

    @property
    def asked(self) -> list[str]:
        """The methods of the calls about callbacks."""
        return [seen.method for seen in self.peer.calls]

    def client(
        self, runtime: Runtime | None = None, credentials: ThingspaceOauthCredentials = CREDENTIALS
    ) -> AsyncClient:
        return AsyncClient._with_runtime(
            runtime or Runtime(),
            base_url=self.peer.url,
            thingspace_oauth_credentials=credentials,
            vz_m2m_token_credentials=SessionCredentials("dev", "dev-password"),
            proxy="",
        )

    def registration(self, client: AsyncClient, url: str) -> Registration:
        return Registration(client, ACCOUNT, url, replace=False)

    def flags(self, url: str) -> tuple[str, ...]:
        return ("--register", ACCOUNT, "--public-url", url, "--base-url", self.peer.url, "--dev")


@dataclass
class Hold:
    """What a call waits for before it is carried out."""

    asked: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(default_factory=threading.Event)

    def __call__(self) -> None:
        self.asked.set()
        self.release.wait(DEADLINE)


@pytest.fixture
def service() -> Iterator[Service]:
    peer = Peer()
    yield Service(peer)
    peer.close()


@pytest.fixture
def hold() -> Iterator[Hold]:
    hold = Hold()
    yield hold
    hold.release.set()


@pytest.fixture
def port() -> int:
    return unused_port()


def post(url: str) -> int:
    return urllib3.request("POST", url, body=BODY, retries=False).status


# When what is asked


def test_a_refused_registration_is_known_before_the_inbox_is_opened(service: Service, tmp_path: Path) -> None:
    service.registered = "https://h.example/theirs"
    done = fotahook("listen", "--port", "0", *service.flags("https://h.example/"), cwd=tmp_path)
    assert done.returncode == 4
    assert "has another callback, at h.example, with another path; " in done.stderr
    assert service.asked == ["GET"]
    assert list(tmp_path.iterdir()) == []


def test_a_port_that_is_taken_is_known_before_anything_else(service: Service, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = fotahook("listen", "--port", port, *service.flags("https://h.example/"), cwd=tmp_path)
    assert done.returncode == 1
    assert is_one_line(done.stderr)
    assert f"127.0.0.1:{port} is in use" in done.stderr
    assert service.asked == []
    assert list(tmp_path.iterdir()) == []


def test_a_url_that_the_service_refuses_is_reported_by_its_flag(service: Service, tmp_path: Path) -> None:
    refusal = {"errorCode": "REQUEST_FAILED_INPUT", "errorMessage": "url must begin with https://"}
    call = service.peer.routes["callbacks/"]
    service.peer.routes["callbacks/"] = lambda seen: respond(400, refusal) if seen.method == "POST" else call(seen)
    done = fotahook("listen", "--port", "0", *service.flags("http://h.example/?hunter2"), cwd=tmp_path)
    assert done.returncode == 4
    last = done.stderr.splitlines(keepends=True)[-1]
    assert is_one_line(last)
    assert f"--public-url is not registered for account {ACCOUNT}: " in last
    assert "url must begin with https://" in last
    assert "hunter2" not in done.stderr
    assert "fotahook ready" not in done.stdout


# From the first message to the last


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_messages_are_taken_from_before_it_is_registered_until_it_no_longer_is(
    service: Service, tmp_path: Path, port: int, number: signal.Signals, code: int
) -> None:
    """What a service sends while it registers or deregisters the callback is answered before the call is."""
    # Not printed, which might go before the ready line.
    (tmp_path / "handlers.py").write_text("import fotahook\nlistener = fotahook.Listener()\n")
    url, statuses = f"http://127.0.0.1:{port}/", list[int]()
    service.before = {method: lambda: statuses.append(post(url)) for method in ("POST", "DELETE")}
    flags = (*service.flags(url), "--deregister-on-exit", "--watch")
    with running("listen", "handlers:listener", "--port", str(port), *flags, cwd=tmp_path) as listener:
        assert service.registered == url
        assert listener.stop(number) == code
    assert statuses == [200, 200]
    assert service.registered is None


def test_a_second_signal_does_not_wait_until_it_is_deregistered(service: Service, hold: Hold, tmp_path: Path) -> None:
    service.before["DELETE"] = hold
    flags = (*service.flags("https://h.example/"), "--deregister-on-exit")
    with running("listen", "--port", "0", *flags, cwd=tmp_path) as listener:
        listener.process.send_signal(signal.SIGTERM)
        assert hold.asked.wait(DEADLINE)
        # Nothing is closed yet.
        assert post(listener.url) == 200
        assert listener.stop() == 0
    warning = f"the callback of account {ACCOUNT} may still be registered: there was no time to wait"
    assert warning in listener.log.read_text()
    assert "Traceback" not in listener.log.read_text()


@pytest.mark.parametrize(
    ("method", "numbers", "code"),
    [
        ("GET", (signal.SIGTERM,), 0),
        ("POST", (signal.SIGTERM,), 0),
        ("POST", (signal.SIGINT,), 130),
        # Two of one kind might come as one.
        ("POST", (signal.SIGTERM, signal.SIGINT), 130),
    ],
)
def test_a_signal_ends_it_while_it_registers(
    service: Service, hold: Hold, tmp_path: Path, method: str, numbers: tuple[signal.Signals, ...], code: int
) -> None:
    # The first GET is before it serves.
    service.before = {"GET": lambda: service.before.update({method: hold})}
    log = tmp_path / "listen.log"
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [*FOTAHOOK, "listen", "--port", "0", *service.flags("https://h.example/")],
            cwd=tmp_path,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    try:
        assert hold.asked.wait(DEADLINE)
        for number in numbers:
            process.send_signal(number)
        assert process.wait(DEADLINE) == code
        assert process.stdout is not None
        assert process.stdout.read() == ""
    finally:
        end(process)
    # Nothing is registered that nobody serves, or the log says so.
    assert service.asked == ["GET", "GET", *(["GET", "POST"] if method == "POST" else [])]
    warning = f"the callback of account {ACCOUNT} may be registered, without a listener"
    assert (warning in log.read_text()) == (method == "POST")
    assert "Traceback" not in log.read_text()


def test_without_the_service_it_ends_all_the_same(service: Service, tmp_path: Path) -> None:
    flags = (*service.flags("https://h.example/"), "--deregister-on-exit")
    with running("listen", "--port", "0", *flags, cwd=tmp_path) as listener:
        service.peer.routes["callbacks/"] = lambda _: respond(403)  # not tried again
        assert listener.stop() == 0
    assert f"the callback of account {ACCOUNT} is still registered: " in listener.log.read_text()


async def test_a_service_that_does_not_answer_is_not_waited_for_for_long(
    service: Service, hold: Hold, caplog: pytest.LogCaptureFixture
) -> None:
    service.before["GET"] = hold
    async with service.client() as client:
        await service.registration(client, "https://h.example/").end(within=0.05)
    assert f"the callback of account {ACCOUNT} may still be registered: the service did not respond within 0.05 s" in (
        caplog.text
    )
    assert not hold.release.is_set()


# Moving


def test_a_listener_that_moves_accepts_the_former_path_even_after_it_was_killed(
    service: Service, tmp_path: Path, port: int
) -> None:
    old, new = (f"http://127.0.0.1:{port}/{path}" for path in ("old", "new"))
    (tmp_path / "handlers.py").write_text("import fotahook\nlistener = fotahook.Listener()\n")
    command = ("listen", "handlers:listener", "--port", str(port), "--overlap", "20m", "--replace", "--path")
    with running(*command, "/old", *service.flags(old), cwd=tmp_path) as listener:
        assert (post(old), post(new)) == (200, 404)
        listener.stop()
    with running(*command, "/new", *service.flags(new), cwd=tmp_path) as listener:
        assert (post(old), post(new)) == (200, 200)
        listener.stop(signal.SIGKILL)
    assert "may get messages for another 20 minutes" in listener.log.read_text()
    with running(*command, "/new", *service.flags(new), cwd=tmp_path) as listener:
        assert (post(old), post(new)) == (200, 200)
    assert service.registered == new
    assert "DELETE" not in service.asked


async def test_a_callback_that_does_not_read_back_is_no_reason_to_stop(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    """Messages may come, and nobody else would receive them."""
    service.registered = "https://h.example/theirs"
    call = service.peer.routes["callbacks/"]
    service.peer.routes["callbacks/"] = lambda seen: call(seen) if seen.method == "GET" else respond(body={})
    async with service.client(Clock().runtime()) as client:
        await Registration(client, ACCOUNT, "https://h.example/", replace=True).begin()
    assert f"is in doubt: the callback of account {ACCOUNT} was set, but does not read back" in caplog.text


@pytest.mark.parametrize("overlap", ["20", "m", "1y", "1.5h"])
def test_an_overlap_has_a_unit(service: Service, tmp_path: Path, overlap: str) -> None:
    done = fotahook("listen", "--overlap", overlap, *service.flags("https://h.example/"), cwd=tmp_path)
    assert done.returncode == 2
    assert "give a number with its unit, such as 90s, 20m or 2h" in done.stderr


# Watching


async def test_it_is_watched_on_whatever_goes_wrong(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    looked = threading.Event()
    service.before["GET"] = looked.set
    failures = iter([OSError("no room for the token")])

    def keep(_: object) -> None:
        for failure in failures:
            raise failure

    credentials = ThingspaceOauthCredentials("dev", "dev-secret", oauth_on_token_update=keep)
    async with (
        service.client(credentials=credentials) as client,
        service.registration(client, "https://h.example/").watched(interval=0.0),
    ):
        assert await asyncio.to_thread(looked.wait, DEADLINE)
    assert f"cannot check the callback of account {ACCOUNT}" in caplog.text
    assert "no room for the token" in caplog.text


async def test_a_cancellation_while_the_watch_ends_is_kept(service: Service) -> None:
    watched, leave = asyncio.Event(), asyncio.Event()

    async def watch() -> None:
        async with service.client() as client, service.registration(client, "https://h.example/").watched():
            watched.set()
            await leave.wait()

    watching = asyncio.create_task(watch())
    await watched.wait()
    leave.set()
    # It leaves now, and waits for the task that looks.
    await asyncio.sleep(0)
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching


# Where the path leads


@pytest.mark.parametrize(
    ("public", "path", "warning"),
    [
        ("https://h.example/hooks", "/", "will send to /hooks, but messages are received at /; "),
        ("https://h.example/0123456789abcdef", "/in", "will send to (hidden), but messages are received at /in; "),
        (
            "https://h.example/in?hunter2",
            "/in/0123456789abcdef",
            "will send to /in, but messages are received at (hidd",
        ),
        ("https://h.example", "/", None),
        ("https://h.example/%C3%BC/?hunter2", "/ü", None),
    ],
)
def test_a_public_url_with_another_path_is_warned_of(
    service: Service, tmp_path: Path, public: str, path: str, warning: str | None
) -> None:
    with running("listen", "--port", "0", "--path", path, *service.flags(public), cwd=tmp_path) as listener:
        assert listener.stop() == 0
        result = [json.loads(line)["message"] for line in listener.log.read_text().splitlines()]
    warnings = [line for line in result if "--public-url AND --path DIFFER" in line]
    assert len(warnings) == (warning is not None)
    assert all(warning in line for line in warnings if warning is not None)
    assert not any("0123456789abcdef" in line or "hunter2" in line for line in result)


# The same URL, and another


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("https://H.Example.com:443", "https://h.example.com/"),
        ("https://h.example.com/", "HTTPS://h.EXAMPLE.com"),
        ("http://127.0.0.1:80/a?b", "http://127.0.0.1/a?b"),
    ],
)
async def test_another_spelling_of_the_same_url_is_ours(
    service: Service, caplog: pytest.LogCaptureFixture, theirs: str, ours: str
) -> None:
    service.registered = theirs
    async with service.client() as client:
        registration = service.registration(client, ours)
        await registration.begin()
        assert service.asked == ["GET"]
        async with registration.watched(interval=0.0):
            looks, more = 0, threading.Event()

            def count() -> None:
                nonlocal looks
                looks += 1
                if looks == 3:
                    more.set()

            service.before["GET"] = count
            assert await asyncio.to_thread(more.wait, DEADLINE)
        assert caplog.records == []
        await registration.end()
    assert service.registered is None


@pytest.mark.parametrize(
    ("theirs", "place"),
    [
        ("https://h.example.com/Hunter2", "h.example.com, with another path; "),
        ("https://H.example.com/hunter2?hunter3", "H.example.com, with another path and query; "),
        ("https://h.example.com:8443/hunter2", "h.example.com:8443, with another port and path; "),
        ("http://somebody:hunter2@h.example.com/in", "h.example.com, with another scheme and user and port; "),
        ("https://other.example.com:1/hunter2", "other.example.com:1; "),
        ("hunter2", "an unknown place; "),
        ("https://[hunter2", "an unknown place; "),
    ],
)
async def test_another_url_is_described_by_its_host_and_the_parts_that_differ(
    service: Service, theirs: str, place: str
) -> None:
    service.registered = theirs
    async with service.client() as client:
        with pytest.raises(RegistrationRefused, match="has another callback") as refused:
            await service.registration(client, "https://h.example.com/in").check()
    assert f"has another callback, at {place}" in str(refused.value)
    assert "unter" not in str(refused.value)

"""The WSGI adapter: it accepts as the ASGI app does, in any number of threads and after a fork, and no more."""

import asyncio
import contextlib
import gc
import io
import sqlite3
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest

from fotahook.contract import signing
from fotahook.listener import Listener
from fotahook.listener.adapters.wsgi import InboxThread, WsgiListener
from fotahook.listener.intake import BODY_LIMIT
from tests.deadlines import DEADLINE
from tests.modes import modes_bind

from .conftest import PROGRESS, SECRET, Answer, Seen, by_hmac, stored

Make = Callable[..., Listener]


@pytest.fixture
def wrap(make: Make) -> Iterator[Callable[..., WsgiListener]]:
    """Makes adapters for listeners with these options."""
    made: list[WsgiListener] = []

    def wrap(**options: Any) -> WsgiListener:
        made.append(WsgiListener(make(**options)))
        return made[-1]

    yield wrap
    for adapter in made:
        adapter.close()


def call(
    app: WsgiListener,
    body: bytes = PROGRESS,
    *,
    method: str = "POST",
    path: str = "/",
    headers: dict[str, str] | None = None,
    **environ: Any,
) -> Answer:
    """One request as a server hands it over, held against the rules of PEP 3333."""
    scope: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "QUERY_STRING": "",
        "SCRIPT_NAME": "",
        "PATH_INFO": path.encode().decode("latin-1"),
        "CONTENT_LENGTH": str(len(body)),
        "REMOTE_ADDR": "192.0.2.1",
        "wsgi.input": io.BytesIO(body),
        **{f"HTTP_{name.upper().replace('-', '_')}": value for name, value in (headers or {}).items()},
        **environ,
    }
    scope = {name: value for name, value in scope.items() if value is not None}
    setup_testing_defaults(scope)
    started: list[tuple[str, list[tuple[str, str]]]] = []

    def start_response(status: str, given: list[tuple[str, str]], exc_info: object = None) -> Callable[[bytes], object]:
        started.append((status, given))
        return lambda data: None

    chunks = validator(app)(scope, start_response)
    try:
        content = b"".join(chunks)
    finally:
        chunks.close()  # type: ignore[attr-defined]  # the validator's own iterator has it
    ((status, given),) = started
    return Answer(int(status[:3]), dict(given), content)


Wrap = Callable[..., WsgiListener]


async def test_a_message_is_on_disk_and_handled_by_another_listener(
    wrap: Wrap, make: Make, inbox: str, seen: Seen
) -> None:
    answer = await asyncio.to_thread(call, wrap())
    assert (answer.status, answer.json["duplicate"]) == (200, False)
    assert (await stored(inbox, answer.json["id"])).body == PROGRESS
    assert (await asyncio.to_thread(call, wrap())).json == {"id": answer.json["id"], "duplicate": True}
    handling = make()
    handling.on_any(seen.add)
    async with handling.running():
        (message,) = await seen.wait(1)
    assert message.raw == PROGRESS


def test_many_threads_share_one_inbox(wrap: Wrap) -> None:
    app = wrap()
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda number: call(app, b"%d" % (number % 100)), range(200)))
    assert {answer.status for answer in answers} == {200}
    assert sum(answer.json["duplicate"] for answer in answers) == 100
    assert [thread.name for thread in threading.enumerate()].count("fotahook inbox") == 1


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/hooks/ü", 200),
        ("POST", "/hooks/ü/", 200),
        ("POST", "/", 404),
        ("POST", "", 404),
        ("GET", "/hooks/ü", 405),
        ("GET", "/healthz", 200),
        ("HEAD", "/healthz/", 200),
        ("POST", "/healthz", 405),
    ],
)
def test_paths_and_methods_are_those_of_the_listener(wrap: Wrap, method: str, path: str, status: int) -> None:
    answer = call(wrap(path="/hooks/ü"), method=method, path=path)
    assert answer.status == status
    assert (answer.body == b"") == (method == "HEAD")


def test_a_length_of_thousands_of_digits_is_rejected(wrap: Wrap) -> None:
    """Not through `call`: the validator of the standard library fails on such a length itself."""
    statuses: list[str] = []
    for length in ("0" * 5000 + "9", "9" * 5000):
        environ = {"REQUEST_METHOD": "POST", "PATH_INFO": "/", "CONTENT_LENGTH": length, "wsgi.input": io.BytesIO()}
        wrap()(environ, lambda status, headers: statuses.append(status))  # type: ignore[arg-type]  # enough here
    assert statuses == ["400 Bad Request", "413 Request Entity Too Large"]


def test_the_path_is_the_one_below_the_mount(wrap: Wrap) -> None:
    assert call(wrap(), path="", SCRIPT_NAME="/thingspace").status == 200


def test_verification_is_that_of_the_listener(wrap: Wrap) -> None:
    signed = wrap(secrets=[signing.format_secret(SECRET)])
    assert call(signed).error == (401, "MESSAGE_REFUSED")
    assert call(signed, headers=by_hmac(PROGRESS)).status == 200
    elsewhere = wrap(sources=["198.51.100.0/24"], trusted_proxies=["192.0.2.0/24"])
    assert call(elsewhere).error == (403, "MESSAGE_REFUSED")
    assert call(elsewhere, REMOTE_ADDR="192.0.2.9", headers={"X-Forwarded-For": "198.51.100.1"}).status == 200


@pytest.mark.parametrize(
    ("body", "environ", "error"),
    [
        (b"no JSON", {}, (400, "MESSAGE_REFUSED")),
        (b"{}", {"CONTENT_LENGTH": "3"}, (400, "MESSAGE_REFUSED")),
        (b"{}", {"CONTENT_LENGTH": None}, (400, "MESSAGE_REFUSED")),
        (b"{}", {"CONTENT_LENGTH": str(BODY_LIMIT + 1)}, (413, "MESSAGE_REFUSED")),
        (b" " * (BODY_LIMIT + 1), {"CONTENT_LENGTH": "", "wsgi.input_terminated": True}, (413, "MESSAGE_REFUSED")),
    ],
)
def test_invalid_bodies_are_rejected(
    wrap: Wrap, inbox: str, body: bytes, environ: dict[str, Any], error: tuple[int, str]
) -> None:
    assert call(wrap(), body, **environ).error == error
    assert not Path(inbox.removeprefix("sqlite:///")).exists()


def test_a_body_whose_end_the_server_knows_needs_no_length(wrap: Wrap) -> None:
    ended: dict[str, Any] = {"CONTENT_LENGTH": "", "wsgi.input_terminated": True}
    assert call(wrap(), **ended).status == 200


def test_opening_the_inbox_is_retried(wrap: Wrap, tmp_path: Path) -> None:
    (tmp_path / "inbox.db").mkdir()
    app = wrap(accept_timeout=0.1)
    answer = call(app)
    assert (answer.error, answer.headers["retry-after"]) == ((503, "INBOX_AWAY"), "5")
    (tmp_path / "inbox.db").rmdir()
    until(lambda: call(app).status == 200)
    app.close()
    app.close()
    until(lambda: call(app).json.get("duplicate"))


def test_a_read_only_inbox_is_unavailable_until_it_can_be_written(wrap: Wrap, inbox: str) -> None:
    file = Path(inbox.removeprefix("sqlite:///"))
    app = wrap(accept_timeout=0.1)
    until(lambda: call(app).status == 200)
    app.close()
    file.chmod(0o444)
    with modes_bind():
        assert call(app).error == (503, "INBOX_AWAY")
        for each in file.parent.glob("inbox.db*"):
            each.chmod(0o600)
        until(lambda: call(app).json.get("duplicate"))
        app.close()


def test_health_is_that_of_the_inbox(wrap: Wrap, inbox: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fotahook.store.base.CHECK_SECONDS", 0.0)
    monkeypatch.setattr("fotahook.store.sqlite.connection.BUSY_SECONDS", 0.01)
    app = wrap(accept_timeout=0.1)
    until(lambda: call(app).status == 200)
    with contextlib.closing(sqlite3.connect(inbox.removeprefix("sqlite:///"), isolation_level=None)) as other:
        other.execute("begin immediate")
        assert call(app, method="GET", path="/healthz").error == (503, "INBOX_AWAY")
        assert call(app).error == (503, "INBOX_AWAY")
    # Nothing was stored since.
    assert call(app, method="GET", path="/healthz").error == (503, "INBOX_AWAY")
    until(lambda: call(app).json.get("duplicate"))
    assert call(app, method="GET", path="/healthz").json == {"status": "ok"}


def test_health_does_not_open_the_inbox(wrap: Wrap, inbox: str) -> None:
    app = wrap()
    app._inbox = InboxThread(Listener(inbox).receiving_inbox())
    assert call(app, method="GET", path="/healthz").status == 200
    assert not Path(inbox.removeprefix("sqlite:///")).exists()


def test_an_invalid_inbox_url_is_an_error_response() -> None:
    app = WsgiListener(Listener("mysql://x", accept_timeout=0.1))
    assert call(app).error == (503, "INBOX_AWAY")
    app.close()


def until(happened: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@contextlib.contextmanager
def accepting(app: WsgiListener, inbox: str) -> Iterator[tuple[InboxThread, Future[Answer], sqlite3.Connection]]:
    """A message that the inbox has in hand, for as long as another process holds it."""
    assert call(app, b"{}").status == 200
    intake = app._inbox
    assert intake is not None
    with (
        ThreadPoolExecutor(1) as threads,
        contextlib.closing(sqlite3.connect(inbox.removeprefix("sqlite:///"), isolation_level=None)) as other,
    ):
        other.execute("begin immediate")
        answer = threads.submit(call, app)
        until(lambda: intake._pending)
        yield intake, answer, other


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inboxes wait for other processes for longer than any test."""
    monkeypatch.setattr("fotahook.store.sqlite.connection.BUSY_SECONDS", 600.0)


@pytest.mark.usefixtures("patient")
def test_closing_completes_a_pending_message_and_refuses_the_next(wrap: Wrap, inbox: str) -> None:
    app = wrap()
    with accepting(app, inbox) as (intake, answer, other), ThreadPoolExecutor(1) as threads:
        closing = threads.submit(app.close)
        until(lambda: intake._closed)
        # As for a thread that had the intake in hand already.
        app._inbox = intake
        assert call(app, b"[]").error == (503, "INBOX_AWAY")
        assert call(app, method="GET", path="/healthz").error == (503, "INBOX_AWAY")
        app._inbox = None
        other.execute("rollback")
        closing.result(DEADLINE)
        assert answer.result(DEADLINE).json["duplicate"] is False
    assert call(app).json["duplicate"] is True


@pytest.mark.usefixtures("patient")
def test_closing_cancels_a_message_that_cannot_be_stored(
    wrap: Wrap, inbox: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = wrap()
    with accepting(app, inbox) as (intake, answer, other):
        monkeypatch.setattr("fotahook.listener.adapters.wsgi.CLOSE_SECONDS", 0.01)
        app.close()
        assert answer.result(DEADLINE).error == (503, "INBOX_AWAY")
        other.execute("rollback")
        intake._thread.join(DEADLINE)
    assert not intake._thread.is_alive()


FORK = """
import os, signal, sys, threading
from fotahook.listener import Listener
from fotahook.listener.adapters.wsgi import WsgiListener
from tests.listener.test_wsgi import call

inbox, opened = sys.argv[1:]
app = WsgiListener(Listener(inbox))
WsgiListener(Listener(inbox))
if opened == "opened":
    assert call(app).status == 200
held, forked = threading.Event(), threading.Event()

def hold():
    with app._lock, app._listener.request_handler._log_limit._lock:
        held.set()
        forked.wait()

threading.Thread(target=hold).start()
held.wait()
child = os.fork()
if child == 0:
    signal.alarm(30)
    answers = call(app, method="GET", path="/healthz"), call(app), call(app), call(app, b"no JSON")
    app.close()
    os.write(1, b"%a" % [answer.status for answer in answers])
    os._exit(0)
_, status = os.waitpid(child, 0)
forked.set()
os.write(1, b" %d %d" % (os.waitstatus_to_exitcode(status), call(app).status))
app.close()
"""


@pytest.mark.parametrize("opened", ["opened", "not yet"])
def test_a_fork_while_another_thread_holds_the_locks_does_not_block_the_child(inbox: str, opened: str) -> None:
    """As a server that loads the app and then forks does; threads stay behind, and so does what they held."""
    forked = subprocess.run(
        [sys.executable, "-c", FORK, inbox, opened],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=True,
    )
    assert forked.stdout == "[200, 200, 200, 400] 0 200"
    assert "Traceback" not in forked.stderr


def test_an_unused_adapter_is_garbage_collected(make: Make) -> None:
    adapter = weakref.ref(WsgiListener(make()))
    gc.collect()
    assert adapter() is None

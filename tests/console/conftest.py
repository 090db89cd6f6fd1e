"""A service with its console and a browser, which the tests of a module share."""

import itertools
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from anyio.from_thread import start_blocking_portal

from fotahook import (
    Client,
    FotaV2CallbackRegistrationRequest,
    OperatorClient,
    SessionCredentials,
    ThingspaceOauthCredentials,
)
from fotahook.service.credentials import DEV_CLIENT, DEV_USER

from ..cli.processes import Running, running
from ..faults.links import Link
from .browser import Browser, browsing

_NUMBERS = itertools.count(100_000)

Register = Callable[[str, str], None]


class Receiver:
    """A receiver that answers a given status and body."""

    def __init__(self) -> None:
        self.status, self.body = 200, b""
        self.received = 0
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                receiver.received += 1
                self.send_response(receiver.status)
                self.send_header("Content-Length", str(len(receiver.body)))
                self.end_headers()
                self.wfile.write(receiver.body)

            def log_message(self, *_: object) -> None:
                """Log nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"


class Line:
    """The way from the browser to the service, which can be cut."""

    def __init__(self, link: Link, call: Callable[..., None]) -> None:
        self._link, self._call = link, call
        self.url = f"http://127.0.0.1:{link.port}"

    def cut(self) -> None:
        self._call(self._link.cut, "drop")

    def heal(self) -> None:
        self._call(self._link.heal)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    # One attempt, so that a refused message is dead at once.
    with running("serve", "--dev", "--port", "0", "--schedule", "0", cwd=tmp_path_factory.mktemp("service")) as service:
        yield service


@pytest.fixture(scope="module")
def line(service: Running) -> Iterator[Line]:
    link = Link(int(service.url.rpartition(":")[2]))
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(link.listening()):
        yield Line(link, portal.call)


@pytest.fixture(scope="module")
def browser(line: Line, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browsing(line.url, tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="module")
def operator(service: Running) -> Iterator[OperatorClient]:
    with OperatorClient(service.url, *DEV_CLIENT) as operator:
        yield operator


@pytest.fixture(scope="module")
def register(service: Running) -> Iterator[Register]:
    """Registers a callback as ThingSpace's clients do."""
    with Client(
        thingspace_oauth_credentials=ThingspaceOauthCredentials(*DEV_CLIENT),
        vz_m2m_token_credentials=SessionCredentials(*DEV_USER),
        base_url=service.url,
    ) as client:
        callbacks = client.software_management_callbacks_v2

        def register(account: str, url: str) -> None:
            callbacks.register_callback(account, FotaV2CallbackRegistrationRequest(url))

        yield register


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    thread = threading.Thread(target=receiver.server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield receiver
    receiver.server.shutdown()
    thread.join()
    receiver.server.server_close()


@pytest.fixture
def account() -> str:
    """An account of this test alone."""
    return f"{next(_NUMBERS):010d}-00001"


@pytest.fixture
def signed_in(browser: Browser) -> Browser:
    browser.start_over()
    return browser


@pytest.fixture(scope="module", params=[(1400, 900), (390, 844)], ids=lambda size: f"{size[0]}x{size[1]}")
def window(request: pytest.FixtureRequest, browser: Browser) -> Iterator[Browser]:
    """The browser in each size that the console is made for."""
    with browser.showing(*request.param):
        yield browser


@pytest.fixture
def page(window: Browser) -> Iterator[Browser]:
    """The console, signed in; what a test leaves on the screen is checked."""
    window.start_over()
    yield window
    window.check()

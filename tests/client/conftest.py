"""A service with scripted responses, and both clients of the SDK against it."""

import asyncio
import errno
import json
import socket
import socketserver
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pytest
import trustme

import fotahook
from fotahook.client._runtime import Runtime

ACCOUNT = "0000123456-00001"
LISTENER = "https://10.120.102.183:50559/CallbackListener/FirmwareServiceMessages.asmx"
BODY = fotahook.FotaV2CallbackRegistrationRequest(LISTENER)
OAUTH = fotahook.ThingspaceOauthCredentials("an-id", "a-client-secret")
USER = fotahook.SessionCredentials("a-user", "a-password")


class Received(NamedTuple):
    """A request as it was received."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


# The chunks of a response, sent one by one; None closes the connection.
Chunks = Iterable[bytes | None]
Route = Callable[[Received], Chunks]


def respond(status: int = 200, body: object = b"", headers: str = "", reason: str = "Any") -> Chunks:
    """A complete response; a body that is not bytes is sent as JSON."""
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"HTTP/1.1 {status} {reason}\r\nContent-Length: {len(sent)}\r\n{headers}\r\n"
    return [head.encode("latin-1") + sent]


class Peer:
    """A service on a free port; tokens and sessions work unless a test changes `routes`."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.seen: list[Received] = []
        self.tokens = 0
        self.sessions = 0
        self.routes: dict[str, Route] = {
            "oauth2/token": self._token,
            "session/login": self._login,
            "session/logout": lambda _: respond(body={"sessionToken": "session-0"}),
            "oauth2/revoke": lambda _: respond(),
            "callbacks/": self._callback,
        }
        self._context = context
        self._open: set[socket.socket] = set()
        peer = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                peer._serve(self.request)

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            request_queue_size = 128

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = int(self._server.server_address[1])
        scheme = "https" if context else "http"
        self.url = f"{scheme}://{'localhost' if context else '127.0.0.1'}:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def _token(self, _: Received) -> Chunks:
        self.tokens += 1
        token = {"access_token": f"token-{self.tokens}", "token_type": "Bearer", "expires_in": 3600}
        return respond(body=token)

    def _login(self, _: Received) -> Chunks:
        self.sessions += 1
        return respond(body={"sessionToken": f"session-{self.sessions}"})

    def _callback(self, seen: Received) -> Chunks:
        return respond(body={"success": True} if seen.method == "DELETE" else {"url": LISTENER})

    @property
    def calls(self) -> list[Received]:
        """The callback calls only."""
        return [seen for seen in self.seen if "/callbacks/" in seen.target]

    @property
    def connections(self) -> int:
        """The number of open connections."""
        return len(self._open)

    def close(self) -> None:
        self._server.shutdown()
        for connection in list(self._open):
            connection.close()
        self._server.server_close()
        self._thread.join()

    def _serve(self, raw: socket.socket) -> None:
        connection = raw
        self._open.add(raw)
        try:
            if self._context is not None:
                connection = self._context.wrap_socket(raw, server_side=True)
            with connection, connection.makefile("rb") as reader:
                while seen := _read(reader):
                    self.seen.append(seen)
                    for piece in self._route(seen):
                        if piece is None:
                            return
                        connection.sendall(piece)
        except OSError as error:
            # The client closed the connection, or this server did at the end. Anything else fails the test.
            if not isinstance(error, ConnectionError | ssl.SSLError) and error.errno != errno.EBADF:
                raise
        finally:
            self._open.discard(raw)
            raw.close()

    def _route(self, seen: Received) -> Chunks:
        for part, route in self.routes.items():
            if part in seen.target:
                return route(seen)
        return respond(404)


def _read(reader: Any) -> Received | None:
    first = reader.readline().decode("latin-1").split()
    if len(first) != 3:
        return None
    headers = {}
    while (line := reader.readline().decode("latin-1").strip()) != "":
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return Received(first[0], first[1], headers, reader.read(int(headers.get("content-length", 0))))


@pytest.fixture
def peer() -> Iterator[Peer]:
    with_peer = Peer()
    yield with_peer
    with_peer.close()


class Sdk(Protocol):
    """Calls either client in the same way."""

    client: Any

    def call(self, name: str, *args: object, **kwargs: object) -> Awaitable[Any]: ...

    def do(self, name: str) -> Awaitable[None]: ...


class _Sync:
    def __init__(self, client: fotahook.Client) -> None:
        self.client = client

    async def call(self, name: str, *args: object, **kwargs: object) -> Any:
        controller = self.client.software_management_callbacks_v2
        return await asyncio.to_thread(getattr(controller, name), *args, **kwargs)

    async def do(self, name: str) -> None:
        await asyncio.to_thread(getattr(self.client, name))


class _Async:
    def __init__(self, client: fotahook.AsyncClient) -> None:
        self.client = client

    async def call(self, name: str, *args: object, **kwargs: object) -> Any:
        return await getattr(self.client.software_management_callbacks_v2, name)(*args, **kwargs)

    async def do(self, name: str) -> None:
        await getattr(self.client, name)()


class Clock:
    """A clock that only tests move; sleeps return at once and are recorded."""

    def __init__(self) -> None:
        self.time = 1_000_000.0
        self.waits: list[float] = []

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)

    async def async_sleep(self, seconds: float) -> None:
        self.waits.append(seconds)

    def runtime(self) -> Runtime:
        return Runtime(now=self.now, jitter=lambda: 0.0, sleep=self.sleep, async_sleep=self.async_sleep)


@pytest.fixture
def clock() -> Clock:
    return Clock()


OpenSdk = Callable[..., Any]


@asynccontextmanager
async def opened(kind: str, url: str, clock: Clock | None, **options: Any) -> AsyncIterator[Sdk]:
    """A client of either kind, with the clock if one is given."""
    given = {"thingspace_oauth_credentials": OAUTH, "vz_m2m_token_credentials": USER, "base_url": url, **options}
    runtime = Runtime() if clock is None else clock.runtime()
    if kind == "sync":
        with fotahook.Client._with_runtime(runtime, **given) as client:
            yield _Sync(client)
    else:
        async with fotahook.AsyncClient._with_runtime(runtime, **given) as aclient:
            yield _Async(aclient)


@pytest.fixture(params=["sync", "async"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def open_sdk(kind: str, peer: Peer, clock: Clock) -> OpenSdk:
    """Opens a client of either kind against the peer."""

    def open_one(*, url: str | None = None, **options: Any) -> Any:
        return opened(kind, url or peer.url, clock, **options)

    return open_one


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> str:
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return str(tmp_path / "ca.pem")


def tls_peer(certificate: trustme.LeafCert, clients: trustme.CA | None = None) -> Peer:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    if clients is not None:
        clients.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    return Peer(context)

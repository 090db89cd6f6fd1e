"""A real service over a real store, spoken to directly or over a socket."""

import asyncio
import base64
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
import uvicorn
from starlette.types import ASGIApp, Message, Scope

from fotahook.contract.addresses import EVERYWHERE
from fotahook.service import Settings, build_app, provision_dev
from fotahook.store import SqliteStore

ACCOUNT = "0000123456-00001"
CALLBACK = f"/api/fota/v2/callbacks/{ACCOUNT}"
MESSAGES = f"/v1/accounts/{ACCOUNT}/messages"
TOKEN = "/api/ts/v1/oauth2/token"
REVOKE = "/api/ts/v1/oauth2/revoke"
LOGIN = "/api/m2m/v1/session/login"
LOGOUT = "/api/m2m/v1/session/logout"
RESET = "/api/m2m/v1/session/password/actions/reset"
URL = "https://listener.example.com/callbacks"
SECRET_KEY = bytes(range(32))
GRANT = b"grant_type=client_credentials"

Headers = Mapping[str, str]


@dataclass
class FakeClock:
    """Time that passes when told to."""

    now: float = 1_750_000_000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@dataclass(frozen=True)
class Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name.lower()), None)

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    @property
    def error(self) -> tuple[int, str]:
        """Status and errorCode of an answer in ThingSpace's shape."""
        assert set(self.json) >= {"errorCode", "errorMessage"}, self.body
        assert self.header("content-type") == "application/json"
        return self.status, self.json["errorCode"]

    @property
    def fault(self) -> tuple[int, str]:
        """Status and code of an answer in the gateway's shape."""
        assert set(self.json["fault"]) == {"code", "message", "description"}, self.body
        return self.status, self.json["fault"]["code"]


async def ask(
    app: ASGIApp,
    method: str,
    path: str | bytes,
    body: bytes | list[bytes] = b"",
    headers: Headers | list[tuple[bytes, bytes]] | None = None,
) -> Answer:
    """One request, handed to the app as a server would, but with no server's rules in between."""
    raw = path.encode() if isinstance(path, str) else path
    pairs = (
        headers if isinstance(headers, list) else [(k.lower().encode(), v.encode()) for k, v in (headers or {}).items()]
    )
    scope: Scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": raw.decode("latin-1"),
        "raw_path": raw,
        "query_string": b"",
        "root_path": "",
        "headers": pairs,
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 80),
    }
    chunks = list(body) if isinstance(body, list) else [body]
    sent: list[Message] = []

    async def receive() -> Message:
        if not chunks:
            return {"type": "http.disconnect"}
        chunk = chunks.pop(0)
        return {"type": "http.request", "body": chunk, "more_body": bool(chunks)}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    start, *parts = sent
    told = [(name.decode(), value.decode()) for name, value in start["headers"]]
    return Answer(start["status"], told, b"".join(part["body"] for part in parts))


def basic(client_id: str = "dev", secret: str = "dev-secret") -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{client_id}:{secret}".encode()).decode()}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@dataclass
class Api:
    """A development service, and both tokens of its well-known client and user."""

    app: ASGIApp
    store: SqliteStore
    clock: FakeClock
    bearer: dict[str, str] = field(default_factory=dict)
    both: dict[str, str] = field(default_factory=dict)

    async def __call__(
        self,
        method: str,
        path: str | bytes,
        body: bytes | list[bytes] = b"",
        headers: Headers | list[tuple[bytes, bytes]] | None = None,
    ) -> Answer:
        return await ask(self.app, method, path, body, headers)

    async def token(self, headers: Headers | None = None) -> str:
        answer = await self("POST", TOKEN, GRANT, headers or basic())
        assert answer.status == 200, answer
        text: str = answer.json["access_token"]
        return text

    async def login(self, token: str, username: str = "dev", password: str = "dev-password") -> str:
        body = msgspec.json.encode({"username": username, "password": password})
        answer = await self("POST", LOGIN, body, bearer(token))
        assert answer.status == 200, answer
        text: str = answer.json["sessionToken"]
        return text

    async def sign_in(self) -> None:
        token = await self.token()
        self.bearer = bearer(token)
        self.both = {**self.bearer, "VZ-M2M-Token": await self.login(token)}


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def store(tmp_path: Path, clock: FakeClock) -> AsyncIterator[SqliteStore]:
    store = await SqliteStore.open(tmp_path / "service.db", clock=clock)
    yield store
    await store.close()


@pytest.fixture
async def api(store: SqliteStore, clock: FakeClock) -> Api:
    """A service in which nothing but public HTTPS registers, its development client signed in."""
    await provision_dev(store, clock=clock)
    api = Api(build_app(store, Settings(secret_key=SECRET_KEY, clock=clock)), store, clock)
    await api.sign_in()
    return api


class Server(uvicorn.Server):
    """A server that says when it listens, and where."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = threading.Event()
        self.port = 0

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self.port = self.servers[0].sockets[0].getsockname()[1]
        self.listening.set()


@pytest.fixture
def base_url(tmp_path: Path) -> Iterator[str]:
    """A development service on a free port of this machine, in a thread of its own."""
    server: Server | None = None
    ready = threading.Event()

    async def serve() -> None:
        nonlocal server
        store = await SqliteStore.open(tmp_path / "served.db")
        try:
            await provision_dev(store)
            settings = Settings(secret_key=SECRET_KEY, allow_http=True, allowed_networks=EVERYWHERE)
            app = build_app(store, settings)
            server = Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, access_log=False))
            ready.set()
            await server.serve()
        finally:
            ready.set()
            await store.close()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="service-under-test")
    thread.start()
    try:
        assert ready.wait(10)
        assert server is not None
        assert server.listening.wait(10)
        yield f"http://127.0.0.1:{server.port}"
    finally:
        if server is not None:
            server.should_exit = True
        thread.join(10)

"""A real service over a real store, spoken to directly or over a socket."""

import asyncio
import base64
import contextlib
import re
import secrets
import sqlite3
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from types import EllipsisType
from typing import Any

import msgspec
import pytest
from starlette.types import ASGIApp, Message, Scope

from fotahook.service import Settings, build_app, create_credential
from fotahook.service.credentials import SCOPES, PasswordCost, provision_dev
from fotahook.store import SqliteStore
from tests.sqlite import put_empty_store

from .serving import SECRET_KEY, serving

ACCOUNT = "0000123456-00001"
CALLBACK = f"/api/fota/v2/callbacks/{ACCOUNT}"
MESSAGES = f"/v1/accounts/{ACCOUNT}/messages"
TOKEN = "/api/ts/v1/oauth2/token"
REVOKE = "/api/ts/v1/oauth2/revoke"
LOGIN = "/api/m2m/v1/session/login"
LOGOUT = "/api/m2m/v1/session/logout"
RESET = "/api/m2m/v1/session/password/actions/reset"
URL = "https://listener.example.com/callbacks"
GRANT = b"grant_type=client_credentials"

Headers = Mapping[str, str]
Body = bytes | Sequence[bytes | EllipsisType | None]


@dataclass
class FakeClock:
    """A clock that tests advance."""

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
    def lines(self) -> list[Any]:
        """The lines of an answer to a batch."""
        return [msgspec.json.decode(line) for line in self.body.splitlines()]

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
    body: Body = b"",
    headers: Headers | list[tuple[bytes, bytes]] | None = None,
    client: str | None = "127.0.0.1",
) -> Answer:
    """One request, handed to the app as a server would, but with no server's rules in between.

    A body may come in chunks; None stands for a client that goes away in the middle of it, ... for one that stalls.
    """
    raw, _, query = (path.encode() if isinstance(path, str) else path).partition(b"?")
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
        "query_string": query,
        "root_path": "",
        "headers": pairs,
        "client": client and (client, 50000),
        "server": ("127.0.0.1", 80),
    }
    chunks: list[bytes | EllipsisType | None] = [body] if isinstance(body, bytes) else list(body)
    sent: list[Message] = []
    endless = asyncio.Event()

    async def receive() -> Message:
        if not chunks:
            # The client waits for the answer, and leaves one that does not end.
            await endless.wait()
            return {"type": "http.disconnect"}
        if chunks[0] is ...:
            await asyncio.Event().wait()
        chunk = chunks.pop(0)
        if chunk is None:
            chunks.append(None)
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": chunk, "more_body": bool(chunks)}

    async def send(message: Message) -> None:
        sent.append(message)
        if any(value.startswith(b"text/event-stream") for _, value in message.get("headers", ())):
            endless.set()

    await app(scope, receive, send)
    start, *parts = sent
    fields = [(name.decode(), value.decode()) for name, value in start["headers"]]
    return Answer(start["status"], fields, b"".join(part["body"] for part in parts))


def basic(client_id: str = "dev", secret: str = "dev-secret") -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{client_id}:{secret}".encode()).decode()}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


DOCUMENT = msgspec.json.decode(files("fotahook.service").joinpath("openapi.json").read_bytes())
DESCRIBED = {
    re.compile(re.sub(r"\{\w+\}", "[^/]*", path)): {
        method.upper(): set(operation["responses"]) for method, operation in item.items() if method != "parameters"
    }
    for path, item in DOCUMENT["paths"].items()
}


def is_described(method: str, path: str | bytes, status: int) -> bool:
    """Whether the service's own description knows this status, where it knows the path and the method."""
    text = path if isinstance(path, str) else path.decode("latin-1")
    methods = next((found for known, found in DESCRIBED.items() if known.fullmatch(text.partition("?")[0])), {})
    return str(status) in methods.get("GET" if method == "HEAD" else method, {str(status)})


@dataclass
class Api:
    """A development service, and both tokens of its well-known client and user."""

    app: ASGIApp
    store: SqliteStore
    file: Path
    clock: FakeClock
    bearer: dict[str, str] = field(default_factory=dict)
    both: dict[str, str] = field(default_factory=dict)

    async def __call__(
        self,
        method: str,
        path: str | bytes,
        body: Body = b"",
        headers: Headers | list[tuple[bytes, bytes]] | None = None,
    ) -> Answer:
        answer = await ask(self.app, method, path, body, headers)
        assert is_described(method, path, answer.status), (method, path, answer)
        return answer

    def rows(self) -> dict[str, list[Any]]:
        """Everything in the store, to tell whether a call changed anything."""
        with contextlib.closing(sqlite3.connect(self.file)) as db:
            tables = ("callbacks", "callback_history", "messages", "pending", "lanes", "credentials")
            return {table: db.execute(f"select * from {table} order by 1, 2").fetchall() for table in tables}

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


CHEAP = PasswordCost(memory_kib=8, passes=1)
"""A test need not wait for a password to be hashed."""


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "service.db"


@pytest.fixture
async def store(file: Path, clock: FakeClock) -> AsyncIterator[SqliteStore]:
    put_empty_store(file)
    store = await SqliteStore.open(file, clock=clock)
    yield store
    await store.close()


@pytest.fixture
async def api(store: SqliteStore, file: Path, clock: FakeClock) -> Api:
    """A service in which nothing but public HTTPS registers, its development client signed in."""
    await provision_dev(store, clock=clock, cost=CHEAP)
    api = Api(build_app(store, Settings(secret_key=SECRET_KEY, password_cost=CHEAP, clock=clock)), store, file, clock)
    await api.sign_in()
    return api


async def client_of(api: Api, accounts: list[str] | None = None, scopes: tuple[str, ...] = SCOPES) -> dict[str, str]:
    """Both tokens of a client and a user of the same name who are granted just this."""
    name = secrets.token_hex(4)
    secret = await create_credential(api.store, "client", name, accounts=accounts, scopes=scopes, clock=api.clock)
    password = await create_credential(
        api.store, "user", name, accounts=accounts, scopes=scopes, clock=api.clock, cost=CHEAP
    )
    token = await api.token(basic(name, secret))
    return {**bearer(token), "VZ-M2M-Token": await api.login(token, name, password)}


@pytest.fixture
def base_url(tmp_path: Path) -> Iterator[str]:
    """A development service on a free port of this machine."""
    with serving(tmp_path) as url:
        yield url

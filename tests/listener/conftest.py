"""Named states of the world for the listener: a real inbox, and requests as a server hands them to the app."""

import asyncio
import functools
import io
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console
from starlette.types import ASGIApp, Message

from fotahook.contract import signing
from fotahook.listener import Listener
from fotahook.store import SqliteStore
from fotahook.store.records import Message as Stored
from tests.deadlines import DEADLINE

NOW = 1_800_000_000.0
SECRET = bytes(range(32))
SEED = bytes(32)
PROGRESS = b'{"accountName": "0000123456-00001", "upgradeProgress": {"id": "c-1", "status": "InProgress"}}'


class Answer(msgspec.Struct, frozen=True):
    """What the app answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> tuple[int, str]:
        assert set(self.json) == {"errorCode", "errorMessage"}
        return self.status, self.json["errorCode"]


async def request(
    app: ASGIApp,
    *chunks: bytes | BaseException | asyncio.Event,
    method: str = "POST",
    path: str = "/",
    root_path: str = "",
    headers: Sequence[tuple[str, str]] | dict[str, str] = (),
    http_version: str = "1.1",
    client: str | None = "192.0.2.1",
) -> Answer:
    """One request, its body in chunks: an event holds the rest back until it is set, an exception is a hang-up."""
    waiting = list(chunks)
    sent: list[Message] = []

    async def receive() -> Message:
        if waiting and isinstance(waiting[0], asyncio.Event):
            await waiting.pop(0).wait()  # type: ignore[union-attr]
        if waiting and isinstance(waiting[0], BaseException):
            return {"type": "http.disconnect"}
        chunk = waiting.pop(0) if waiting else b""
        return {"type": "http.request", "body": chunk, "more_body": bool(waiting)}

    async def send(message: Message) -> None:
        sent.append(message)

    pairs = headers.items() if isinstance(headers, dict) else headers
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": http_version,
        "method": method,
        "scheme": "http",
        "path": root_path + path,
        "root_path": root_path,
        "query_string": b"",
        "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in pairs],
        "server": ("listener.example", 443),
        "client": client and (client, 50000),
    }
    async with asyncio.timeout(DEADLINE):
        await app(scope, receive, send)
    start, *rest = sent
    return Answer(
        start["status"],
        {name.decode(): value.decode() for name, value in start["headers"]},
        b"".join(part.get("body", b"") for part in rest),
    )


def by_hmac(
    body: bytes, message_id: str = "msg-1", *, key: bytes = SECRET, timestamp: int = int(NOW)
) -> dict[str, str]:
    return signing.headers(message_id, timestamp, [signing.signer(secrets=[key])(message_id, timestamp, body)])


def rich_text(value: object) -> str:
    """What rich shows of a value."""
    console = Console(file=io.StringIO(), width=200)
    console.print(value)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


class Seen:
    """Collects what handlers saw, from the event loop or from threads, and lets a test wait for it."""

    def __init__(self) -> None:
        self.items: list[Any] = []
        self._wake: Callable[[], object] = lambda: None

    def add(self, item: object) -> None:
        self.items.append(item)
        self._wake()

    async def wait(self, count: int) -> list[Any]:
        """The items, once there are that many."""
        more = asyncio.Event()
        self._wake = functools.partial(asyncio.get_running_loop().call_soon_threadsafe, more.set)
        async with asyncio.timeout(DEADLINE):
            while len(self.items) < count:
                await more.wait()
                more.clear()
        return self.items


@pytest.fixture
def inbox(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/inbox.db"


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
def make(inbox: str) -> Callable[..., Listener]:
    """Makes listeners on the one inbox, with a clock that stands still and retries at once."""

    def make(**options: Any) -> Listener:
        defaults: dict[str, Any] = {"clock": lambda: NOW, "schedule": (0.0, 0.0, 0.0), "accept_timeout": DEADLINE}
        return Listener(inbox, **defaults | options)

    return make


@asynccontextmanager
async def reading(inbox: str) -> AsyncIterator[SqliteStore]:
    """The inbox as another process reads it."""
    store = await SqliteStore.open(inbox.removeprefix("sqlite:///"))
    try:
        yield store
    finally:
        await store.close()


async def stored(inbox: str, message_id: str) -> Stored:
    """A message as it stands in the inbox."""
    async with reading(inbox) as store:
        message = await store.message(message_id)
    assert message is not None
    return message

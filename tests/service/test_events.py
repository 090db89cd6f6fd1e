"""Event streams over a real socket: every event once, in order, to every client that may see it, across reconnects."""

import asyncio
import contextlib
import random
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import msgspec
import pytest

from fotahook.contract.events import (
    AttemptFinished,
    CallbackChanged,
    Event,
    EventReader,
    LaneChanged,
    MessageAccepted,
    MessageDead,
)
from fotahook.service import create_credential, event_feed, revoke
from fotahook.service.credentials import provision_dev
from fotahook.service.event_feed import Cursors
from fotahook.service.operator import events
from fotahook.store import SqliteStore
from fotahook.store.events import EventCursor, EventPage
from fotahook.store.records import Attempt, Delivery, Health, LaneVerdict, NewMessage, Settlement, StoreUnavailable
from tests.deadlines import DEADLINE

from .conftest import ACCOUNT, GRANT, TOKEN, URL, Api, basic, client_of
from .serving import SECRET_KEY, Server, server_of

OTHER = "0000123456-00002"
CURSORS = Cursors(SECRET_KEY)
BEGINNING = CURSORS.seal_events(EventCursor())


class CountedStore(SqliteStore):
    """A store that counts how often it is asked for events, may be away for a while, or be another one than before."""

    asked = 0
    away = 0
    replaced = False

    async def events(self, after: EventCursor | None, *, limit: int) -> EventPage:
        self.asked += 1
        if self.away:
            self.away -= 1
            raise StoreUnavailable("away")
        if self.replaced and after is not None:
            return EventPage(events=(), cursor=after, lost=True)
        return await super().events(after, limit=limit)


class Live:
    """A service behind a real server, in this event loop, and who calls it."""

    def __init__(self, store: CountedStore, server: Server, http: aiohttp.ClientSession) -> None:
        self.store, self.server, self._http = store, server, http
        self.token = ""

    async def sign_in(self, client_id: str, secret: str) -> str:
        headers = basic(client_id, secret)
        async with self._http.post(self.server.url + TOKEN, data=GRANT, headers=headers) as answer:
            token: str = (await answer.json())["access_token"]
            return token

    @contextlib.asynccontextmanager
    async def stream(
        self, query: str = "", *, cursor: str | None = None, token: str | None = None
    ) -> AsyncIterator["Stream"]:
        headers = {"Authorization": f"Bearer {token or self.token}"}
        if cursor is not None:
            headers["Last-Event-ID"] = cursor
        async with self._http.get(f"{self.server.url}/v1/events{query}", headers=headers) as answer:
            assert answer.status == 200, await answer.text()
            assert answer.headers["Content-Type"].startswith("text/event-stream")
            stream = Stream(answer, cursor)
            # The cursor to begin with: from here on nothing is missed.
            while stream.reader.cursor is None:
                await stream.more()
            yield stream

    async def publish(self, *bodies: bytes, account: str = ACCOUNT) -> None:
        await self.store.accept([NewMessage(account=account, body=body) for body in bodies])

    async def attempt(self, state: str = "delivered", verdict: LaneVerdict | None = None) -> None:
        """One attempt at each message that is due, all of which come to the same."""
        for lease in await self.store.lease(10, 30):
            found = await self.store.fetch(lease, 1000)
            settlements = [_settlement(delivery, state) for delivery in found]
            await self.store.settle(lease, settlements, verdict or LaneVerdict(health=Health()), keep=0)


class Stream:
    def __init__(self, answer: aiohttp.ClientResponse, cursor: str | None) -> None:
        self.answer = answer
        self.reader = EventReader(cursor)
        self.events: list[Event] = []

    async def more(self) -> bool:
        """Read a piece; False at the end."""
        async with asyncio.timeout(DEADLINE):
            piece = await self.answer.content.readany()
        self.events += self.reader.read(piece)
        return bool(piece)

    async def read(self, count: int) -> list[Event]:
        while len(self.events) < count:
            assert await self.more(), self.events
        return self.events[:count]


def _settlement(delivery: Delivery, state: Any) -> Settlement:
    good = state == "delivered"
    attempt = Attempt(
        started_at=1.0,
        url=URL,
        outcome="delivered" if good else "failed",
        status=200 if good else 500,
        error_code=None if good else "http_5xx",
        phases={"total": 1.5},
        excerpt="top secret",
    )
    return Settlement(delivery=delivery, state=state, attempts=1, strikes=0, attempt=attempt)


@pytest.fixture
async def live(tmp_path: Path) -> AsyncIterator[Live]:
    opened = await CountedStore.open(tmp_path / "live.db")
    assert isinstance(opened, CountedStore)
    await provision_dev(opened)
    listening: SimpleQueue[Server] = SimpleQueue()
    server = server_of(opened, listening)
    task = asyncio.create_task(server.serve())
    await asyncio.to_thread(listening.get, timeout=DEADLINE)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        live = Live(opened, server, http)
        live.token = await live.sign_in("dev", "dev-secret")
        yield live
    server.should_exit = True
    await task
    await opened.close()


async def once(holds: Any) -> None:
    async with asyncio.timeout(DEADLINE):
        while not holds():  # noqa: ASYNC110 - nobody tells when a server notices that a client has left
            await asyncio.sleep(0.01)


def pollers() -> list[str]:
    return [task.get_name() for task in asyncio.all_tasks() if task.get_name() == "events"]


async def test_events_are_streamed_without_bodies_or_responses(live: Live) -> None:
    async with live.stream() as stream:
        await live.store.register(ACCOUNT, URL, actor="test")
        await live.publish(b'{"password": "top secret"}')
        await live.attempt("pending", LaneVerdict(health=Health(failures=1, reason="http_5xx"), wait=0))
        await live.attempt("dead")
        seen = await stream.read(8)
    assert [event.name for event in seen] == [
        *("callback.changed", "lane.changed", "message.accepted", "attempt.finished", "lane.changed"),
        *("attempt.finished", "message.dead", "lane.changed"),
    ]
    registered, opened, accepted, first, waiting, second, dead, better = (event.data for event in seen)
    assert isinstance(registered, CallbackChanged)
    assert (registered.action, registered.url, registered.actor, registered.revision) == ("registered", URL, "test", 1)
    assert isinstance(accepted, MessageAccepted)
    assert (accepted.account, accepted.size) == (ACCOUNT, 26)
    assert isinstance(first, AttemptFinished)
    assert (first.id, first.lane, first.number, first.state) == (accepted.id, ACCOUNT, 1, "pending")
    assert (first.outcome, first.http_status, first.error_code) == ("failed", 500, "http_5xx")
    assert (first.url, first.milliseconds) == (URL, 1.5)
    assert isinstance(second, AttemptFinished)
    assert (second.number, second.state) == (2, "dead")
    assert isinstance(dead, MessageDead)
    assert (dead.id, dead.lane, dead.error_code) == (accepted.id, ACCOUNT, "http_5xx")
    states = [change.state for change in (opened, waiting, better) if isinstance(change, LaneChanged)]
    assert states == ["open", "waiting", "open"]
    assert b"top secret" not in msgspec.json.encode(seen)


async def test_a_stream_resumes_after_any_cursor(live: Live) -> None:
    await live.store.register(ACCOUNT, URL, actor="test")
    await live.publish(b"1", b"2")
    await live.attempt("dead")
    async with live.stream(cursor=BEGINNING) as stream:
        everything = await stream.read(8)
    for place, event in enumerate(everything[:-1], 1):
        async with live.stream(f"?after={event.cursor}") as stream:
            assert await stream.read(8 - place) == everything[place:]


@pytest.mark.parametrize("seed", range(3))
async def test_streams_resume_after_random_disconnects_without_loss(seed: int, live: Live) -> None:
    chance = random.Random(seed)
    await live.store.register(ACCOUNT, URL, actor="test")

    async def happen() -> None:
        for _ in range(40):
            await live.publish(*[b"{}"] * chance.randint(1, 20))
            await live.attempt(chance.choice(["delivered", "dead", "pending"]))
            await asyncio.sleep(chance.random() * 0.01)

    happening = asyncio.create_task(happen())
    cursor, seen = BEGINNING, list[Event]()
    while True:
        async with live.stream(cursor=cursor) as stream:
            for _ in range(chance.randint(1, 6)):
                if happening.done() and stream.reader.cursor == await _end_of(live):
                    break
                await stream.more()
            seen += stream.events
            assert stream.reader.cursor is not None
            cursor = stream.reader.cursor
            # In the middle of whatever comes.
            assert stream.answer.connection is not None
            stream.answer.connection.close()
        if happening.done() and cursor == await _end_of(live):
            break
    await happening
    stored = await live.store.events(EventCursor(), limit=100_000)
    assert not stored.more
    assert len(seen) == len(stored.events)
    for kind in ("messages", "attempts", "callbacks", "lanes"):
        assert _positions(seen, kind) == [event.position for event in stored.events if event.source == kind]


async def _end_of(live: Live) -> str:
    return CURSORS.seal_events((await live.store.events(EventCursor(), limit=100_000)).cursor)


def _positions(seen: list[Event], kind: str) -> list[int]:
    """The positions that each event moved the cursor to in one source."""
    names = {
        "messages": ("message.accepted",),
        "attempts": ("attempt.finished", "message.dead"),
        "callbacks": ("callback.changed",),
        "lanes": ("lane.changed",),
    }[kind]
    cursors = [CURSORS.open_events(event.cursor) for event in seen if event.name in names]
    return [getattr(one, kind) for one in cursors]


async def test_a_stream_has_events_of_granted_accounts_only(live: Live) -> None:
    secret = await create_credential(live.store, "client", "narrow", accounts=[OTHER], scopes=("operate",))
    token = await live.sign_in("narrow", secret)
    async with (
        live.stream(token=token) as narrow,
        live.stream(f"?account={ACCOUNT}") as one,
        live.stream() as everything,
    ):
        for number in range(3):
            await live.publish(b"{}", account=ACCOUNT)
            await live.publish(b"{}", account=OTHER)
            await everything.read(2 * number + 2)
        for stream, account in ((narrow, OTHER), (one, ACCOUNT)):
            assert {event.data.account for event in await stream.read(3)} == {account}


async def test_two_hundred_streams_read_the_store_as_often_as_one(live: Live) -> None:
    async with contextlib.AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(live.stream()) for _ in range(200)]
        before = live.store.asked
        await live.publish(*[b"{}"] * 50)
        seen = await asyncio.gather(*(stream.read(50) for stream in streams))
        assert all(events == seen[0] for events in seen)
        assert live.store.asked - before < 50
        assert len(pollers()) == 1
    await once(lambda: not pollers())


async def test_a_client_that_reads_nothing_is_disconnected(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "STALL_SECONDS", 0.1)
    monkeypatch.setattr(events, "END_SECONDS", 0.1)
    parts = urlsplit(live.server.url)
    assert parts.port
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(("127.0.0.1", parts.port))
        request = f"GET /v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {live.token}\r\n\r\n"
        deaf.sendall(request.encode())
        await once(pollers)
        while pollers():
            await live.publish(*[b'{"type": "%b"}' % (b"x" * 900)] * 200)
            await asyncio.sleep(0.01)


async def test_a_disconnected_client_stops_the_poller(live: Live) -> None:
    async with live.stream() as stream:
        await once(pollers)
        assert stream.answer.connection is not None
        stream.answer.connection.close()
    await once(lambda: not pollers())


async def test_streams_end_when_the_service_stops(live: Live) -> None:
    async with live.stream() as stream:
        live.server.should_exit = True
        while await stream.more():
            pass
    await once(lambda: not pollers())


async def test_streams_survive_an_unavailable_store(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_feed, "RETRY_SECONDS", 0.01)
    async with live.stream() as stream:
        # Now it follows: what it reads by itself before, and fails, ends the stream.
        await live.publish(b"{}")
        await stream.read(1)
        live.store.away = 3
        await live.publish(b"{}")
        assert len(await stream.read(2)) == 2


async def test_streams_end_when_the_store_was_replaced(live: Live) -> None:
    async with live.stream() as stream:
        live.store.replaced = True
        while await stream.more():
            pass
    await once(lambda: not pollers())


async def test_an_idle_stream_sends_its_cursor(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "KEEP_ALIVE_SECONDS", 0.05)
    async with live.stream(f"?account={ACCOUNT}") as stream:
        first = stream.reader.cursor
        await live.publish(b"{}", account=OTHER)
        while stream.reader.cursor == first:
            await stream.more()
        assert stream.events == []


async def test_a_revoked_clients_stream_ends(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = await create_credential(live.store, "client", "gone", accounts=None, scopes=("operate",))
    token = await live.sign_in("gone", secret)
    monkeypatch.setattr(events, "KEEP_ALIVE_SECONDS", 0.05)
    async with live.stream(token=token) as stream:
        await revoke(live.store, "client", "gone")
        while await stream.more():
            pass


async def test_an_invalid_cursor_is_refused(api: Api) -> None:
    for query in ("?after=x", "?after=MS4y", "?after=%00", f"?account=a%2Fb&after={BEGINNING}"):
        assert (await api("GET", f"/v1/events{query}", b"", api.bearer)).error == (400, "INVALID_PARAMETER")


async def test_a_cursor_of_another_store_is_410(api: Api) -> None:
    ahead = CURSORS.seal_events(EventCursor(messages=7))
    answer = await api("GET", f"/v1/events?after={ahead}", b"", api.bearer)
    assert answer.error == (410, "GONE")
    assert "begin without one" in answer.json["errorMessage"]


async def test_events_of_an_account_that_is_not_granted_are_refused(api: Api) -> None:
    mine = await client_of(api, accounts=["mine"])
    assert (await api("GET", f"/v1/events?account={ACCOUNT}", b"", mine)).error == (404, "NOT_FOUND")


async def test_head_of_events_has_headers_only(api: Api) -> None:
    answer = await api("HEAD", "/v1/events", b"", api.bearer)
    assert (answer.status, answer.header("content-type"), answer.body) == (
        200,
        "text/event-stream; charset=utf-8",
        b"",
    )


async def test_a_client_has_a_limited_number_of_streams(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(256):
            await stack.enter_async_context(live.stream())
        with pytest.raises(AssertionError, match="TOO_MANY"):
            await stack.enter_async_context(live.stream())
    await once(lambda: not pollers())
    async with live.stream():
        pass

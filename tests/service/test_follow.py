"""OperatorClient.events, sync and async, against a real service, over connections that are cut at any byte."""

import asyncio
import contextlib
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import pytest

from fotahook import ApiException, AsyncOperatorClient, ConnectionFailed, OperatorClient, ResponseError
from fotahook.client._runtime import Runtime
from fotahook.contract.events import AttemptFinished, Event, EventReader, LaneChanged, MessageAccepted
from fotahook.contract.operator import Stats
from fotahook.service import event_feed
from fotahook.service.event_feed import Cursors, Feed
from fotahook.store import SqliteStore
from fotahook.store.events import EventCursor, EventPage
from fotahook.store.records import NewMessage
from tests.deadlines import DEADLINE
from tests.ports import unused_port

from .serving import SECRET_KEY

ACCOUNT = "0000123456-00001"
BEGINNING = Cursors(SECRET_KEY).seal_events(EventCursor())


class Relay:
    """A way to a service on which each connection is cut after so many bytes of answers."""

    def __init__(self, url: str, budgets: Iterator[int]) -> None:
        parts = urlsplit(url)
        assert parts.hostname
        assert parts.port
        self._target = (parts.hostname, parts.port)
        self._budgets = budgets
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()
        self.cut = 0

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for thread in self._threads:
            thread.join(DEADLINE)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                far = socket.create_connection(self._target)
                for source, sink, budget in ((near, far, 1 << 30), (far, near, next(self._budgets))):
                    thread = threading.Thread(target=self._pump, args=(source, sink, budget))
                    self._threads.append(thread)
                    thread.start()

    def _pump(self, source: socket.socket, sink: socket.socket, budget: int) -> None:
        with contextlib.suppress(OSError):
            while budget > 0 and (piece := source.recv(min(budget, 4096))):
                sink.sendall(piece)
                budget -= len(piece)
            self.cut += budget <= 0
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


@pytest.fixture
def operator(base_url: str) -> Iterator[OperatorClient]:
    with OperatorClient(base_url, "dev", "dev-secret") as operator:
        yield operator


@pytest.fixture
def relay(base_url: str) -> Iterator[Callable[[Iterator[int]], Relay]]:
    with contextlib.ExitStack() as stack:

        def relay(budgets: Iterator[int]) -> Relay:
            made = Relay(base_url, budgets)
            stack.callback(made.close)
            return made

        yield relay


def short_sleeps() -> Runtime:
    """Sleeps a hundredth of the time."""

    async def async_sleep(seconds: float) -> None:
        await asyncio.sleep(seconds / 100)

    return Runtime(sleep=lambda seconds: time.sleep(seconds / 100), async_sleep=async_sleep)


async def followed(url: str, kind: str, count: int, *, after: str | None) -> list[Event]:
    """So many events, as one client or the other gives them."""
    if kind == "sync":
        return await asyncio.to_thread(_followed, url, count, after)
    async with AsyncOperatorClient._with_runtime(short_sleeps(), url, "dev", "dev-secret") as client:
        events = client.events(ACCOUNT, after=after)
        return [await anext(events) for _ in range(count)]


def _followed(url: str, count: int, after: str | None) -> list[Event]:
    with (
        OperatorClient._with_runtime(short_sleeps(), url, "dev", "dev-secret") as client,
        client.events(ACCOUNT, after=after) as events,
    ):
        return [next(events) for _ in range(count)]


both = pytest.mark.parametrize("kind", ["sync", "async"])


@both
async def test_events_are_typed(base_url: str, operator: OperatorClient, kind: str) -> None:
    await asyncio.to_thread(operator.pause, ACCOUNT)
    published = await asyncio.to_thread(operator.publish, ACCOUNT, {"type": "upgradeProgress"}, ordering_key="k")
    paused, accepted = await followed(base_url, kind, 2, after=BEGINNING)
    assert (paused.name, accepted.name) == ("lane.changed", "message.accepted")
    assert isinstance(paused.data, LaneChanged)
    assert paused.data.state == "paused"
    assert isinstance(accepted.data, MessageAccepted)
    assert (accepted.data.id, accepted.data.type) == (published.id, "upgradeProgress")
    assert await followed(base_url, kind, 1, after=paused.cursor) == [accepted]


@both
@pytest.mark.parametrize("seed", range(2))
async def test_lost_connections_are_reopened_without_missing_or_repeating_events(
    base_url: str, operator: OperatorClient, relay: Callable[[Iterator[int]], Relay], kind: str, seed: int
) -> None:
    chance = random.Random(seed)
    way = relay(iter(lambda: chance.randint(700, 4000), None))
    following = asyncio.create_task(followed(way.url, kind, 100, after=BEGINNING))
    published = await asyncio.to_thread(lambda: [operator.publish(ACCOUNT, b"{}").id for _ in range(100)])
    async with asyncio.timeout(DEADLINE):
        events = await following
    assert [event.data.id for event in events if isinstance(event.data, MessageAccepted)] == published
    assert way.cut > 3


def test_following_ends_at_its_timeout(operator: OperatorClient) -> None:
    with operator.events(timeout=0.3, after=BEGINNING) as events:
        assert list(events) == []
        assert list(events) == []


async def test_async_following_ends_at_its_timeout(base_url: str) -> None:
    async with (
        AsyncOperatorClient(base_url, "dev", "dev-secret") as client,
        client.events(timeout=0.3, after=BEGINNING) as events,
    ):
        assert [event async for event in events] == []


def test_another_thread_may_close_it(operator: OperatorClient) -> None:
    events = operator.events()
    ended: list[list[Event]] = []
    thread = threading.Thread(target=lambda: ended.append(list(events)))
    thread.start()
    while events.cursor is None:
        time.sleep(0.01)
    events.close()
    thread.join(DEADLINE)
    assert ended == [[]]


def test_the_cursor_is_that_of_the_last_event_read(operator: OperatorClient) -> None:
    ids = [operator.publish(ACCOUNT, b"{}").id for _ in range(3)]
    with operator.events(after=BEGINNING) as events:
        first = next(events)
        assert events.cursor == first.cursor
    with operator.events(after=events.cursor) as again:
        found = [next(again).data for _ in range(2)]
    assert [data.id for data in found if isinstance(data, MessageAccepted | AttemptFinished)] == ids[1:]


@both
async def test_an_unreachable_service_fails_at_once(kind: str) -> None:
    url = f"http://127.0.0.1:{unused_port()}"
    with pytest.raises(ConnectionFailed):
        await followed(url, kind, 1, after=None)


async def test_a_follower_that_begins_within_a_page_gets_the_events_of_its_accounts_only(store: SqliteStore) -> None:
    feed, cursors = Feed(store, Cursors(SECRET_KEY)), Cursors(SECRET_KEY)
    start = await feed.present()
    async with contextlib.aclosing(feed.follow(start, None, 0.01)) as everything:
        await anext(everything)
        await store.accept(
            [NewMessage(account=account, body=b"{}") for account in (ACCOUNT, "other", ACCOUNT, "other")]
        )
        async with asyncio.timeout(DEADLINE):
            while not (blocks := (await anext(everything))[0]):
                pass
        first, *_ = EventReader(None).read(blocks)
        within = cursors.open_events(first.cursor)
        assert within is not None
        async with contextlib.aclosing(feed.follow(within, frozenset({ACCOUNT}), 0.01)) as own:
            blocks, _ = await anext(own)
    assert [event.data.account for event in EventReader(None).read(blocks)] == [ACCOUNT]


async def test_few_followers_read_from_the_store_at_the_same_time(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, reading, most = store.events, 0, 0

    async def count(after: EventCursor | None, *, limit: int) -> EventPage:
        nonlocal reading, most
        reading += 1
        most = max(most, reading)
        found = await read(after, limit=limit)
        reading -= 1
        return found

    monkeypatch.setattr(store, "events", count)
    feed = Feed(store, Cursors(SECRET_KEY))
    await asyncio.gather(*(feed.read(EventCursor()) for _ in range(20)))
    assert most == event_feed.CATCHING_UP


async def test_a_follower_that_falls_behind_the_buffer_misses_nothing_and_the_buffer_stays_small(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("BUFFER", 2), ("PAGE", 2), ("POLL_SECONDS", 0.001), ("BUSY_POLL_SECONDS", 0.001)):
        monkeypatch.setattr(event_feed, name, value)
    feed = Feed(store, Cursors(SECRET_KEY))
    start = await feed.present()
    async with (
        asyncio.timeout(DEADLINE),
        contextlib.aclosing(feed.follow(start, None, 0.01)) as slow,
        contextlib.aclosing(feed.follow(start, None, 0.01)) as quick,
    ):
        await anext(slow)
        accepted = await store.accept([NewMessage(account=ACCOUNT, body=b"{}") for _ in range(20)])
        for follower in (quick, slow):
            reader = EventReader(None)
            seen: list[Event] = []
            while len(seen) < 20:
                seen += reader.read((await anext(follower))[0])
                assert feed._buffered <= 4
            assert [event.data.id for event in seen if isinstance(event.data, MessageAccepted)] == [
                one.id for one in accepted
            ]


@both
async def test_a_refusal_is_an_error(base_url: str, kind: str) -> None:
    with pytest.raises(ApiException, match="another store") as refused:
        await followed(base_url, kind, 1, after=Cursors(SECRET_KEY).seal_events(EventCursor(messages=9)))
    assert refused.value.status_code == 410


@both
async def test_a_response_that_is_not_a_stream_is_an_error(peer_of: Callable[..., str], kind: str) -> None:
    with pytest.raises(ResponseError, match="text/html"):
        await followed(peer_of(b"text/html", b"<p>hello"), kind, 1, after=None)
    block = b"id: c\nevent: message.dead\ndata: {}\n\n"
    with pytest.raises(ResponseError, match="breaks the contract"):
        await followed(peer_of(b"text/event-stream", block), kind, 1, after=None)


@pytest.fixture
def peer_of() -> Iterator[Callable[..., str]]:
    """A server that hands out a token, and answers everything else by the same bytes."""
    with contextlib.ExitStack() as stack:

        def peer(kind: bytes, body: bytes) -> str:
            listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            thread = threading.Thread(target=_answer, args=(listening, kind, body), daemon=True)
            thread.start()
            return f"http://127.0.0.1:{listening.getsockname()[1]}"

        yield peer


def _answer(listening: socket.socket, kind: bytes, body: bytes) -> None:
    token = b'{"access_token":"t","token_type":"Bearer","expires_in":3600}'
    with contextlib.suppress(OSError):
        while True:
            connection, _ = listening.accept()
            with connection:
                asked = connection.recv(65536)
                while b"\r\n\r\n" not in asked:
                    asked += connection.recv(65536)
                media, content = (b"application/json", token) if b"oauth2/token" in asked else (kind, body)
                head = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
                connection.sendall(head % (media, len(content)) + content)


def test_stats_are_typed(operator: OperatorClient) -> None:
    operator.publish(ACCOUNT, b"{}")
    stats = operator.stats(5)
    assert isinstance(stats, Stats)
    assert (stats.totals.accepted, len(stats.minutes)) == (1, 5)
    assert len(operator.stats().minutes) == 60


async def test_async_stats_are_typed(base_url: str) -> None:
    async with AsyncOperatorClient(base_url, "dev", "dev-secret") as client:
        assert (await client.stats(minutes=1)).totals.accepted == 0

"""uvicorn's protocol with bounds, over real sockets and by a clock that is moved on."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import msgspec
import pytest
import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.server import ServerState

from fotahook.hosting.connection_limits import Guard, Guarded, Limits, _client

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
HEALTH = b"GET /healthz?x=1 HTTP/1.1\r\nHost: x\r\n\r\n"
LIMITS = Limits(header_bytes=4096, header_seconds=10, body_seconds=60, idle_seconds=75, per_address=3)
BIG = bytes(range(256)) * 80_000


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110  # what a server has heard is nowhere announced
        await asyncio.sleep(0)


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class App:
    """Reads the body, then answers "well"; what it does at other paths is in their names."""

    events: list[Message] = field(default_factory=list)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/waits":
            await self.go_on.wait()
        if scope["path"] != "/early":
            while not self.events or self.events[-1].get("more_body"):
                self.events.append(await receive())
            self.events.append({"type": "read"})
        body = BIG if scope["path"] == "/big" else b"well"
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(b"content-length", b"%d" % len(body))],
            }
        )
        for start in range(0, len(body), 10_000):
            await send({"type": "http.response.body", "body": body[start : start + 10_000], "more_body": True})
        await send({"type": "http.response.body"})


@dataclass
class Served:
    """A guarded server, and the means to talk to it."""

    app: App
    guard: Guard
    clock: Clock
    port: int
    peers: list["Peer"] = field(default_factory=list)

    async def connect(self, sent: bytes = b"") -> "Peer":
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(sent)
        self.peers.append(Peer(reader, writer))
        return self.peers[-1]

    def connections(self) -> list[Guarded]:
        return [one for peers in self.guard._peers.values() for one in peers]

    async def seen(self, condition: Callable[[Guarded], bool], count: int = 1) -> None:
        """Return when so many connections are as they should be."""
        await until(lambda: sum(condition(one) for one in self.connections()) >= count)

    def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds
        self.guard.sweep()


@dataclass
class Peer:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self) -> tuple[int, bytes]:
        """Status and body of the next answer."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        return int(head.split()[1]), await self.reader.readexactly(length)

    async def refusal(self) -> tuple[int, str, bytes]:
        """Status, code and everything of the last answer, after which the connection was closed."""
        said = await self.reader.read()
        head, _, body = said.partition(b"\r\n\r\n")
        assert b"\r\nconnection: close" in head
        problem = msgspec.json.decode(body)
        assert set(problem) == {"errorCode", "errorMessage"}
        return int(head.split()[1]), problem["errorCode"], said


@contextlib.asynccontextmanager
async def serving(app: ASGIApp, guard: Guard) -> AsyncIterator[int]:
    config = uvicorn.Config(app, ws="none", lifespan="off", log_config=None, access_log=False)
    config.load()
    state = ServerState()
    server = await asyncio.get_running_loop().create_server(
        lambda: Guarded(guard, config=config, server_state=state, app_state={}), "127.0.0.1", 0
    )
    async with server:
        yield server.sockets[0].getsockname()[1]
        for connection in list(state.connections):
            connection.transport.abort()
        await until(lambda: not state.connections and not state.tasks)


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    app, clock = App(), Clock()
    guard = Guard(LIMITS, ["/healthz"], clock)
    async with serving(app, guard) as port:
        served = Served(app, guard, clock, port)
        yield served
        for peer in served.peers:
            peer.writer.close()


def sending_body(connection: Guarded) -> bool:
    return connection.phase.value == "body"


def beginning(connection: Guarded) -> bool:
    return connection._loose > 0


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What we logged; uvicorn's own words on such clients are left out by configure_logging."""
    return [record.getMessage() for record in caplog.records if record.name.startswith("fotahook")]


# Heads


async def test_a_head_that_takes_too_long_is_refused(served: Served) -> None:
    peer = await served.connect(GET[:10])
    await served.seen(beginning)
    served.pass_time(10)
    peer.send(GET[10:12])
    await served.seen(lambda one: one._loose == 12)
    served.pass_time(1)
    assert (await peer.refusal())[:2] == (408, "REQUEST_TIMEOUT")


async def test_a_head_in_time_is_answered(served: Served) -> None:
    peer = await served.connect(GET[:10])
    await served.seen(beginning)
    served.pass_time(10)
    peer.send(GET[10:])
    assert await peer.answer() == (200, b"well")


async def test_who_says_nothing_is_told_nothing(served: Served) -> None:
    peer = await served.connect()
    await served.seen(lambda one: True)
    served.pass_time(11)
    assert await peer.reader.read() == b""


async def test_an_idle_connection_ends(served: Served) -> None:
    peer = await served.connect(GET)
    await peer.answer()
    served.pass_time(75)
    peer.send(GET)
    await peer.answer()
    served.pass_time(76)
    assert await peer.reader.read() == b""


async def test_line_breaks_do_not_keep_an_idle_connection(served: Served) -> None:
    peer = await served.connect(GET)
    await peer.answer()
    peer.send(b"\r\n")
    await served.seen(beginning)
    served.pass_time(9)
    peer.send(b"\r\n")
    await served.seen(lambda one: one._loose == 4)
    served.pass_time(2)
    assert (await peer.refusal())[0] == 408


@pytest.mark.parametrize("pieces", [1, 100])
async def test_a_head_that_is_too_large_is_refused(served: Served, pieces: int) -> None:
    head = b"GET / HTTP/1.1\r\nX: %b\r\n\r\n" % (b"x" * 5000)
    size = len(head) // pieces + 1
    peer = await served.connect()
    for start in range(0, len(head), size):
        peer.send(head[start : start + size])
        await served.seen(lambda one, least=start: one._loose >= least or one.phase.value == "over")  # type: ignore[misc]
    assert (await peer.refusal())[:2] == (431, "HEADERS_TOO_LARGE")


async def test_a_head_just_small_enough_is_answered(served: Served) -> None:
    head = b"GET / HTTP/1.1\r\nX: %b\r\n\r\n"
    peer = await served.connect(head % (b"x" * 4090))
    assert await peer.answer() == (200, b"well")
    peer.send(head % (b"x" * 4091))
    assert (await peer.refusal())[0] == 431


async def test_what_follows_a_body_is_bounded_like_a_head(served: Served) -> None:
    peer = await served.connect(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n")
    await served.seen(sending_body)
    peer.send(b"X: " + b"x" * 5000)
    assert (await peer.refusal())[0] == 431


async def test_what_is_no_http_is_refused(served: Served) -> None:
    peer = await served.connect(b"\x16\x03\x01 hello\r\n\r\n")
    status, code, said = await peer.refusal()
    assert (status, code) == (400, "INVALID_PARAMETER")
    assert said.count(b"HTTP/1.1") == 1


async def test_a_refused_client_that_does_not_hang_up_is_cut_off(served: Served) -> None:
    await served.connect(b"?\r\n\r\n")
    await served.seen(lambda one: one.phase.value == "over")
    served.pass_time(11)
    await until(lambda: not served.connections())


# Bodies


async def test_a_body_that_takes_too_long_is_refused(served: Served) -> None:
    peer = await served.connect(b"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\nhalf")
    await served.seen(sending_body)
    served.pass_time(60)
    peer.send(b"more")
    await served.seen(lambda one: bool(served.app.events))
    served.pass_time(1)
    assert (await peer.refusal())[:2] == (408, "REQUEST_TIMEOUT")
    assert served.app.events[-2]["type"] == "http.disconnect"


async def test_a_body_in_time_is_answered(served: Served) -> None:
    peer = await served.connect(b"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\nhalf")
    await served.seen(sending_body)
    served.pass_time(60)
    peer.send(b"a body")
    assert await peer.answer() == (200, b"well")


async def test_a_body_that_is_not_read_for_long_is_not_the_clients_fault(served: Served) -> None:
    peer = await served.connect(b"POST /waits HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(BIG))
    peer.send(BIG)
    await served.seen(lambda one: sending_body(one) and one.flow.read_paused)
    served.pass_time(1000)
    served.app.go_on.set()
    assert await peer.answer() == (200, b"well")


async def test_a_body_that_was_answered_early_does_not_go_on_for_ever(served: Served) -> None:
    peer = await served.connect(b"POST /early HTTP/1.1\r\nContent-Length: 10\r\n\r\nhalf")
    assert await peer.answer() == (200, b"well")
    served.pass_time(60)
    peer.send(b"m")
    served.pass_time(1)
    assert (await peer.refusal())[0] == 408


async def test_after_a_body_that_was_answered_early_the_connection_goes_on(served: Served) -> None:
    peer = await served.connect(b"POST /early HTTP/1.1\r\nContent-Length: 8\r\n\r\nhalf")
    assert await peer.answer() == (200, b"well")
    peer.send(b"half" + GET)
    assert await peer.answer() == (200, b"well")


# Answers


async def test_a_large_answer_arrives_whole(served: Served) -> None:
    peer = await served.connect(GET.replace(b"/ ", b"/big ", 1))
    assert await peer.answer() == (200, BIG)


async def test_who_does_not_read_the_answer_is_cut_off(served: Served) -> None:
    peer = await served.connect(GET.replace(b"/ ", b"/big ", 1))
    peer.writer.transport.pause_reading()  # type: ignore[attr-defined]  # typed as a transport that only writes
    await served.seen(lambda one: one.phase.value == "reader")
    served.pass_time(61)
    await until(lambda: not served.connections())
    peer.writer.transport.resume_reading()  # type: ignore[attr-defined]
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await peer.answer()


async def test_an_answer_that_takes_long_is_waited_for(served: Served) -> None:
    peer = await served.connect(GET.replace(b"/ ", b"/waits ", 1))
    await served.seen(lambda one: one.phase.value == "answer")
    served.pass_time(86_400)
    served.app.go_on.set()
    assert await peer.answer() == (200, b"well")


async def test_requests_sent_together_are_answered_in_turn(served: Served) -> None:
    peer = await served.connect(GET.replace(b"/ ", b"/early ", 1) * 2 + HEALTH)
    assert [await peer.answer() for _ in range(3)] == [(200, b"well")] * 3


async def test_more_requests_sent_together_than_anybody_needs_end_the_connection(served: Served) -> None:
    peer = await served.connect(GET.replace(b"/ ", b"/waits ", 1) + GET * 1000)
    assert await peer.reader.read() == b""
    served.app.go_on.set()


@pytest.mark.parametrize("rest", [b"\0\r\n\r\n", b"GET / HTTP/1.1\r\nX: %b\r\n\r\n" % (b"x" * 5000)])
async def test_what_follows_a_request_is_not_refused_in_place_of_its_answer(served: Served, rest: bytes) -> None:
    peer = await served.connect(GET.replace(b"/ ", b"/waits ", 1) + rest)
    assert await peer.reader.read() == b""
    served.app.go_on.set()


async def test_head_and_body_of_an_answer_leave_together(served: Served) -> None:
    peer = await served.connect(GET)
    assert (await peer.reader.read(65536)).endswith(b"\r\n\r\nwell")


# Addresses


async def test_a_connection_too_many_takes_the_place_of_the_one_that_waited_longest(served: Served) -> None:
    sending = await served.connect(b"POST / HTTP/1.1\r\nContent-Length: 8\r\n\r\nhalf")
    await served.seen(sending_body)
    slow = await served.connect(GET[:5])
    await served.seen(beginning, 1)
    served.pass_time(1)
    idle = await served.connect(GET.replace(b"/ ", b"/early ", 1))
    await idle.answer()
    new = await served.connect(GET.replace(b"/ ", b"/early ", 1))
    assert await new.answer() == (200, b"well")
    assert await slow.reader.read() == b""
    sending.send(b"half")
    assert await sending.answer() == (200, b"well")
    idle.send(HEALTH)
    assert await idle.answer() == (200, b"well")


async def test_where_all_are_at_work_a_new_one_is_refused_but_for_health(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    busy = [await served.connect(GET.replace(b"/ ", b"/waits ", 1)) for _ in range(3)]
    await served.seen(lambda one: one.phase.value == "answer", 3)
    for _ in range(2):
        status, code, said = await (await served.connect(GET)).refusal()
        assert (status, code) == (429, "TOO_MANY_CONNECTIONS")
        assert b"\r\nretry-after: 1\r\n" in said
        healthy = await served.connect(HEALTH)
        assert b"well" in await healthy.reader.read()
    served.app.go_on.set()
    assert [await one.answer() for one in busy] == [(200, b"well")] * 3
    (warning,) = told(caplog)
    assert "127.0.0.1 has 3 connections" in warning
    assert "--connections-per-address" in warning


def test_a_client_of_ipv6_is_its_network() -> None:
    assert _client("2001:db8:1:2:3:4:5:6") == _client("2001:db8:1:2::") == "2001:db8:1:2::/64"
    assert _client("2001:db8:1:3::") != _client("2001:db8:1:2::")
    assert _client("::ffff:192.0.2.1") == _client("192.0.2.1") == "192.0.2.1"


async def test_what_was_refused_is_summed_up_once_a_minute(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        await (await served.connect(b"?\r\n\r\n")).refusal()
    served.pass_time(59)
    assert told(caplog) == []
    served.pass_time(1)
    served.pass_time(60)
    assert told(caplog) == ["refused or ended in the last minute: 2 not HTTP"]

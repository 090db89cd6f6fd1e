"""Timeouts and limits of connections, over real sockets and with a manual clock."""

import asyncio
import contextlib
import errno
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from socket import create_server

import msgspec
import pytest
import trustme
import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.server import ServerState

from fotahook.contract.addresses import parse_networks
from fotahook.hosting import server
from fotahook.hosting.connection_limits import ConnectionLimiter, ConnectionLimits, LimitedProtocol, Phase
from fotahook.hosting.server import Acceptor, ListeningSocket
from tests.deadlines import DEADLINE

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
HEALTH = b"GET /healthz?x=1 HTTP/1.1\r\nHost: x\r\n\r\n"
LIMITS = ConnectionLimits(header_bytes=4096, header_seconds=10, body_seconds=60, idle_seconds=75, per_address=3)
BIG = bytes(range(256)) * 80_000


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not condition():  # noqa: ASYNC110  # the server does not announce what it received
            await asyncio.sleep(0)


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class App:
    """Reads the body, then responds "ok"; other paths are named after what they do."""

    events: list[Message] = field(default_factory=list)
    proceed: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/waits":
            await self.proceed.wait()
        if scope["path"] != "/early":
            while not self.events or self.events[-1].get("more_body"):
                self.events.append(await receive())
            self.events.append({"type": "read"})
        body = BIG if scope["path"] == "/big" else b"ok"
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
    """A server under a limiter, and the means to talk to it."""

    app: App
    limiter: ConnectionLimiter
    clock: Clock
    port: int
    peers: list["Peer"] = field(default_factory=list)

    async def connect(self, sent: bytes = b"", source: str = "127.0.0.1") -> "Peer":
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, local_addr=(source, 0))
        writer.write(sent)
        self.peers.append(Peer(reader, writer))
        return self.peers[-1]

    def connections(self) -> list[LimitedProtocol]:
        return [one for peers in self.limiter._by_address.values() for one in peers]

    async def until(self, condition: Callable[[LimitedProtocol], bool], count: int = 1) -> None:
        """Return once the condition holds for so many connections."""
        await until(lambda: sum(condition(one) for one in self.connections()) >= count)

    def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds
        self.limiter.sweep()


@dataclass
class Peer:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def response(self) -> tuple[int, bytes]:
        """Status and body of the next response."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        return int(head.split()[1]), await self.reader.readexactly(length)

    async def refusal(self) -> tuple[int, str, bytes]:
        """Status, code and all bytes of the last response, after which the connection was closed."""
        received = await self.reader.read()
        head, _, body = received.partition(b"\r\n\r\n")
        assert b"\r\nconnection: close" in head
        problem = msgspec.json.decode(body)
        assert set(problem) == {"errorCode", "errorMessage"}
        return int(head.split()[1]), problem["errorCode"], received


@contextlib.asynccontextmanager
async def serving(app: ASGIApp, limiter: ConnectionLimiter, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    config = uvicorn.Config(app, ws="none", lifespan="off", log_config=None, access_log=False, timeout_keep_alive=3600)
    config.load()
    state = ServerState()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        accepting = Acceptor(ListeningSocket(socket=listening, tls=tls, url=""), limiter, config, state)
        accepting.start()
        yield listening.getsockname()[1]
        accepting.stop()
        for connection in list(state.connections):
            connection.transport.abort()
        await until(lambda: not state.connections and not state.tasks)


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    app, clock = App(), Clock()
    limiter = ConnectionLimiter(LIMITS, ["/healthz"], clock)
    async with serving(app, limiter) as port:
        served = Served(app, limiter, clock, port)
        yield served
        for peer in served.peers:
            peer.writer.close()


def sending_body(connection: LimitedProtocol) -> bool:
    return connection.phase is Phase.BODY


def beginning(connection: LimitedProtocol) -> bool:
    return connection._incomplete_bytes > 0


def log_messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Our own log messages; configure_logging leaves out uvicorn's about such clients."""
    return [record.getMessage() for record in caplog.records if record.name.startswith("fotahook")]


# Turns


async def test_a_crowd_of_connections_is_accepted_a_few_at_a_time() -> None:
    limiter = ConnectionLimiter(ConnectionLimits(), [], Clock())
    config = uvicorn.Config(App(), ws="none", lifespan="off", log_config=None)
    config.load()
    accepted: list[int] = []
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening, contextlib.ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(socket.create_connection(listening.getsockname()))
        where, state = ListeningSocket(socket=listening, tls=None, url=""), ServerState()
        accepting = Acceptor(where, limiter, config, state)
        accepting.start()
        while not accepted or accepted[-1] < 40:
            await asyncio.sleep(0)
            accepted.append(limiter.count)
        assert all(after - before <= 8 for before, after in pairwise([0, *accepted]))
        await until(lambda: len(state.connections) == 40)
        accepting.stop()
        for connection in list(state.connections):
            connection.transport.abort()
        await until(lambda: not state.connections)


# Heads


async def test_a_head_that_takes_too_long_is_refused(served: Served) -> None:
    peer = await served.connect(GET[:10])
    await served.until(beginning)
    served.pass_time(10)
    peer.send(GET[10:12])
    await served.until(lambda one: one._incomplete_bytes == 12)
    served.pass_time(1)
    assert (await peer.refusal())[:2] == (408, "REQUEST_TIMEOUT")


async def test_a_head_in_time_gets_a_response(served: Served) -> None:
    peer = await served.connect(GET[:10])
    await served.until(beginning)
    served.pass_time(10)
    peer.send(GET[10:])
    assert await peer.response() == (200, b"ok")


async def test_a_silent_client_is_disconnected_without_a_response(served: Served) -> None:
    peer = await served.connect()
    await served.until(lambda one: True)
    served.pass_time(11)
    assert await peer.reader.read() == b""


async def test_an_idle_connection_is_closed(served: Served) -> None:
    peer = await served.connect(GET)
    await peer.response()
    served.pass_time(75)
    peer.send(GET)
    await peer.response()
    served.pass_time(76)
    assert await peer.reader.read() == b""


async def test_empty_lines_do_not_keep_an_idle_connection_open(served: Served) -> None:
    peer = await served.connect(GET)
    await peer.response()
    peer.send(b"\r\n")
    await served.until(beginning)
    served.pass_time(9)
    peer.send(b"\r\n")
    await served.until(lambda one: one._incomplete_bytes == 4)
    served.pass_time(2)
    assert (await peer.refusal())[0] == 408


@pytest.mark.parametrize("pieces", [1, 100])
async def test_a_head_that_is_too_large_is_refused(served: Served, pieces: int) -> None:
    head = b"GET / HTTP/1.1\r\nX: %b\r\n\r\n" % (b"x" * 5000)
    size = len(head) // pieces + 1
    peer = await served.connect()
    for start in range(0, len(head), size):
        peer.send(head[start : start + size])
        await served.until(lambda one, least=start: one._incomplete_bytes >= least or one.phase is Phase.CLOSING)  # type: ignore[misc]
    assert (await peer.refusal())[:2] == (431, "HEADERS_TOO_LARGE")


async def test_a_head_of_the_maximum_size_gets_a_response(served: Served) -> None:
    head = b"GET / HTTP/1.1\r\nX: %b\r\n\r\n"
    peer = await served.connect(head % (b"x" * 4090))
    assert await peer.response() == (200, b"ok")
    peer.send(head % (b"x" * 4091))
    assert (await peer.refusal())[0] == 431


async def test_trailers_are_bounded_like_a_head(served: Served) -> None:
    peer = await served.connect(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n")
    await served.until(sending_body)
    peer.send(b"X: " + b"x" * 5000)
    assert (await peer.refusal())[0] == 431


async def test_bytes_that_are_not_http_are_refused(served: Served) -> None:
    peer = await served.connect(b"\x16\x03\x01 hello\r\n\r\n")
    status, code, received = await peer.refusal()
    assert (status, code) == (400, "INVALID_PARAMETER")
    assert received.count(b"HTTP/1.1") == 1


async def test_a_refused_client_that_stays_is_disconnected(served: Served) -> None:
    await served.connect(b"?\r\n\r\n")
    await served.until(lambda one: one.phase is Phase.CLOSING)
    served.pass_time(11)
    await until(lambda: not served.connections())


# Bodies


async def test_a_body_that_takes_too_long_is_refused(served: Served) -> None:
    peer = await served.connect(b"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\nhalf")
    await served.until(sending_body)
    served.pass_time(60)
    peer.send(b"more")
    await served.until(lambda one: bool(served.app.events))
    served.pass_time(1)
    assert (await peer.refusal())[:2] == (408, "REQUEST_TIMEOUT")
    assert served.app.events[-2]["type"] == "http.disconnect"


async def test_a_body_in_time_gets_a_response(served: Served) -> None:
    peer = await served.connect(b"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\nhalf")
    await served.until(sending_body)
    served.pass_time(60)
    peer.send(b"a body")
    assert await peer.response() == (200, b"ok")


async def test_a_body_that_the_app_reads_slowly_does_not_time_out(served: Served) -> None:
    peer = await served.connect(b"POST /waits HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(BIG))
    peer.send(BIG)
    await served.until(lambda one: sending_body(one) and one.flow.read_paused)
    served.pass_time(1000)
    served.app.proceed.set()
    assert await peer.response() == (200, b"ok")


async def test_the_rest_of_a_body_times_out_after_an_early_response(served: Served) -> None:
    peer = await served.connect(b"POST /early HTTP/1.1\r\nContent-Length: 10\r\n\r\nhalf")
    assert await peer.response() == (200, b"ok")
    served.pass_time(60)
    peer.send(b"m")
    served.pass_time(1)
    assert (await peer.refusal())[0] == 408


async def test_the_connection_is_reused_after_an_early_response(served: Served) -> None:
    peer = await served.connect(b"POST /early HTTP/1.1\r\nContent-Length: 8\r\n\r\nhalf")
    assert await peer.response() == (200, b"ok")
    peer.send(b"half" + GET)
    assert await peer.response() == (200, b"ok")


# Responses


async def test_a_large_response_arrives_whole(served: Served) -> None:
    peer = await served.connect(GET.replace(b"/ ", b"/big ", 1))
    assert await peer.response() == (200, BIG)


async def test_a_client_that_does_not_read_the_response_is_disconnected(served: Served) -> None:
    peer = await served.connect(GET.replace(b"/ ", b"/big ", 1))
    peer.writer.transport.pause_reading()  # type: ignore[attr-defined]  # typed as a transport that only writes
    await served.until(lambda one: one.phase is Phase.READER)
    served.pass_time(61)
    await until(lambda: not served.connections())
    peer.writer.transport.resume_reading()  # type: ignore[attr-defined]
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await peer.response()


async def test_a_slow_app_does_not_time_out(served: Served) -> None:
    peer = await served.connect(GET.replace(b"/ ", b"/waits ", 1))
    await served.until(lambda one: one.phase is Phase.RESPONSE)
    served.pass_time(86_400)
    served.app.proceed.set()
    assert await peer.response() == (200, b"ok")


async def test_pipelined_requests_get_responses_in_order(served: Served) -> None:
    peer = await served.connect(GET.replace(b"/ ", b"/early ", 1) * 2 + HEALTH)
    assert [await peer.response() for _ in range(3)] == [(200, b"ok")] * 3


async def test_too_many_pipelined_requests_close_the_connection(served: Served) -> None:
    peer = await served.connect(GET.replace(b"/ ", b"/waits ", 1) + GET * 1000)
    assert await peer.reader.read() == b""
    served.app.proceed.set()


@pytest.mark.parametrize("rest", [b"\0\r\n\r\n", b"GET / HTTP/1.1\r\nX: %b\r\n\r\n" % (b"x" * 5000)])
async def test_a_pipelined_bad_request_does_not_get_the_earlier_ones_response(served: Served, rest: bytes) -> None:
    peer = await served.connect(GET.replace(b"/ ", b"/waits ", 1) + rest)
    assert await peer.reader.read() == b""
    served.app.proceed.set()


async def test_head_and_body_of_a_response_are_sent_together(served: Served) -> None:
    peer = await served.connect(GET)
    assert (await peer.reader.read(65536)).endswith(b"\r\n\r\nok")


# Addresses


async def test_a_connection_over_the_limit_replaces_the_one_that_waits_longest(served: Served) -> None:
    sending = await served.connect(b"POST / HTTP/1.1\r\nContent-Length: 8\r\n\r\nhalf")
    await served.until(sending_body)
    slow = await served.connect(GET[:5])
    await served.until(beginning, 1)
    served.pass_time(1)
    idle = await served.connect(GET.replace(b"/ ", b"/early ", 1))
    await idle.response()
    new = await served.connect(GET.replace(b"/ ", b"/early ", 1))
    assert await new.response() == (200, b"ok")
    assert await slow.reader.read() == b""
    sending.send(b"half")
    assert await sending.response() == (200, b"ok")
    idle.send(HEALTH)
    assert await idle.response() == (200, b"ok")


async def test_a_connection_over_the_limit_is_refused_while_all_others_are_busy_except_for_health(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    busy = [await served.connect(GET.replace(b"/ ", b"/waits ", 1)) for _ in range(3)]
    await served.until(lambda one: one.phase is Phase.RESPONSE, 3)
    for _ in range(2):
        status, code, received = await (await served.connect(GET)).refusal()
        assert (status, code) == (429, "TOO_MANY_CONNECTIONS")
        assert b"\r\nretry-after: 1\r\n" in received
        healthy = await served.connect(HEALTH)
        assert b"ok" in await healthy.reader.read()
    served.app.proceed.set()
    assert [await one.response() for one in busy] == [(200, b"ok")] * 3
    (warning,) = log_messages(caplog)
    assert "127.0.0.1 has 3 connections" in warning
    assert "--connections-per-address" in warning


async def test_connections_from_a_proxy_are_not_counted_by_address() -> None:
    app = App()
    limiter = ConnectionLimiter(LIMITS, (), Clock(), proxies=parse_networks(["127.0.0.0/8"]))
    async with serving(app, limiter) as port:
        served = Served(app, limiter, Clock(), port)
        peers = [await served.connect(GET.replace(b"/ ", b"/waits ", 1)) for _ in range(5)]
        await served.until(lambda one: one.phase is Phase.RESPONSE, 5)
        app.proceed.set()
        assert [await peer.response() for peer in peers] == [(200, b"ok")] * 5
        for peer in peers:
            peer.writer.close()


# All of them


@contextlib.asynccontextmanager
async def serving_few(total: int, tls: ssl.SSLContext | None = None) -> AsyncIterator[Served]:
    app, clock = App(), Clock()
    limiter = ConnectionLimiter(replace(LIMITS, total=total), ["/healthz"], clock)
    async with serving(app, limiter, tls) as port:
        served = Served(app, limiter, clock, port)
        yield served
        for peer in served.peers:
            peer.writer.close()


async def test_at_the_limit_in_all_the_address_with_most_connections_makes_room(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving_few(total=4) as served:
        idle = []
        for _ in range(3):
            idle.append(await served.connect(GET, "127.0.0.2"))
            await idle[-1].response()
            served.clock.now += 1
        alone = await served.connect(GET, "127.0.0.3")
        await alone.response()
        new = await served.connect(GET, "127.0.0.4")
        assert await new.response() == (200, b"ok")
        assert await idle[0].reader.read() == b""
        for peer in (*idle[1:], alone, new):
            peer.send(GET)
            assert await peer.response() == (200, b"ok")
        (warning,) = log_messages(caplog)
        assert warning.startswith("4 connections are open, all that the limit on open files leaves room for")


async def test_at_the_limit_in_all_only_health_is_answered_while_all_are_busy() -> None:
    async with serving_few(total=2) as served:
        busy = [await served.connect(GET.replace(b"/ ", b"/waits ", 1), f"127.0.0.{n}") for n in (2, 3)]
        await served.until(lambda one: one.phase is Phase.RESPONSE, 2)
        assert (await (await served.connect(GET)).refusal())[:2] == (503, "BUSY")
        assert b"ok" in await (await served.connect(HEALTH)).reader.read()
        # Of those that only hold their place, no more than the reserve stay.
        silent = [await served.connect(source=f"127.0.1.{n}") for n in range(66)]
        await asyncio.gather(*map(ended, silent[:2]))
        assert served.limiter.count == 2 + 64
        assert b"ok" in await (await served.connect(HEALTH)).reader.read()
        served.app.proceed.set()
        assert [await one.response() for one in busy] == [(200, b"ok")] * 2


@pytest.fixture
def certificate() -> trustme.LeafCert:
    return trustme.CA().issue_cert("127.0.0.1")


async def test_a_connection_counts_before_tls_begins(certificate: trustme.LeafCert) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(tls)
    async with serving_few(total=10, tls=tls) as served:
        silent = [await served.connect() for _ in range(3)]
        await served.until(lambda one: one.phase is Phase.HANDSHAKE, 3)
        served.clock.now += 1
        fourth = await served.connect()
        # The address is at its limit: the one that waited longest makes room.
        closed, pending = await asyncio.wait(
            [asyncio.create_task(ended(peer)) for peer in silent], return_when=asyncio.FIRST_COMPLETED
        )
        assert (len(closed), len(pending)) == (1, 2)
        served.pass_time(9.5)
        await asyncio.wait(pending)
        assert served.limiter.refused["TLS handshakes too slow"] == 2
        served.pass_time(1)
        await ended(fourth)


async def test_what_is_not_tls_is_counted(certificate: trustme.LeafCert) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(tls)
    async with serving_few(total=10, tls=tls) as served:
        await ended(await served.connect(GET))
        await until(lambda: served.limiter.refused["TLS handshakes failed"] == 1)
        assert served.limiter.count == 0


async def ended(peer: Peer) -> None:
    with contextlib.suppress(ConnectionError):
        await peer.reader.read()


class Exhausted(socket.socket):
    """A socket at which no connection can be accepted until descriptors are free again."""

    failures = 1

    def accept(self) -> tuple[socket.socket, object]:
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


async def test_without_descriptors_connections_wait_and_the_log_says_so(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(socket, "create_server", lambda address: Exhausted(fileno=create_server(address).detach()))
    async with serving_few(total=10) as served:
        assert await (await served.connect(GET)).response() == (200, b"ok")
    assert log_messages(caplog)[0].startswith("no connection can be accepted: Too many open files. Connections wait")


async def test_refusals_are_summarized_once_a_minute(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        await (await served.connect(b"?\r\n\r\n")).refusal()
    served.pass_time(59)
    assert log_messages(caplog) == []
    served.pass_time(1)
    served.pass_time(60)
    assert log_messages(caplog) == ["refused or closed in the last minute: 2 not HTTP"]

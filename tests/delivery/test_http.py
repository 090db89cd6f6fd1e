"""The HTTP client: what it sends byte for byte, how leniently it reads, and what bounds a receiver."""

import asyncio
import contextlib
import http.client
import io
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
import trustme
from hypothesis import example, given
from hypothesis import strategies as st

from fotahook.delivery import Outcome
from fotahook.delivery.connecting import encode_head
from fotahook.delivery.http import BODY_GRACE_SECONDS
from fotahook.delivery.outcomes import failure_of
from fotahook.delivery.resolver import QUERY_SECONDS
from fotahook.delivery.response import FIELD_LIMIT, HEAD_LIMIT, INTERIM_LIMIT, RESPONSE_LIMIT
from tests.ports import unused_port

from .conftest import a_delivery, a_lease
from .test_sender import OK, Request, answering, deliver_to, read_request, receiver, sender, status


def chunked(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces if piece) + b"0\r\n\r\n"


async def outcome_of(response: bytes) -> Outcome:
    """What a delivery comes to when the receiver answers with these bytes and then keeps the connection open."""
    async with receiver(answering(response)) as port:
        return await deliver_to(f"http://127.0.0.1:{port}/", timeout=60)


# The request target


@pytest.mark.parametrize(
    "target",
    ["/", "/x?sp=%2Fa%2Fb&sig=a%2Bb", "/a/./b/../c//d", "/%7Euser/%e2%82%ac", "/?", "/?a=1&a=2&", "/a;b=c,d:e@f!$'()*"],
)
async def test_the_request_target_is_sent_as_registered(target: str) -> None:
    requests: list[Request] = []
    async with receiver(answering(OK, requests)) as port:
        assert (await deliver_to(f"http://127.0.0.1:{port}{target}")).code == "delivered"
    assert requests[0].line == f"POST {target} HTTP/1.1"


@pytest.mark.parametrize(("path", "target"), [("", "/"), ("?a=1", "/?a=1")])
async def test_a_url_without_a_path_asks_for_the_root(path: str, target: str) -> None:
    requests: list[Request] = []
    async with receiver(answering(OK, requests)) as port:
        assert (await deliver_to(f"http://127.0.0.1:{port}{path}")).code == "delivered"
    assert requests[0].line == f"POST {target} HTTP/1.1"
    assert requests[0].headers["host"] == f"127.0.0.1:{port}"


@pytest.mark.parametrize("value", ["a\nb", "a\rb", "a\r\nX-More: b"])
def test_a_header_field_of_more_than_one_line_is_never_sent(value: str) -> None:
    with pytest.raises(ValueError, match="more than one line"):
        encode_head("POST / HTTP/1.1\r\n", {"X-One": "1", "X-Two": value}, 0)


# Lenient reading


@pytest.mark.parametrize(
    "response",
    [
        status("200 OK", "X: " + "y" * 8200),
        b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
        b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(b"ok"),
        b"HTTP/1.1 200 OK\r\nContent-Length: nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnot a chunk\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n" + chunked(b"\x1f\x8b"),
        b"HTTP/1.1 202 Accepted\r\nA line that is no field\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\r\n  folded\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + OK,
    ],
)
async def test_a_complete_2xx_head_decides(response: bytes) -> None:
    assert (await outcome_of(response)).code == "delivered"


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n",
    ],
)
@pytest.mark.parametrize("closes", [True, False])
async def test_a_2xx_counts_although_its_body_never_ends(response: bytes, closes: bool) -> None:
    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(response)
        await writer.drain()
        if not closes:
            await asyncio.Event().wait()

    async with receiver(behave) as port:
        outcome = await deliver_to(f"http://127.0.0.1:{port}/", timeout=60)
    assert outcome.code == "delivered"
    assert BODY_GRACE_SECONDS < 60


@pytest.mark.parametrize(
    "odd",
    [
        b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        OK + OK,
    ],
)
async def test_a_connection_is_kept_only_if_nothing_was_odd(odd: bytes) -> None:
    connections = 0

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while True:
            await read_request(reader)
            writer.write(odd)
            await writer.drain()

    async with receiver(behave) as port, sender() as made:
        lease = a_lease(url=f"http://127.0.0.1:{port}/")
        outcomes = [await made.deliver(lease, a_delivery()) for _ in range(3)]
    assert [(one.code, one.resent) for one in outcomes] == [("delivered", False)] * 3
    assert connections == 3


# Bounds


@pytest.mark.parametrize(
    ("response", "says"),
    [
        (b"HTTP/1.1 102 Processing\r\n\r\n" * (INTERIM_LIMIT + 1) + OK, "interim"),
        (b"HTTP/1.1 102 Processing\r\n\r\n" * 100_000, "interim"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "protocols"),
        (b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * (FIELD_LIMIT + 1) + b"\r\n", str(FIELD_LIMIT)),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * HEAD_LIMIT + b"\r\n\r\n", str(HEAD_LIMIT)),
        (b"HTTP/1.1 200 OK\r\n" + (b"X: " + b"y" * 1000 + b"\r\n") * 100 + b"\r\n", str(HEAD_LIMIT)),
        (b"HTTP/1.1 200 OK" + b" " * (2 * HEAD_LIMIT), str(HEAD_LIMIT)),
        (b"HTTP/1.1 2000 OK\r\n\r\n", "not HTTP"),
        (b"HTTP/2 200 OK\r\n\r\n", "not HTTP"),
    ],
)
async def test_a_head_without_bounds_is_refused(response: bytes, says: str) -> None:
    outcome = await outcome_of(response)
    assert outcome.code == "response_invalid"
    assert says in outcome.excerpt


async def test_ten_interim_responses_are_read() -> None:
    assert (await outcome_of(b"HTTP/1.1 102 Processing\r\n\r\n" * INTERIM_LIMIT + OK)).code == "delivered"


async def test_endless_interim_responses_hold_up_nobody() -> None:
    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        while True:
            writer.write(b"HTTP/1.1 102 Processing\r\n\r\n" * 1000)
            await writer.drain()

    async with receiver(flood) as port:
        outcome = await deliver_to(f"http://127.0.0.1:{port}/", timeout=60)
    assert outcome.code == "response_invalid"


async def test_a_chunk_whose_extension_never_ends_is_left_after_a_while() -> None:
    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n1;")
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(b"x" * 65536)
                await writer.drain()

    async with receiver(flood) as port:
        assert (await deliver_to(f"http://127.0.0.1:{port}/", timeout=3600)).code == "http_503"


async def test_no_more_of_a_body_is_read_than_is_kept() -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 500 Oops\r\n\r\n")
        while True:
            writer.write(b"x" * RESPONSE_LIMIT)
            await writer.drain()

    async with receiver(endless) as port:
        outcome = await deliver_to(f"http://127.0.0.1:{port}/", timeout=60)
    assert outcome.code == "http_500"


async def test_the_deadline_for_connecting_covers_every_address() -> None:
    async def lookup(host: str) -> tuple[Sequence[str], float]:
        return [f"127.0.0.{number}" for number in range(1, 9)], 60.0

    with contextlib.ExitStack() as stack:
        port = stack.enter_context(deaf_ports("127.0.0.1", 8))
        outcome = await deliver_to(f"http://deaf.example:{port}/", connect_timeout=1.0, timeout=60, lookup=lookup)
    assert outcome.code == "timeout_connect"
    assert outcome.phases["total"] < 60_000


@contextmanager
def deaf_ports(first: str, count: int) -> Iterator[int]:
    """A port at which so many loopback addresses accept no connection: their backlogs are full."""
    prefix, _, start = first.rpartition(".")
    with contextlib.ExitStack() as stack:
        port = unused_port()
        for number in range(int(start), int(start) + count):
            server = stack.enter_context(socket.socket())
            server.bind((f"{prefix}.{number}", port))
            server.listen(0)
            port = server.getsockname()[1]
            for _ in range(4):
                client = stack.enter_context(socket.socket())
                client.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    client.connect((f"{prefix}.{number}", port))
        yield port


async def test_a_second_address_is_tried_while_the_first_one_is_silent() -> None:
    with deaf_ports("127.0.0.2", 1) as port:

        async def lookup(host: str) -> tuple[Sequence[str], float]:
            return ["127.0.0.2", "127.0.0.3"], 60.0

        async with receiver(answering(OK), host="127.0.0.3", port=port):
            outcome = await deliver_to(f"http://two.example:{port}/", lookup=lookup, connect_timeout=50.0, timeout=60)
    assert outcome.code == "delivered"


async def test_a_name_server_that_never_answers_is_a_dns_error() -> None:
    async def hang(host: str) -> tuple[Sequence[str], float]:
        await asyncio.Event().wait()
        raise AssertionError

    outcome = await deliver_to("http://hangs.example/", connect_timeout=0.2, timeout=60, lookup=hang)
    assert outcome.code == "dns_error"
    assert QUERY_SECONDS > 0.2


# Statuses and dates


@pytest.mark.parametrize(("code", "trouble"), [*((number, "endpoint") for number in range(520, 531)), (519, "message")])
async def test_an_edge_network_speaks_for_an_endpoint_that_it_cannot_reach(code: int, trouble: str) -> None:
    outcome = await outcome_of(status(f"{code} Unreachable"))
    assert (outcome.code, failure_of(outcome)) == (f"http_{code}", trouble)


async def test_304_is_no_redirect() -> None:
    outcome = await outcome_of(b"HTTP/1.1 304 Not Modified\r\n\r\n")
    assert (outcome.code, failure_of(outcome)) == ("http_304", "message")


async def test_a_date_without_a_zone_is_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    outcome = await outcome_of(status("503 Busy", "Retry-After: Tue, 14 Nov 2023 22:14:20"))
    assert outcome.retry_after == 59.5


# TLS


@contextmanager
def demanding_server(authority: trustme.CA, version: ssl.TLSVersion) -> Iterator[int]:
    """A receiver that wants a client certificate, gets none, and leaves the connection open for its alert to arrive."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    context.maximum_version = context.minimum_version = version
    done = threading.Event()

    def serve(listening: socket.socket) -> None:
        accepted, _ = listening.accept()
        with accepted.dup():
            with contextlib.suppress(OSError):
                context.wrap_socket(accepted, server_side=True)
            done.wait(60)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, args=(listening,))
        thread.start()
        yield listening.getsockname()[1]
        done.set()
        thread.join()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_receiver_that_demands_a_client_certificate_is_named(version: ssl.TLSVersion, tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with demanding_server(authority, version) as port:
        outcome = await deliver_to(f"https://localhost:{port}/", ca_file=tmp_path / "ca.pem", timeout=60)
    assert outcome.code == "tls_client_certificate"
    assert "--client-cert" in (outcome.fix or "")


# The egress proxy


@asynccontextmanager
async def egress_proxy(answer: bytes = b"HTTP/1.1 200 Connected\r\n\r\n") -> AsyncIterator[tuple[int, list[str]]]:
    """A proxy that tunnels, and the heads of the requests that it got."""
    heads: list[str] = []

    async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        heads.append(head)
        writer.write(answer)
        await writer.drain()
        if b" 200 " not in answer:
            return
        port = int(head.split(" ")[1].rpartition(":")[2])
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            await asyncio.gather(pipe(reader, up_writer), pipe(up_reader, writer))
        finally:
            # Not closed in good order: what is still to be sent has no reader any more.
            up_writer.transport.abort()

    async with receiver(tunnel) as port:
        yield port, heads


async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


async def test_deliveries_go_through_the_egress_proxy(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("receiver.example").configure_cert(tls)
    async with receiver(answering(OK), tls=tls) as port, egress_proxy() as (proxy, heads):
        outcome = await deliver_to(
            f"https://receiver.example:{port}/in",
            ca_file=tmp_path / "ca.pem",
            egress_proxy=f"http://user:p%40ss@127.0.0.1:{proxy}",
        )
    assert outcome.code == "delivered"
    assert heads[0].startswith(f"CONNECT receiver.example:{port} HTTP/1.1\r\n")
    assert "Proxy-Authorization: Basic dXNlcjpwQHNz\r\n" in heads[0]


async def test_a_proxy_that_refuses_is_named_and_a_literal_is_still_vetted() -> None:
    async with egress_proxy(status("407 Proxy Authentication Required")) as (
        proxy,
        heads,
    ):
        url = f"http://127.0.0.1:{proxy}"
        refused = await deliver_to("http://receiver.example/", egress_proxy=url)
        blocked = await deliver_to("http://10.0.0.1/", egress_proxy=url, allowed_networks=())
    assert (refused.code, blocked.code) == ("proxy_refused", "blocked_address")
    assert "407" in refused.excerpt
    assert len(heads) == 1


# Beside another client


bodies = st.binary(max_size=40)
fields = st.lists(
    st.sampled_from([b"X-A: b", b"Server: s", b"Date: Tue, 14 Nov 2023 22:14:20", b"X-Empty:"]), max_size=3
)


@st.composite
def responses(draw: st.DrawFn) -> bytes:
    """A response in any legal framing, with interim responses before it."""
    code = draw(st.sampled_from([200, 201, 202, 204, 304, 400, 404, 410, 429, 500, 503]))
    head = [b"HTTP/1.%d %d %s" % (draw(st.sampled_from([0, 1])), code, draw(st.sampled_from([b"", b"OK", b"Not so"])))]
    head += draw(fields)
    body = b"" if code in (204, 304) else draw(bodies)
    match draw(st.sampled_from(["length", "chunked", "close"])):
        case "length" if code not in (204, 304):
            head.append(b"Content-Length: %d" % len(body))
        case "chunked" if head[0].startswith(b"HTTP/1.1") and code not in (204, 304):
            head.append(b"Transfer-Encoding: chunked")
            cut = draw(st.integers(0, len(body)))
            body = chunked(body[:cut], body[cut:])
        case _:
            head.append(b"Connection: close")
    interim = b"HTTP/1.1 100 Continue\r\n\r\n" * draw(st.integers(0, 3))
    return interim + b"\r\n".join([*head, b"", b""]) + body


def status_by_http_client(response: bytes) -> int | None:
    """What http.client makes of it; None where it finds no whole response."""

    class Socket:
        def makefile(self, mode: str) -> io.BytesIO:
            return io.BytesIO(response)

    reply = http.client.HTTPResponse(Socket(), method="POST")  # type: ignore[arg-type]
    try:
        reply.begin()
        reply.read()
    except (http.client.HTTPException, OSError):
        return None
    return reply.status


@given(responses(), st.lists(st.integers(0, 400), max_size=6))
@example(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", [3, 22, 24])
async def test_split_anywhere_a_response_counts_as_http_client_counts_it(response: bytes, cuts: list[int]) -> None:
    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        ends = [*sorted(min(cut, len(response)) for cut in cuts), len(response)]
        start = 0
        for end in ends:
            writer.write(response[start:end])
            await writer.drain()
            await asyncio.sleep(0)
            start = end

    async with receiver(behave) as port:
        outcome = await deliver_to(f"http://127.0.0.1:{port}/", timeout=60)
    expected = status_by_http_client(response)
    assert outcome.status == expected
    assert (outcome.code == "delivered") == (expected is not None and 200 <= expected < 300)

"""One attempt against real receivers on loopback, well-behaved and hostile ones, over real TLS."""

import asyncio
import errno
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote

import pytest
import trustme
from standardwebhooks.webhooks import Webhook

from fotahook.contract import keys, signing
from fotahook.contract.addresses import EVERYWHERE, parse_networks
from fotahook.delivery import Outcome
from fotahook.delivery.outcomes import FIXES
from fotahook.delivery.resolver import BlockedAddress, Resolver
from fotahook.delivery.response import RESPONSE_LIMIT
from fotahook.delivery.sender import EXCERPT_LIMIT, Sender, SenderSettings
from fotahook.store.records import Delivery, Lease
from tests.deadlines import DEADLINE
from tests.store.conftest import ACCOUNT

from .conftest import a_delivery, a_lease

SECRET_KEY = b"k" * 32
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Request:
    """What a receiver was sent, byte for byte."""

    def __init__(self, head: bytes, body: bytes) -> None:
        first, *lines = head.decode("latin-1").split("\r\n")
        self.line = first
        self.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines if line)}
        self.body = body


async def read_request(reader: asyncio.StreamReader) -> Request:
    head = await reader.readuntil(b"\r\n\r\n")
    request = Request(head[:-4], b"")
    request.body = await reader.readexactly(int(request.headers.get("content-length", "0")))
    return request


@asynccontextmanager
async def receiver(
    behave: Behaviour, *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[int]:
    """The port of a receiver that behaves like this on every connection."""
    connections: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        try:
            await behave(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            return  # the sender hung up, as it may
        finally:
            connections.discard(task)
            writer.close()

    server = await asyncio.start_server(connected, host, port, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)


def answering(response: bytes, requests: list[Request] | None = None) -> Behaviour:
    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            request = await read_request(reader)
            if requests is not None:
                requests.append(request)
            writer.write(response)
            await writer.drain()

    return behave


def status(line: str, *headers: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {line}", "Content-Length: 0", *headers, "", ""]).encode()


@asynccontextmanager
async def sender(**changes: object) -> AsyncIterator[Sender]:
    settings: dict[str, object] = {"secret_key": SECRET_KEY, "allowed_networks": EVERYWHERE} | changes
    ticks = iter(range(10**9))
    made = Sender(
        SenderSettings(**settings),  # type: ignore[arg-type]
        clock=lambda: 1_700_000_000.5,
        monotonic=lambda: next(ticks) / 1000,
    )
    async with made:
        yield made


async def deliver_to(url: str, delivery: Delivery | None = None, **changes: object) -> Outcome:
    async with sender(**changes) as made:
        return await made.deliver(a_lease(url=url), delivery or a_delivery())


# What is sent


async def test_the_body_arrives_byte_for_byte_with_the_documented_headers() -> None:
    requests: list[Request] = []
    body = b'{ "b" : 1,\n "a":"\xc3\xa9" }'
    delivery = a_delivery(message="m1", account="a b/ü", body=body, attempts=2, strikes=1)
    async with receiver(answering(OK, requests)) as port:
        outcome = await deliver_to(f"http://127.0.0.1:{port}/in?x=1", delivery)
    (request,) = requests
    assert outcome.code == "delivered"
    assert outcome.url == f"http://127.0.0.1:{port}/in?x=1"
    assert request.line == "POST /in?x=1 HTTP/1.1"
    assert request.body == body
    assert request.headers["content-type"] == "application/json"
    assert request.headers["user-agent"].startswith("fotahook/")
    assert unquote(request.headers["fotahook-account"]) == "a b/ü"
    assert request.headers["fotahook-attempt"] == "4"
    assert request.headers["webhook-id"] == "m1"
    assert request.headers["webhook-timestamp"] == "1700000000"
    assert "accept-encoding" not in request.headers


async def test_every_delivery_is_signed_by_its_account_by_the_service_and_by_each_live_key() -> None:
    requests: list[Request] = []
    lease = a_lease(signing_keys=("old", "new"))
    async with receiver(answering(OK, requests)) as port, sender() as made:
        await made.deliver(replace_url(lease, port), a_delivery(message="m1"))
    (request,) = requests
    for seed in (keys.account_signing_seed(SECRET_KEY, ACCOUNT), keys.signing_seed(SECRET_KEY)):
        verify_ed25519(request, seed)
    for key_id in ("old", "new"):
        secret = keys.account_signing_key(SECRET_KEY, key_id)
        signing.verify(request.headers, request.body, secrets=[secret], now=1_700_000_000)
    assert len(request.headers["webhook-signature"].split(" ")) == 4


def verify_ed25519(request: Request, seed: bytes) -> None:
    public = signing.parse_public_key(signing.format_public_key(seed))
    signing.verify(request.headers, request.body, public_keys=[public], now=1_700_000_000)


async def test_the_key_before_the_present_one_signs_too_and_the_services_own_key_can_be_left_out() -> None:
    requests: list[Request] = []
    lease, older = a_lease(signing_keys=("key",)), bytes(32)
    async with (
        receiver(answering(OK, requests)) as port,
        sender(previous_key=older) as rotating,
        sender(service_signature=False) as bound,
    ):
        for made in (rotating, bound):
            await made.deliver(replace_url(lease, port), a_delivery())
    both, alone = requests
    for secret_key in (SECRET_KEY, older):
        for seed in (keys.account_signing_seed(secret_key, ACCOUNT), keys.signing_seed(secret_key)):
            verify_ed25519(both, seed)
        secret = keys.account_signing_key(secret_key, "key")
        signing.verify(both.headers, both.body, secrets=[secret], now=1_700_000_000)
    verify_ed25519(alone, keys.account_signing_seed(SECRET_KEY, ACCOUNT))
    with pytest.raises(signing.SignatureRefused):
        verify_ed25519(alone, keys.signing_seed(SECRET_KEY))


def replace_url(lease: Lease, port: int) -> Lease:
    return a_lease(signing_keys=lease.signing_keys, url=f"http://127.0.0.1:{port}/")


async def test_a_real_delivery_is_verified_by_the_standardwebhooks_library() -> None:
    requests: list[Request] = []
    settings = SenderSettings(secret_key=SECRET_KEY, allowed_networks=EVERYWHERE)
    made = Sender(settings, clock=time.time, monotonic=time.monotonic)
    async with receiver(answering(OK, requests)) as port, made:
        await made.deliver(replace_url(a_lease(signing_keys=("key-1",)), port), a_delivery(body=b'{"a": 1}'))
    secret = signing.format_secret(keys.account_signing_key(SECRET_KEY, "key-1"))
    assert Webhook(secret).verify(requests[0].body, requests[0].headers) == {"a": 1}


async def test_connections_are_reused_and_phases_are_measured() -> None:
    async with receiver(answering(OK)) as port, sender() as made:
        lease = a_lease(url=f"http://localhost:{port}/")
        first = await made.deliver(lease, a_delivery())
        second = await made.deliver(lease, a_delivery())
    assert set(first.phases) == {"dns", "connect", "firstByte", "total"}
    assert set(second.phases) == {"firstByte", "total"}
    assert all(span >= 0 for span in first.phases.values())


# What comes back


@pytest.mark.parametrize(
    ("line", "code"),
    [
        *(("204 No Content", "delivered"), ("400 Bad Request", "http_400"), ("404 Not Found", "http_404")),
        *(("410 Gone", "http_410"), ("500 Oops", "http_500"), ("503 Busy", "http_503")),
    ],
)
async def test_the_status_decides(line: str, code: str) -> None:
    async with receiver(answering(status(line))) as port:
        outcome = await deliver_to(f"http://127.0.0.1:{port}/")
    assert (outcome.code, outcome.status) == (code, int(line[:3]))


async def test_redirects_are_not_followed_and_the_location_is_kept() -> None:
    requests: list[Request] = []
    response = status("307 Moved", "Location: https://elsewhere.example/x")
    async with receiver(answering(response, requests)) as port:
        outcome = await deliver_to(f"http://127.0.0.1:{port}/")
    assert outcome.code == "redirect"
    assert "https://elsewhere.example/x" in outcome.excerpt
    assert len(requests) == 1


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        *(("120", 120), ("0", 0), ("soon", None), ("-5", None), ("1e400", None), ("9" * 400, float("inf"))),
        *(("Tue, 14 Nov 2023 22:14:20 GMT", 59.5), ("Mon, 13 Nov 2023 22:13:20 GMT", 0)),
    ],
)
async def test_retry_after_is_read_as_seconds_or_as_a_date(header: str, seconds: float | None) -> None:
    async with receiver(answering(status("503 Busy", f"Retry-After: {header}"))) as port:
        outcome = await deliver_to(f"http://127.0.0.1:{port}/")
    assert outcome.retry_after == seconds


async def test_an_excerpt_is_short_and_printable() -> None:
    body = b"\x1b[31mred\xff" + b"x" * 5000
    response = b"HTTP/1.1 500 Oops\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    async with receiver(answering(response)) as port:
        outcome = await deliver_to(f"http://127.0.0.1:{port}/")
    assert len(outcome.excerpt) == EXCERPT_LIMIT
    assert outcome.excerpt.startswith("[31mred")


# Hostile receivers


async def test_an_endless_body_is_left_after_a_little() -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * RESPONSE_LIMIT)
            await writer.drain()

    async with receiver(endless) as port:
        outcome = await deliver_to(f"http://127.0.0.1:{port}/")
    assert outcome.code == "delivered"


async def test_a_body_that_drips_ends_at_the_deadline() -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 500 Oops\r\nContent-Length: 1000\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with receiver(drip) as port:
        outcome = await deliver_to(f"http://127.0.0.1:{port}/", timeout=1)
    assert outcome.code == "response_too_slow"


async def test_headers_that_never_come_end_at_the_deadline() -> None:
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await asyncio.Event().wait()

    async with receiver(hang) as port:
        outcome = await deliver_to(f"http://127.0.0.1:{port}/", timeout=1)
    assert outcome.code == "timeout_response"


async def test_a_connection_that_is_never_agreed_on_ends_at_its_own_deadline() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with receiver(silent) as port:
        outcome = await deliver_to(f"https://127.0.0.1:{port}/", connect_timeout=1)
    assert outcome.code == "timeout_connect"


@pytest.mark.parametrize(
    ("response", "code"),
    [
        (b"", "connection_lost"),
        (b"SSH-2.0-OpenSSH\r\n", "response_invalid"),
        (b"HTTP/1.1 500 Oops\r\nContent-Length: 100\r\n\r\nshort", "response_cut_off"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "response_cut_off"),
        (b"HTTP/1.1 500 Oops\r\nContent-Length: nonsense\r\n\r\n", "response_invalid"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n", "response_invalid"),
        (b"HTTP/1.1 2000 OK\r\n\r\n", "response_invalid"),
    ],
)
async def test_answers_that_are_not_http_have_their_codes(response: bytes, code: str) -> None:
    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(response)
        await writer.drain()

    async with receiver(behave) as port:
        outcome = await deliver_to(f"http://127.0.0.1:{port}/")
    assert outcome.code == code


async def test_a_request_on_a_dead_reused_connection_is_sent_again_on_a_new_one() -> None:
    connections = 0

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await read_request(reader)
        writer.write(OK)
        if connections == 1:
            # It stays open until the next request has arrived on it, and is then dropped without an answer.
            await read_request(reader)
        else:
            await writer.drain()

    async with receiver(serve_one) as port, sender() as made:
        lease = a_lease(url=f"http://127.0.0.1:{port}/")
        outcomes = [await made.deliver(lease, a_delivery()) for _ in range(2)]
    assert [(one.code, one.resent) for one in outcomes] == [("delivered", False), ("delivered", True)]
    assert connections == 2


async def test_a_request_without_an_answer_in_time_is_not_sent_again_at_once_on_a_reused_connection() -> None:
    requests: list[Request] = []
    came_again = asyncio.Event()

    async def answer_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await read_request(reader))
        writer.write(OK)
        requests.append(await read_request(reader))
        came_again.set()
        await asyncio.Event().wait()

    async with receiver(answer_once) as port, sender(timeout=DEADLINE) as made:
        lease = a_lease(url=f"http://127.0.0.1:{port}/")
        first = await made.deliver(lease, a_delivery())
        second = asyncio.ensure_future(made.deliver(lease, a_delivery()))
        async with asyncio.timeout(DEADLINE):
            await came_again.wait()
            made._client.deadlines.end_oldest()
            outcomes = [first, await second]
    assert [(one.code, one.resent) for one in outcomes] == [("delivered", False), ("timeout_response", False)]
    assert len(requests) == 2


async def test_a_connection_on_which_bytes_come_unasked_is_not_reused(monkeypatch: pytest.MonkeyPatch) -> None:
    # One that is idle for long would be closed anyway.
    monkeypatch.setattr("fotahook.delivery.http.IDLE_SECONDS", 60 * DEADLINE)
    connections = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await read_request(reader)
        writer.write(OK)
        await answered.wait()
        writer.write(status("500 Oops"))
        # The other end hangs up.
        assert await reader.read() == b""
        closed.set()

    answered, closed = asyncio.Event(), asyncio.Event()
    async with receiver(talk) as port, sender() as made:
        lease = a_lease(url=f"http://127.0.0.1:{port}/")
        first = await made.deliver(lease, a_delivery())
        answered.set()
        async with asyncio.timeout(DEADLINE):
            await closed.wait()
        second = await made.deliver(lease, a_delivery())
    assert [(one.code, one.resent) for one in (first, second)] == [("delivered", False)] * 2
    assert connections == 2


async def test_a_request_that_could_not_be_sent_again_is_not_marked_as_resent() -> None:
    async def serve_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(OK)
        await read_request(reader)
        came_again.set()
        await asyncio.Event().wait()

    came_again = asyncio.Event()
    async with sender() as made:
        async with receiver(serve_once) as port:
            lease = a_lease(url=f"http://127.0.0.1:{port}/")
            assert (await made.deliver(lease, a_delivery())).code == "delivered"
            second = asyncio.ensure_future(made.deliver(lease, a_delivery()))
            await came_again.wait()
        outcome = await second
    assert (outcome.code, outcome.resent) == ("connection_refused", False)


async def test_after_one_dead_reused_connection_no_other_one_is_reused() -> None:
    together = asyncio.Barrier(2)
    connections = 0

    async def serve_two(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await read_request(reader)
        if connections <= 2:
            await together.wait()
            writer.write(OK)
            await read_request(reader)
        else:
            writer.write(OK)
            await writer.drain()

    async with receiver(serve_two) as port, sender() as made:
        lease = a_lease(url=f"http://127.0.0.1:{port}/")
        await asyncio.gather(made.deliver(lease, a_delivery()), made.deliver(lease, a_delivery()))
        outcome = await made.deliver(lease, a_delivery())
    assert (outcome.code, outcome.resent, connections) == ("delivered", True, 3)


async def test_a_port_without_a_listener_refuses_the_connection() -> None:
    async with receiver(answering(OK)) as port:
        pass
    assert (await deliver_to(f"http://127.0.0.1:{port}/")).code == "connection_refused"


async def test_without_descriptors_no_receiver_is_blamed_and_the_log_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def exhausted(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    async with receiver(answering(OK)) as port, sender() as made:
        lease = a_lease(url=f"http://127.0.0.1:{port}/")
        with monkeypatch.context() as patched:
            patched.setattr("fotahook.delivery.connecting.connect_socket", exhausted)
            outcomes = [await made.deliver(lease, a_delivery()) for _ in range(3)]
        assert {outcome.code for outcome in outcomes} == {"out_of_files"}
        assert "not at fault" in FIXES["out_of_files"]
        assert (await made.deliver(lease, a_delivery())).code == "delivered"
    (line,) = [record.getMessage() for record in caplog.records if record.name.startswith("fotahook")]
    assert line.startswith("no delivery can connect: [Errno 24] Too many open files")


async def test_a_name_that_does_not_resolve_is_a_dns_error() -> None:
    assert (await deliver_to("https://nobody.invalid/")).code == "dns_error"


@pytest.mark.parametrize("url", ["", "https://", "https://exa mple/", "ftp://127.0.0.1/", "http://[::1/"])
async def test_an_unusable_url_is_an_outcome(url: str) -> None:
    assert (await deliver_to(url)).code in ("url_invalid", "dns_error")


# Vetting


@pytest.mark.parametrize("host", ["0177.0.0.1", "127.1", "2130706433", "0x7f000001"])
async def test_other_spellings_of_loopback_are_not_understood(host: str) -> None:
    requests: list[Request] = []
    async with receiver(answering(OK, requests)) as port:
        outcome = await deliver_to(f"http://{host}:{port}/", allowed_networks=())
    assert outcome.code in ("url_invalid", "blocked_address")
    assert requests == []


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "localhost"])
async def test_nothing_connects_to_a_forbidden_address(host: str) -> None:
    requests: list[Request] = []
    async with receiver(answering(OK, requests)) as port:
        outcome = await deliver_to(f"http://{host}:{port}/", allowed_networks=())
    assert outcome.code == "blocked_address"
    assert "--allow-network" in outcome.excerpt
    assert requests == []


async def test_a_named_network_can_be_opened() -> None:
    async with receiver(answering(OK)) as port:
        outcome = await deliver_to(f"http://127.0.0.1:{port}/", allowed_networks=parse_networks(["127.0.0.0/8"]))
    assert outcome.code == "delivered"


async def test_a_name_with_one_forbidden_address_is_refused_whole() -> None:
    answers = ["93.184.215.14", "10.0.0.1"]

    async def lookup(host: str) -> tuple[list[str], float]:
        return answers, 0.0

    with pytest.raises(BlockedAddress, match=r"10\.0\.0\.1"):
        await Resolver((), lookup=lookup).resolve("mixed.example")
    answers.pop()
    assert list(await Resolver((), lookup=lookup).resolve("mixed.example")) == ["93.184.215.14"]


# TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


def server_tls(authority: trustme.CA, *names: str, expired: bool = False) -> ssl.SSLContext:
    not_after = datetime(2020, 1, 1, tzinfo=UTC) if expired else None
    not_before = datetime(2019, 1, 1, tzinfo=UTC) if expired else None
    certificate = authority.issue_cert(*names, not_before=not_before, not_after=not_after)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


async def test_tls_is_verified_against_the_given_authority(authority: trustme.CA, ca_file: Path) -> None:
    async with receiver(answering(OK), tls=server_tls(authority, "localhost")) as port:
        outcome = await deliver_to(f"https://localhost:{port}/", ca_file=ca_file)
    assert outcome.code == "delivered"
    assert {"connect", "tls"} <= set(outcome.phases)


@pytest.mark.parametrize(
    ("names", "expired", "trusted", "code"),
    [
        (["localhost"], False, False, "tls_untrusted"),
        (["localhost"], True, True, "tls_expired"),
        (["other.example"], False, True, "tls_wrong_host"),
    ],
)
async def test_a_bad_certificate_says_what_is_wrong_with_it(
    authority: trustme.CA, ca_file: Path, names: list[str], expired: bool, trusted: bool, code: str
) -> None:
    requests: list[Request] = []
    async with receiver(answering(OK, requests), tls=server_tls(authority, *names, expired=expired)) as port:
        outcome = await deliver_to(f"https://localhost:{port}/", ca_file=ca_file if trusted else None)
    assert outcome.code == code
    assert outcome.fix
    assert requests == []


async def test_a_port_that_does_not_speak_tls() -> None:
    async with receiver(answering(b"HTTP/1.1 400 plain\r\n\r\n")) as port:
        outcome = await deliver_to(f"https://127.0.0.1:{port}/", timeout=2)
    assert outcome.code in ("tls_failed", "timeout_connect")


async def test_a_client_certificate_is_shown_to_receivers_that_ask(
    authority: trustme.CA, ca_file: Path, tmp_path: Path
) -> None:
    tls = server_tls(authority, "localhost")
    tls.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(tls)
    client = tmp_path / "client.pem"
    authority.issue_cert("fotahook.example").private_key_and_cert_chain_pem.write_to_path(str(client))
    async with receiver(answering(OK), tls=tls) as port:
        url = f"https://localhost:{port}/"
        assert (await deliver_to(url, ca_file=ca_file, client_cert=client)).code == "delivered"
        assert (await deliver_to(url, ca_file=ca_file)).code != "delivered"


def test_settings_do_not_show_the_secret_key() -> None:
    assert "kkk" not in repr(SenderSettings(secret_key=SECRET_KEY))


async def test_what_dev_registered_at_http_gets_nothing_from_a_service_without_it() -> None:
    requests: list[Request] = []
    async with receiver(answering(OK, requests)) as port:
        outcome = await deliver_to(f"http://127.0.0.1:{port}/", allow_http=False)
    assert (outcome.code, requests) == ("url_invalid", [])
    assert "register an https:// URL" in outcome.excerpt

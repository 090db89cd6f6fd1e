"""Mutated raw requests at a service and a listener, and mutated bytes at every parser: no 5xx, no traceback, no growth.

Each takes LEAST inputs, and more until FUZZ_SECONDS are over (`make faults`: ten minutes). FUZZ_SEED seeds them.
"""

import base64
import contextlib
import os
import random
import re
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import pytest

from fotahook.contract import signing
from fotahook.contract.addresses import (
    account_refusal,
    address_key,
    origin,
    sender_address,
    url_refusal,
    without_password,
)
from fotahook.contract.errors import one_line, parse_error_body
from fotahook.contract.messages import MessageInvalid, parse_json, parse_message
from fotahook.contract.signing import SignatureRefused
from tests.cli.processes import Running, running
from tests.deadlines import DEADLINE
from tests.hosting.test_transport import failures_in
from tests.service.conftest import DESCRIBED

LEAST: Final = 100
SECONDS: Final = float(os.environ.get("FUZZ_SECONDS", "0"))
SEED: Final = int(os.environ.get("FUZZ_SEED", "7"))
GROWTH_MIB: Final = 48
"""More than that between the first fifth and the end is no noise of the allocator."""
SPECIAL: Final = (
    *(
        b"\r\n",
        b"\n",
        b"\r",
        b"\0",
        b" ",
        b"\t",
        b":",
        b"%00",
        b"%",
        b"//",
        b"..",
        b"\xff",
        b"\xed\xa0\x80",
        b"{",
        b'"',
    ),
    *(b"[" * 3000, b"\\u0000", b"\\ud800", b"1e999", b"9" * 5000, b"-1", b"null", b"HTTP/1.1", b"HTTP/2.0", b"whsec_"),
    *(b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"Host: evil\r\n", b"Expect: 100-continue\r\n"),
    *(b"0\r\n\r\n", b"ffffffffffffffff\r\n", b"Connection: close\r\n", b"Upgrade: h2c\r\n", b"Origin: null\r\n"),
    *(b"X-Forwarded-For: ,::,1\r\n", b"v1a,"),
)


def mutated(random_: random.Random, seed: bytes) -> bytes:
    """The bytes with a few changes: some flipped, removed, repeated, inserted or cut off."""
    data = bytearray(seed)
    for _ in range(random_.choice((0, 1, 1, 2, 3, 8))):
        start = random_.randrange(len(data) + 1)
        end = min(len(data), start + random_.choice((1, 1, 2, 4, 40)))
        match random_.randrange(6):
            case 0:
                data[start:end] = bytes(random_.randrange(256) for _ in range(end - start))
            case 1:
                del data[start:end]
            case 2:
                data[start:start] = data[start:end] * random_.choice((1, 2, 50))
            case 3:
                del data[start + len(data) // 2 :]
            case _:
                data[start:start] = random_.choice(SPECIAL)
    return bytes(data)


def service_requests(tokens: bytes) -> list[bytes]:
    """A valid request for each method of each path, with and without tokens."""
    bodies = (
        *(b"", b'{"url": "https://a.example/"}', b'{"type": "upgradeProgress", "accountName": "0000123456-00001"}'),
        *(b'{"username": "dev", "password": "x"}', b"grant_type=client_credentials", b'{"limits": {"inFlight": 3}}'),
        b'{"account": "A-1", "message": {"a": [1, 2.5, null]}, "orderingKey": "k"}\n' * 3,
    )
    request = b"%b %b HTTP/1.1\r\nHost: localhost\r\n%bIdempotency-Key: k\r\nContent-Length: %d\r\n\r\n%b"
    return [
        request
        % (method.encode(), path.pattern.replace("[^/]*", "0000123456-00001").encode() + query, head, len(body), body)
        for path, methods in DESCRIBED.items()
        for method in methods
        for query in (b"", b"?limit=2&cursor=MTA&state=dead&since=2026-01-01T00:00:00Z&minutes=5&after=MS4xLjEuMQ")
        for head in (tokens, b"Authorization: Basic ZGV2OmRldi1zZWNyZXQ=\r\n")
        for body in bodies
    ]


def listener_requests() -> list[bytes]:
    """Valid messages, some of them signed."""
    bodies = (
        b'{"accountName": "0000123456-00001", "upgradeProgress": {"id": "c", "status": "x", "deviceList": [{}]}}',
        b'{"accountName": "A", "type": "x", "username": "u", "password": "p", "deviceIds": [{"id": "1"}]}',
    )
    now = int(time.time())
    headers = [
        {},
        *(signing.headers("m-1", now, [signing.signer(secrets=[bytes(32)])("m-1", now, body)]) for body in bodies),
    ]
    return [
        b"%b %b HTTP/1.1\r\nHost: localhost\r\n%bContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
        % (
            method,
            path,
            "".join(f"{name}: {value}\r\n" for name, value in head.items()).encode(),
            len(body),
            body,
        )
        for method in (b"POST", b"GET")
        for path in (b"/", b"/healthz", b"/x")
        for head in headers
        for body in bodies
    ]


def statuses(port: int, sent: bytes) -> list[int]:
    """The statuses that come while something comes; what is incomplete gets none."""
    received = bytearray()
    # A server that needs more sends nothing; one that refused may reset the connection.
    ended = contextlib.suppress(TimeoutError, ConnectionError)
    with socket.create_connection(("127.0.0.1", port), DEADLINE) as peer, ended:
        peer.sendall(sent)
        peer.settimeout(0.02)
        while len(received) < 100_000 and (data := peer.recv(65536)):
            received += data
    return [int(status) for status in re.findall(rb"(?:^|\n|\})HTTP/1\.1 (\d{3})", bytes(received))]


def memory(process: int) -> float:
    """The memory of a process in MiB."""
    text = Path(f"/proc/{process}/status").read_text()
    return int(text.partition("VmRSS:")[2].split()[0]) / 1024


def fuzz(server: Running, requests: Sequence[bytes]) -> None:
    random_, port = random.Random(SEED), int(server.url.rstrip("/").rpartition(":")[2])
    at_first = 0.0
    for count, sent in enumerate(inputs(random_, requests, SECONDS)):
        found = [status for status in statuses(port, sent) if status >= 500]
        assert not found, (found, sent)
        if count == LEAST // 2:
            at_first = memory(server.process.pid)
    assert at_first
    assert memory(server.process.pid) < at_first + GROWTH_MIB
    assert server.stop() == 0
    assert failures_in(server.log) == []


def test_mutated_requests_at_a_service(tmp_path: Path) -> None:
    with running("serve", "--dev", "--port", "0", "--schedule", "0", cwd=tmp_path) as server:
        port = int(server.url.rpartition(":")[2])
        basic = base64.b64encode(b"dev:dev-secret")
        body = b"grant_type=client_credentials"
        with socket.create_connection(("127.0.0.1", port), DEADLINE) as peer:
            head = b"POST /api/ts/v1/oauth2/token HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic %b\r\n"
            peer.sendall(head % basic + b"Connection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            answer = b"".join(iter(lambda: peer.recv(65536), b""))
        token = answer.partition(b'"access_token":"')[2].partition(b'"')[0]
        assert token
        fuzz(server, service_requests(b"Authorization: Bearer %b\r\n" % token))


@pytest.mark.parametrize("flags", [(), ("--secret", signing.format_secret(bytes(32)))], ids=["open", "signed"])
def test_mutated_messages_at_a_listener(tmp_path: Path, flags: tuple[str, ...]) -> None:
    (tmp_path / "handlers.py").write_text(
        "import fotahook\nlistener = fotahook.Listener()\n\n@listener.on_any\ndef ignore(message):\n    pass\n"
    )
    with running("listen", "handlers:listener", "--port", "0", *flags, cwd=tmp_path) as server:
        fuzz(server, listener_requests())


def text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def latin(data: bytes) -> str:
    return data.decode("latin-1")


def check_headers(data: bytes) -> None:
    message_id, sent, signature = [*latin(data).split("|", 2), "", ""][:3]
    headers = {"webhook-id": message_id, "webhook-timestamp": sent, "webhook-signature": signature}
    signing.verify(headers, data, secrets=[bytes(32)], public_keys=[bytes(32)], now=1_800_000_000)


MESSAGE: Final = (
    b'{"accountName": "0000123456-00001", "type": "upgradeProgress", "upgradeProgress": {"id": "c-1", "status": "x", '
    b'"deviceList": [{"deviceId": "1", "status": "Failed", "resultReason": "r", "size": 1e3}]}, "\\u0061ccountName": 3}'
)
PARSERS: Final[dict[str, tuple[Callable[[bytes], object], tuple[type[Exception], ...], tuple[bytes, ...]]]] = {
    "message": (parse_message, (MessageInvalid,), (MESSAGE, b'{"a": [[[{}]]], "b": "\\ud83d"}')),
    "json": (parse_json, (MessageInvalid,), (MESSAGE,)),
    "error": (
        parse_error_body,
        (),
        (b'{"errorCode": "X", "errorMessage": "y"}', b"<a><errorCode>X</errorCode><errorMessage>y</errorMessage></a>"),
    ),
    "url": (
        lambda data: url_refusal(text(data), allow_http=True, allowed=()),
        (),
        (b"https://a.example:443/x?y=%20", b"https://[2001:db8::1]:8443/", "https://ä.example/".encode()),
    ),
    "account": (lambda data: account_refusal(text(data)), (), (b"0000123456-00001",)),
    "log": (
        lambda data: (origin(text(data)), without_password(text(data)), one_line(text(data))),
        (),
        (b"postgresql://u:p@h,h2:5432/db?password=x", b"https://a.example/"),
    ),
    "address": (
        lambda data: (sender_address(latin(data), latin(data), ()), address_key(latin(data))),
        (),
        (b"192.0.2.1, [2001:db8::1]:80", b"::ffff:192.0.2.1", b"fe80::1%eth0"),
    ),
    "signature": (check_headers, (SignatureRefused,), (b"m|1800000000|v1,AAAA v1a,BBBB v1," + b"A" * 44,)),
    "key": (lambda data: signing.parse_secret(text(data)), (ValueError,), (b"whsec_" + b"A" * 40,)),
}


@pytest.mark.parametrize("name", PARSERS)
def test_mutated_bytes_at_a_parser(name: str) -> None:
    parse, refusals, seeds = PARSERS[name]
    random_ = random.Random(SEED)
    parsed = refused = 0
    for data in inputs(random_, seeds, SECONDS / len(PARSERS)):
        try:
            parse(data)
            parsed += 1
        except refusals:
            refused += 1
        except Exception as error:
            raise AssertionError(data) from error
    assert parsed + refused >= LEAST
    assert bool(refused) == bool(refusals)


def inputs(random_: random.Random, seeds: Sequence[bytes], seconds: float) -> Iterator[bytes]:
    end, count = time.monotonic() + seconds, 0
    while count < LEAST or time.monotonic() < end:
        yield mutated(random_, random_.choice(seeds))
        count += 1

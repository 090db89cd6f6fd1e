"""One POST over a kept connection, by the HTTP client's own connector and response parser.

Its session would do the same, with redirects, cookies, proxies and uploads besides; without those, a POST costs half.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import aiohttp
from yarl import URL

from fotahook.contract.addresses import Network

from .resolver import vet_literal
from .timing import TimedConnector, Timing

RESPONSE_LIMIT: Final = 16 * 1024
"""Bytes of a response that are read; the connection of a longer one is closed."""


class Target(NamedTuple):
    """Where to post: what the connector connects by, and the beginning of every request."""

    request: aiohttp.ClientRequest
    head: str


class Answer(NamedTuple):
    """A response: its status, header fields and as much of its body as is read."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def target_of(url: str, allowed: Sequence[Network], loop: asyncio.AbstractEventLoop) -> Target:
    """Where a URL leads; ValueError or BlockedAddress."""
    parsed = URL(url)
    if parsed.scheme not in ("http", "https"):
        raise ValueError(f"{parsed.scheme} is not a protocol to deliver by")
    vet_literal(parsed.host or "", allowed)
    # It is never sent: the connector wants one to connect by, and it knows the header fields that a URL asks for.
    request = aiohttp.ClientRequest("GET", parsed, skip_auto_headers=("Accept", "Accept-Encoding"), loop=loop)
    request.headers.popall("User-Agent", None)
    return Target(request, f"POST {request.url.raw_path_qs} HTTP/1.1\r\n{_lines(request.headers)}")


async def post(
    connector: TimedConnector,
    target: Target,
    headers: Mapping[str, str],
    body: bytes,
    timeout: aiohttp.ClientTimeout,
    exchange: Timing,
) -> Answer:
    """Send a request and read its response. The connection is kept only if the response came to its end."""
    connection = await connector.connect(target.request, [], timeout)
    try:
        protocol = connection.protocol
        if protocol is None or protocol.transport is None:
            raise aiohttp.ServerDisconnectedError
        protocol.set_response_params(auto_decompress=False, read_until_eof=True)
        head = f"{target.head}{_lines(headers)}Content-Length: {len(body)}\r\n\r\n"
        protocol.transport.write(head.encode("ascii") + body)
        exchange.mark("sent")
        message, content = await protocol.read()
        while 100 <= message.code < 200 and message.code != 101:
            message, content = await protocol.read()
        exchange.mark("first_byte")
        answer = Answer(message.code, message.headers, await _read(content))
        if content.is_eof():
            connection.release()
        return answer
    finally:
        if connection.transport is not None:
            # Not closed in good order: that would wait for a receiver that reads nothing.
            connection.transport.abort()
        connection.close()


async def _read(content: aiohttp.StreamReader) -> bytes:
    body = b""
    while len(body) <= RESPONSE_LIMIT and not content.at_eof():
        body += await content.read(RESPONSE_LIMIT + 1 - len(body))
    return body


def _lines(headers: Mapping[str, str]) -> str:
    text = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if text.count("\r") != len(headers) or text.count("\n") != len(headers):
        raise ValueError("a header field of more than one line")
    return text

"""One POST over a pooled connection, with the HTTP client's own connector and response parser.

Its session also handles redirects, cookies, proxies and uploads; without it, a POST costs half.
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
"""Bytes of a response body that are read. After a longer one, the connection is closed."""


class Target(NamedTuple):
    """A parsed URL: the request that the connector connects for, and the start of every request head."""

    request: aiohttp.ClientRequest
    head: str


class Response(NamedTuple):
    """A response: its status, its headers and the part of its body that was read."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def target_of(url: str, allowed: Sequence[Network], loop: asyncio.AbstractEventLoop) -> Target:
    """Parse and vet a URL. ValueError or BlockedAddress if nothing can be sent there."""
    parsed = URL(url)
    if parsed.scheme not in ("http", "https"):
        raise ValueError(f"{parsed.scheme} is not supported: use https")
    vet_literal(parsed.host or "", allowed)
    # Never sent: the connector needs a request to connect for, and it computes the headers that depend on the URL.
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
) -> Response:
    """Send a request and read its response. The connection is reused only if the response was read to its end."""
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
        response = Response(message.code, message.headers, await _read(content))
        if content.is_eof():
            connection.release()
        return response
    finally:
        if connection.transport is not None:
            # An orderly close would wait for a receiver that reads nothing.
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
        raise ValueError("a header contains a line break")
    return text

"""An HTTP/1.1 client for POSTs, with idle connections kept by origin.

Every address that it connects to comes from the resolver, which vets it.
"""

import asyncio
import socket
import ssl
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from fotahook.contract.addresses import EVERYWHERE, Network
from fotahook.contract.proxy import Proxy
from fotahook.contract.urls import url_refusal

from .connection import Connection, ConnectionDropped, ExchangeFailed, Response
from .deadline import Deadline
from .resolver import Resolver, vet_literal
from .timing import Timing
from .tls import reported_handshake

IDLE_SECONDS: Final = 15.0
IDLE_LIMIT: Final = 1024
"""Idle connections in all; the one idle for longest is closed for a new one."""
STAGGER_SECONDS: Final = 0.25
"""Delay before the next address of a host is tried beside the one before (RFC 8305, section 5)."""


class Origin(NamedTuple):
    """Where a connection leads."""

    tls: bool
    host: str
    port: int


class Target(NamedTuple):
    """A parsed URL: its origin, and the beginning of every request to it."""

    origin: Origin
    head: str


def target_of(url: str, allowed: Sequence[Network]) -> Target:
    """Parse a URL; ValueError for one that cannot be used, BlockedAddress for a forbidden IP literal.

    The request target is sent exactly as it stands in the URL: signed URLs break when one byte changes.
    """
    if (why := url_refusal(url, allow_http=True, allowed=EVERYWHERE)) is not None:
        raise ValueError(why)
    parts = urlsplit(url)
    host = (parts.hostname or "").encode("idna").decode("ascii")
    vet_literal(host, allowed)
    tls = parts.scheme == "https"
    default = 443 if tls else 80
    port = parts.port or default
    name = f"[{host}]" if ":" in host else host
    authority = name if port == default else f"{name}:{port}"
    path = url[url.index("//") + 2 :].partition(parts.netloc)[2]
    request_target = path if path.startswith("/") else f"/{path}"
    return Target(Origin(tls, host, port), f"POST {request_target} HTTP/1.1\r\nHost: {authority}\r\n")


class ConnectionPool:
    """Idle connections by origin, the one used last first."""

    def __init__(self) -> None:
        self._by_origin: dict[Origin, list[Connection]] = {}
        self._by_age: dict[Connection, Origin] = {}
        self._sweep: asyncio.TimerHandle | None = None

    def take(self, origin: Origin) -> Connection | None:
        """An idle connection to an origin, no longer in the pool."""
        while idle := self._by_origin.get(origin):
            connection = idle[-1]
            self._forget(connection)
            if connection.usable:
                connection.reused = True
                return connection
        return None

    def put(self, origin: Origin, connection: Connection) -> None:
        """Keep a connection for the next request."""
        loop = asyncio.get_running_loop()
        if len(self._by_age) >= IDLE_LIMIT:
            self._close(next(iter(self._by_age)))
        connection.idle_since = loop.time()
        connection.on_idle_end = self._forget
        self._by_origin.setdefault(origin, []).append(connection)
        self._by_age[connection] = origin
        if self._sweep is None:
            self._sweep = loop.call_later(IDLE_SECONDS, self._close_old)

    def close(self) -> None:
        """Close all idle connections."""
        if self._sweep is not None:
            self._sweep.cancel()
        for connection in list(self._by_age):
            self._close(connection)

    def _close_old(self) -> None:
        loop = asyncio.get_running_loop()
        self._sweep = None
        while self._by_age:
            oldest = next(iter(self._by_age))
            ends = oldest.idle_since + IDLE_SECONDS
            if ends > loop.time():
                self._sweep = loop.call_at(ends, self._close_old)
                return
            self._close(oldest)

    def _close(self, connection: Connection) -> None:
        self._forget(connection)
        connection.abort()

    def _forget(self, connection: Connection) -> None:
        connection.on_idle_end = None
        origin = self._by_age.pop(connection)
        idle = self._by_origin[origin]
        idle.remove(connection)
        if not idle:
            del self._by_origin[origin]


class HttpClient:
    """Sends POSTs. Every address that it connects to comes from the resolver, which vets it."""

    def __init__(
        self, resolver: Resolver, tls: ssl.SSLContext, *, connect_timeout: float, proxy: Proxy | None = None
    ) -> None:
        self._resolver = resolver
        self._tls = tls
        self._connecting = Deadline(connect_timeout)
        self._proxy = proxy
        self._pool = ConnectionPool()

    def close(self) -> None:
        """Close the idle connections."""
        self._pool.close()

    async def post(self, target: Target, fields: Mapping[str, str], body: bytes, timing: Timing) -> Response:
        """Send one POST and read its response. ExchangeFailed, TimeoutError, OSError or ssl.SSLError if none comes.

        A kept connection may have been closed while the request was on its way, which says nothing about the receiver:
        if it ends before the first byte, the request is sent once more, on a new connection.
        """
        head = _encode(target.head, fields, len(body))
        connection = self._pool.take(target.origin)
        if connection is not None:
            timing.reused = True
            try:
                return await self._exchange(connection, target.origin, head, body, timing)
            except ConnectionDropped:
                timing.start_again()
        connection = await self._connect(target.origin, timing)
        return await self._exchange(connection, target.origin, head, body, timing)

    async def _exchange(
        self, connection: Connection, origin: Origin, head: bytes, body: bytes, timing: Timing
    ) -> Response:
        response = await connection.exchange(head, body, timing)
        if connection.usable:
            self._pool.put(origin, connection)
        return response

    async def _connect(self, origin: Origin, timing: Timing) -> Connection:
        with self._connecting:
            if self._proxy is not None:
                return await self._connect_by_proxy(self._proxy, origin, timing)
            timing.mark_dns_start()
            addresses = await self._resolver.resolve(origin.host)
            timing.mark_dns_end()
            connected = await _open_socket(addresses, origin.port)
            timing.mark_connected()
            return await self._start(connected, origin, timing)

    async def _connect_by_proxy(self, proxy: Proxy, origin: Origin, timing: Timing) -> Connection:
        loop = asyncio.get_running_loop()
        timing.mark_dns_end()
        tunnel = Connection()
        transport, _ = await loop.create_connection(lambda: tunnel, proxy.host, proxy.port)
        try:
            response = await tunnel.exchange(_connect_request(proxy, origin), b"", Timing(loop.time), tunnel=True)
            if not 200 <= response.status < 300 or not tunnel.usable:
                raise ExchangeFailed("proxy_refused", f"the egress proxy answered CONNECT with {response.status}")
            timing.mark_connected()
            connection = Connection()
            transport.set_protocol(connection)
            if origin.tls:
                name = origin.host.removesuffix(".")
                with reported_handshake():
                    secured = await loop.start_tls(transport, connection, self._tls, server_hostname=name)
                timing.mark_tls_end()
                if secured is None:
                    raise ConnectionDropped("connection_lost", "the connection closed during the TLS handshake")
                transport = secured
            connection.connection_made(transport)
        except BaseException:
            transport.abort()
            raise
        return connection

    async def _start(self, connected: socket.socket, origin: Origin, timing: Timing) -> Connection:
        loop = asyncio.get_running_loop()
        tls = self._tls if origin.tls else None
        name = origin.host.removesuffix(".") if origin.tls else None
        try:
            with reported_handshake():
                _, connection = await loop.create_connection(Connection, sock=connected, ssl=tls, server_hostname=name)
        except BaseException:
            connected.close()
            raise
        if origin.tls:
            timing.mark_tls_end()
        return connection


def _encode(head: str, fields: Mapping[str, str], length: int | None) -> bytes:
    """The head of a request; ValueError for a field of more than one line."""
    lines = "".join([f"{name}: {value}\r\n" for name, value in fields.items()])
    if lines.count("\r") != len(fields) or lines.count("\n") != len(fields):
        raise ValueError("a header field has more than one line")
    framing = "" if length is None else f"Content-Length: {length}\r\n"
    return f"{head}{lines}{framing}\r\n".encode("ascii")


def _connect_request(proxy: Proxy, origin: Origin) -> bytes:
    """The request that opens a tunnel to an origin."""
    name = f"[{origin.host}]" if ":" in origin.host else origin.host
    authority = f"{name}:{origin.port}"
    fields = {"Host": authority} | ({"Proxy-Authorization": proxy.authorization} if proxy.authorization else {})
    return _encode(f"CONNECT {authority} HTTP/1.1\r\n", fields, None)


async def _open_socket(addresses: Sequence[str], port: int) -> socket.socket:
    """A socket connected to the first address that accepts; each next one starts a little later (happy eyeballs)."""
    if len(addresses) == 1:
        return await _connect_socket(addresses[0], port)
    waiting = iter(addresses)
    running: set[asyncio.Task[socket.socket]] = set()
    errors: list[BaseException] = []
    try:
        while True:
            if (address := next(waiting, None)) is not None:
                running.add(asyncio.create_task(_connect_socket(address, port)))
            elif not running:
                raise errors[0]
            timeout = None if address is None else STAGGER_SECONDS
            done, running = await asyncio.wait(running, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            winners = [task.result() for task in done if task.exception() is None]
            errors += [error for task in done if (error := task.exception()) is not None]
            if winners:
                for late in winners[1:]:
                    late.close()
                return winners[0]
    finally:
        for task in running:
            task.add_done_callback(_close_late)
            task.cancel()


async def _connect_socket(address: str, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(sock, (address, port))
    except BaseException:
        sock.close()
        raise
    return sock


def _close_late(task: asyncio.Task[socket.socket]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().close()

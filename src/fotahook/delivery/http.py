"""An HTTP/1.1 client for POSTs, with idle connections kept by origin.

Every address that it connects to comes from the resolver, which vets it.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from fotahook.contract.addresses import EVERYWHERE, Network, url_refusal
from fotahook.contract.servers import Proxy

from .connection import Connection, ConnectionDropped, Exchange, KnownResponses
from .deadline import DeadlineQueue
from .outcomes import Outcome
from .resolver import Resolver, vet_literal
from .response import HEAD_LIMIT, ExchangeFailed, Response, ResponseReader
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

    url: str
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
    return Target(url, Origin(tls, host, port), f"POST {request_target} HTTP/1.1\r\nHost: {authority}\r\n")


class ConnectionPool:
    """Idle connections by origin, the one used last first."""

    def __init__(self) -> None:
        self._by_origin: dict[Origin, dict[Connection, None]] = {}
        self._by_age = DeadlineQueue[Connection](IDLE_SECONDS, self._close)

    def take(self, origin: Origin) -> Connection | None:
        """An idle connection to an origin, no longer in the pool."""
        while idle := self._by_origin.get(origin):
            connection = next(reversed(idle))
            self._forget(connection, origin)
            if connection.usable:
                return connection
        return None

    def put(self, origin: Origin, connection: Connection) -> None:
        """Keep a connection for the next request."""
        if len(self._by_age) >= IDLE_LIMIT:
            self._by_age.end_oldest()
        connection.on_idle_end = partial(self._forget, connection, origin)
        self._by_origin.setdefault(origin, {})[connection] = None
        self._by_age.add(connection)

    def close(self) -> None:
        """Close all idle connections."""
        while self._by_age:
            self._by_age.end_oldest()

    def _close(self, connection: Connection) -> None:
        if connection.on_idle_end is not None:
            connection.on_idle_end()
        connection.abort()

    def _forget(self, connection: Connection, origin: Origin) -> None:
        connection.on_idle_end = None
        self._by_age.remove(connection)
        idle = self._by_origin[origin]
        del idle[connection]
        if not idle:
            del self._by_origin[origin]


class Post(asyncio.Future[Outcome], Exchange):
    """One POST under way, and a future of its outcome. Cancelling it drops its connection."""

    connection: Connection | None = None
    connecting: asyncio.Task[None] | None = None

    def __init__(self, client: "HttpClient", target: Target, head: bytes, body: bytes) -> None:
        super().__init__()
        self.clock = client.clock
        self.start = client.clock()
        self.target = target
        self.head = head
        self.body = body
        self._client = client

    def answered(self, response: Response) -> None:
        """As of Exchange."""
        self._client.end(self)
        self.set_result(self._client.report(self, response))

    def failed(self, error: Exception) -> None:
        """As of Exchange.

        A kept connection may have been closed while the request was on its way, which says nothing about the receiver:
        if it ends before the first byte, the request is sent once more, on a new connection.
        """
        if isinstance(error, ConnectionDropped) and self.reused:
            self.afresh, self.reused, self.sent = True, False, None
            self._client.connect(self)
        elif not self.done():
            self._client.end(self)
            self.set_result(self._client.report(self, error))

    def overdue(self) -> None:
        """It took longer than an exchange may."""
        self._leave()
        self.failed(TimeoutError())

    def cancel(self, msg: object = None) -> bool:
        """As of asyncio.Future."""
        if not super().cancel(msg):
            return False
        self._leave()
        self._client.end(self)
        return True

    def _leave(self) -> None:
        """Drop the connection, or end connecting."""
        if self.connecting is not None:
            self.connecting.cancel()
        if self.connection is not None:
            self.connection.abort()


class HttpClient:
    """Sends POSTs. Every address that it connects to comes from the resolver, which vets it."""

    def __init__(
        self,
        resolver: Resolver,
        tls: ssl.SSLContext,
        report: Callable[[Post, Response | Exception], Outcome],
        *,
        clock: Callable[[], float],
        timeout: float,
        connect_timeout: float,
        proxy: Proxy | None = None,
    ) -> None:
        """`report` makes an outcome of the response, or of an ExchangeFailed or OSError if there is none."""
        self.report = report
        self.clock = clock
        self._resolver = resolver
        self._tls = tls
        self._connect_timeout = connect_timeout
        self._proxy = proxy
        self._pool = ConnectionPool()
        self._known = KnownResponses()
        self._deadlines = DeadlineQueue[Post](timeout, Post.overdue)
        self._queue: list[Post] = []
        """Those that are sent at the next turn of the event loop."""

    def close(self) -> None:
        """Close the idle connections."""
        self._pool.close()

    def post(self, target: Target, head: bytes, body: bytes) -> Post:
        """Send one POST. `head` is the whole head.

        Requests that start together are all made before the first is sent, which is faster than alternating.
        """
        post = Post(self, target, head, body)
        self._deadlines.add(post)
        if not self._queue:
            asyncio.get_running_loop().call_soon(self._send_queued)
        self._queue.append(post)
        return post

    def _send_queued(self) -> None:
        queue, self._queue = self._queue, []
        for post in queue:
            if post.done():
                continue
            connection = self._pool.take(post.target.origin)
            if connection is None:
                self.connect(post)
            else:
                post.reused = True
                post.connection = connection
                connection.send(post, post.head, post.body)

    def connect(self, post: Post) -> None:
        """Send a POST on a new connection."""
        post.connection = None
        post.connecting = asyncio.create_task(self._send_afresh(post))

    async def _send_afresh(self, post: Post) -> None:
        try:
            async with asyncio.timeout(self._connect_timeout):
                connection = await self._connect(post.target.origin, post)
        except (ExchangeFailed, OSError, ValueError) as error:
            post.failed(error)
        except Exception as error:
            self.end(post)
            post.set_exception(error)
        else:
            post.connection = connection
            connection.send(post, post.head, post.body)
        finally:
            post.connecting = None

    def end(self, post: Post) -> None:
        """A POST has ended: its connection may be used again."""
        self._deadlines.remove(post)
        connection, post.connection = post.connection, None
        if connection is not None and connection.usable:
            self._pool.put(post.target.origin, connection)

    async def _connect(self, origin: Origin, times: Exchange) -> Connection:
        if self._proxy is not None:
            times.dns_end = times.clock()
            connected = await _open_tunnel(self._proxy, origin)
        else:
            times.dns_start = times.clock()
            addresses = await self._resolver.resolve(origin.host)
            times.dns_end = times.clock()
            connected = await _open_socket(addresses, origin.port)
        times.connected = times.clock()
        tls = self._tls if origin.tls else None
        name = origin.host.removesuffix(".") if origin.tls else None
        try:
            with reported_handshake():
                _, connection = await asyncio.get_running_loop().create_connection(
                    lambda: Connection(self._known), sock=connected, ssl=tls, server_hostname=name
                )
        except BaseException:
            connected.close()
            raise
        if origin.tls:
            times.tls_end = times.clock()
        return connection


def encode_head(target_head: str, fields: Mapping[str, str], length: int | None) -> bytes:
    """The whole head of a request; ValueError for a field of more than one line."""
    lines = "".join([f"{name}: {value}\r\n" for name, value in fields.items()])
    if lines.count("\r") != len(fields) or lines.count("\n") != len(fields):
        raise ValueError("a header field has more than one line")
    framing = "" if length is None else f"Content-Length: {length}\r\n"
    return f"{target_head}{lines}{framing}\r\n".encode("ascii")


async def _open_tunnel(proxy: Proxy, origin: Origin) -> socket.socket:
    """A socket that the egress proxy has connected to an origin."""
    loop = asyncio.get_running_loop()
    name = f"[{origin.host}]" if ":" in origin.host else origin.host
    authority = f"{name}:{origin.port}"
    fields = {"Host": authority} | ({"Proxy-Authorization": proxy.authorization} if proxy.authorization else {})
    found = await loop.getaddrinfo(proxy.host, proxy.port, type=socket.SOCK_STREAM)
    tunnel = await _open_socket([str(address[0]) for *_, address in found], proxy.port)
    try:
        await loop.sock_sendall(tunnel, encode_head(f"CONNECT {authority} HTTP/1.1\r\n", fields, None))
        reader = ResponseReader()
        while not reader.status:
            if not (data := await loop.sock_recv(tunnel, HEAD_LIMIT)):
                raise ExchangeFailed("connection_lost", "the egress proxy closed the connection before it answered")
            reader.feed(data)
        # Bytes behind the head would be lost: nobody was asked for them yet.
        if not reader.accepted or reader.response.body:
            raise ExchangeFailed("proxy_refused", f"the egress proxy answered CONNECT with {reader.status}")
    except BaseException:
        tunnel.close()
        raise
    return tunnel


async def _open_socket(addresses: Sequence[str], port: int) -> socket.socket:
    """A socket connected to the first address that accepts; each next one starts a little later (happy eyeballs)."""
    if len(addresses) == 1:
        return await connect_socket(addresses[0], port)
    waiting = iter(addresses)
    running: set[asyncio.Task[socket.socket]] = set()
    errors: list[BaseException] = []
    try:
        while True:
            if (address := next(waiting, None)) is not None:
                running.add(asyncio.create_task(connect_socket(address, port)))
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


async def connect_socket(address: str, port: int) -> socket.socket:
    """A socket connected to an IP address."""
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

"""An HTTP/1.1 client for POSTs. Every address that it connects to comes from the resolver, which vets it."""

import asyncio
import ssl
from collections.abc import Callable
from typing import Final, cast

from fotahook.contract.servers import Proxy

from .connecting import Origin, Target, code_of_tls_error, open_socket, open_tunnel
from .deadline import DeadlineQueue
from .outcomes import Attempt, Outcome
from .resolver import Resolver
from .response import ExchangeFailed, Response, ResponseReader

IDLE_SECONDS: Final = 15.0
IDLE_LIMIT: Final = 1024
"""Idle connections in all; the one idle for longest is closed for a new one."""
COPY_LIMIT: Final = 16 * 1024
"""A longer body of a request is not copied behind its head: that would cost more than a second write."""
BODY_GRACE_SECONDS: Final = 1.0
"""How long the body of a 2xx is waited for: its head has already decided the outcome."""
KNOWN_BYTES: Final = 1024
KNOWN_RESPONSES: Final = 256


class ConnectionDropped(ExchangeFailed):
    """The connection ended before the first byte of a response."""


class Post(Attempt):
    """One POST under way. Cancelling it drops its connection. Times are by the client's clock, in seconds."""

    connection: "Connection | None" = None
    connecting: asyncio.Task[None] | None = None
    stage = "connect"
    sent = 0.0
    first_byte: float | None = None
    reused = False
    afresh = False
    resent = False

    def __init__(self, client: "HttpClient", target: Target, head: bytes, body: bytes) -> None:
        super().__init__()
        self.target = target
        self.head = head
        self.body = body
        self.phases: dict[str, float] = {}
        self.start = client.clock()
        self._client = client

    def note(self, phase: str, since: float) -> float:
        now = self._client.clock()
        self.phases[phase] = round((now - since) * 1000, 3)
        return now

    def failed(self, error: Exception) -> None:
        """No response came. A kept connection may have been closed while the request was on its way, which says nothing
        about the receiver: if it ends before the first byte, the request is sent once more, on a new connection."""
        if isinstance(error, ConnectionDropped) and self.reused:
            self.afresh, self.reused = True, False
            self._client.connect(self)
        elif not self.ended:
            self._client.end(self, error)

    def overdue(self) -> None:
        self._leave()
        self.failed(TimeoutError())

    def cancel(self) -> None:
        if not self.ended:
            self._leave()
            self._client.deadlines.remove(self)
            self.end(None)

    def _leave(self) -> None:
        if self.connecting is not None:
            self.connecting.cancel()
        if self.connection is not None:
            self.connection.abort()


class Connection(asyncio.Protocol):
    """A connection to an origin. It carries one exchange at a time."""

    def __init__(self, client: "HttpClient", origin: Origin) -> None:
        self.origin = origin
        self._client = client
        self._known = client.known
        self._transport: asyncio.Transport | None = None
        self._post: Post | None = None
        self._reader: ResponseReader | None = None

    def send(self, post: Post) -> bool:
        """Send a request; whether that could be tried."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return False
        self._post, post.connection, post.stage = post, self, "response"
        if len(post.body) < COPY_LIMIT:
            transport.write(post.head + post.body)
        else:
            transport.write(post.head)
            transport.write(post.body)
        post.sent = self._client.clock()
        return True

    def abort(self) -> None:
        """Close at once, whatever is under way, and tell nobody. A receiver that reads nothing would never let a
        connection close in good order."""
        self._post = None
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not always a subclass: uvloop's transports are their own.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        post, reader = self._post, self._reader
        if post is None:
            # Nothing was asked: whatever this is, the connection is not worth keeping.
            self.abort()
        elif reader is not None:
            self._read(post, reader, data)
        elif (known := self._known.get(data)) is not None:
            # Receivers answer the same again and again, and the same bytes mean the same.
            post.first_byte = self._client.clock()
            self._post = None
            self._client.end(post, known, self)
        else:
            reader = self._reader = ResponseReader()
            self._read(post, reader, data)
            if reader.keep and len(data) <= KNOWN_BYTES:
                if len(self._known) >= KNOWN_RESPONSES:
                    self._known.clear()
                self._known[data] = reader.response

    def _read(self, post: Post, reader: ResponseReader, data: bytes) -> None:
        was_accepted = reader.accepted
        try:
            reader.feed(data)
        except ExchangeFailed as error:
            self._fail(error)
            return
        finally:
            if post.first_byte is None and (reader.status or not reader.interim):
                post.first_byte, post.stage = self._client.clock(), "body"
        if reader.ended:
            self._finish(post, keep=reader.keep)
        elif reader.accepted and not was_accepted:
            self._client.loop.call_later(BODY_GRACE_SECONDS, self._finish, post)

    def connection_lost(self, error: Exception | None) -> None:
        if self._client.by_age.remove(self):
            self._client.close_idle(self)
        post, reader = self._post, self._reader
        if post is None:
            return
        if reader is not None and reader.status and (reader.accepted or not reader.framed):
            self._finish(post)
        elif reader is not None:
            self._fail(ExchangeFailed("response_cut_off", "the response broke off"))
        elif isinstance(error, ssl.SSLError) and code_of_tls_error(error) == "tls_client_certificate":
            # With TLS 1.3 a receiver refuses a client without a certificate only after the handshake.
            self._fail(ExchangeFailed("tls_client_certificate", str(error)))
        else:
            text = "the receiver closed the connection before it answered"
            self._fail(ConnectionDropped("connection_lost", str(error or text)))

    def _finish(self, post: Post, *, keep: bool = False) -> None:
        reader = self._reader
        if self._post is not post or reader is None:
            return
        self._post = self._reader = None
        if not keep:
            self.abort()
        self._client.end(post, reader.response, self if keep else None)

    def _fail(self, error: Exception) -> None:
        post = self._post
        self.abort()
        if post is not None:
            post.failed(error)


class HttpClient:
    """Sends POSTs, within the event loop in which it is made."""

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
        """`report` makes an outcome of the response, or of the exception if there is none."""
        self.clock = clock
        self.loop = asyncio.get_running_loop()
        self.known: dict[bytes, Response] = {}
        """Responses by their bytes: those that came whole, and after which the connection was kept."""
        self._report = report
        self._resolver = resolver
        self._tls = tls
        self._connect_timeout = connect_timeout
        self._proxy = proxy
        self._idle: dict[Origin, dict[Connection, None]] = {}
        self.by_age = DeadlineQueue[Connection](IDLE_SECONDS, self.close_idle)
        self.deadlines = DeadlineQueue[Post](timeout, Post.overdue)
        self._queue: list[Post] = []

    def close(self) -> None:
        while self.by_age:
            self.by_age.end_oldest()

    def post(self, target: Target, head: bytes, body: bytes) -> Post:
        """Send one POST. `head` is the whole head. Requests that start together are all made before the first is sent,
        which is faster than alternating."""
        post = Post(self, target, head, body)
        self.deadlines.add(post)
        if not self._queue:
            self.loop.call_soon(self._send_queued)
        self._queue.append(post)
        return post

    def _send_queued(self) -> None:
        queue, self._queue = self._queue, []
        for post in queue:
            if not post.ended and not self._send_on_kept(post):
                self.connect(post)

    def _send_on_kept(self, post: Post) -> bool:
        origin = post.target.origin
        while (idle := self._idle.get(origin)) is not None:
            connection, _ = idle.popitem()
            self.by_age.remove(connection)
            if not idle:
                del self._idle[origin]
            if connection.send(post):
                post.reused = True
                return True
        return False

    def connect(self, post: Post) -> None:
        post.connection, post.stage = None, "connect"
        post.connecting = self.loop.create_task(self._send_afresh(post))

    async def _send_afresh(self, post: Post) -> None:
        try:
            async with asyncio.timeout(self._connect_timeout):
                connection = await self._connect(post)
        except Exception as error:
            post.failed(error)
        else:
            post.resent = post.afresh
            if not connection.send(post):
                post.failed(ConnectionDropped("connection_lost", "the receiver closed the connection"))
        finally:
            post.connecting = None

    async def _connect(self, post: Post) -> Connection:
        origin, begun = post.target.origin, self.clock()
        if self._proxy is not None:
            connected = await open_tunnel(self._proxy, origin)
        else:
            post.stage = "dns"
            addresses = await self._resolver.resolve(origin.host)
            post.stage, begun = "connect", post.note("dns", begun)
            connected = await open_socket(addresses, origin.port)
        begun = post.note("connect", begun)
        tls, name = (self._tls, origin.host.removesuffix(".")) if origin.tls else (None, None)
        try:
            _, connection = await self.loop.create_connection(
                lambda: Connection(self, origin), sock=connected, ssl=tls, server_hostname=name
            )
        except BaseException:
            connected.close()
            raise
        if origin.tls:
            post.note("tls", begun)
        return connection

    def end(self, post: Post, found: Response | Exception, connection: Connection | None = None) -> None:
        """A POST has ended. Its connection, if one is given, may be used again."""
        self.deadlines.remove(post)
        if connection is not None:
            origin = connection.origin
            if (idle := self._idle.get(origin)) is None:
                idle = self._idle[origin] = {}
            idle[connection] = None
            self.by_age.add(connection)
            if len(self.by_age) > IDLE_LIMIT:
                self.by_age.end_oldest()
        post.end(self._report(post, found))

    def close_idle(self, connection: Connection) -> None:
        idle = self._idle[connection.origin]
        del idle[connection]
        if not idle:
            del self._idle[connection.origin]
        connection.abort()

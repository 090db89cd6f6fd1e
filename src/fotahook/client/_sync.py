"""The synchronous transport: runs flows in the calling thread, over urllib3 connections that keep a deadline.

urllib3's own pool is not used: its retries and redirects, which never happen here, cost an eighth of a call.
"""

import io
import os
import re
import selectors
import socket
import threading
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from http.client import HTTPException, HTTPResponse
from typing import Any
from urllib.parse import urlsplit

from urllib3 import BaseHTTPResponse
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError

from ..contract.errors import MAX_BODY, ConnectionFailed, body_too_large
from ..contract.exchange import Headers, Reply, Request, Secret
from ._runtime import Runtime, Send, Transport, timed_out, transport_error
from ._settings import Settings, proxy_for

# Idle connections kept for one origin; more are opened if more threads call at once.
MAX_IDLE = 64
# Bytes of a response's head, interim responses included, and how many of these there may be.
MAX_HEAD = 256 * 1024
MAX_INTERIM = 10
# The seconds that an address has for itself before the next one is tried beside it (RFC 8305).
HEAD_START = 0.25
CHUNK = 64 * 1024
_LIBRARY_ERRORS = (HTTPError, HTTPException, OSError, ArithmeticError, ValueError)


class Exchange:
    """What a connection and its response know of the exchange in progress."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self.monotonic = monotonic
        self.begin(0.0)

    def begin(self, deadline: float) -> None:
        self.deadline, self.received, self.in_head = deadline, 0, True

    def time_left(self) -> float:
        """Seconds until the deadline; TimeoutError behind it."""
        left = self.deadline - self.monotonic()
        if left <= 0:
            raise TimeoutError("the deadline has passed")
        return left


class _Reader(io.RawIOBase):
    """Reads from a socket until the deadline: a socket's own timeout begins anew with each byte."""

    def __init__(self, sock: socket.socket, exchange: Exchange) -> None:
        self._sock, self._exchange = sock, exchange
        # Keeps the socket open until the response is closed.
        self._file = sock.makefile("rb", buffering=0)

    def makefile(self, _: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        exchange = self._exchange
        self._sock.settimeout(exchange.time_left())
        count = self._file.readinto(buffer)
        if exchange.in_head:
            if not count and exchange.received:
                # http.client takes the end of the connection for the end of the head.
                raise ConnectionResetError("the response is incomplete")
            exchange.received += count or 0
            if exchange.received > MAX_HEAD:
                raise HTTPException(f"a head of more than {MAX_HEAD} bytes")
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


class Response(HTTPResponse):
    """http.client's response, read until the deadline, and where http.client would guess how a body ends, an error."""

    def __init__(self, exchange: Exchange, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(_Reader(sock, exchange), *args, **kwargs)  # type: ignore[arg-type]  # all that it needs of one
        self._exchange = exchange

    def begin(self, *args: Any, **kwargs: Any) -> None:
        for _ in range(MAX_INTERIM + 1):
            super().begin(*args, **kwargs)
            self._check_head()
            if not 100 <= self.status < 200 or self.status == 101:
                self._exchange.in_head = False
                return
            self.headers = self.msg = None  # type: ignore[assignment]  # as before begin()
        raise HTTPException(f"more than {MAX_INTERIM} interim responses")

    def _check_head(self) -> None:
        headers = self.headers
        # http.client leaves out a line that is no header, and all that follow it.
        if headers.defects or headers.get_payload():
            raise HTTPException("invalid header")
        coding, lengths = headers.get("transfer-encoding"), headers.get_all("content-length")
        if coding is not None and (lengths or coding.lower() != "chunked"):
            raise HTTPException("a transfer coding other than chunked, or one beside a content length")
        # int() is slow for very long numbers; 19 digits are more than any limit.
        if lengths and not (len(lengths) == 1 and re.fullmatch("[0-9]{1,19}", lengths[0].strip())):
            raise HTTPException("an invalid content length, or several")

    def _read_next_chunk_size(self) -> int:
        # http.client takes `-1`, which reads without a limit, `+5` and `0x_1`.
        size = self.fp.readline(CHUNK).partition(b";")[0].strip()
        if not size:
            raise ConnectionResetError("the response is incomplete")
        if not re.fullmatch(b"[0-9A-Fa-f]{1,16}", size):
            raise HTTPException("invalid chunk size")
        return int(size, 16)


class Connection(HTTPConnection):
    """Connects to the first address that answers, and sends, within the deadline of its exchange."""

    def __init__(self, host: str, port: int, exchange: Exchange, **options: Any) -> None:
        super().__init__(host, port, timeout=None, **options)
        self.exchange = exchange
        self.response_class = partial(Response, exchange)  # type: ignore[assignment]  # called like a class

    def send(self, data: Any) -> None:
        for start in range(0, len(data), CHUNK):
            self.sock.settimeout(self.exchange.time_left())
            self.sock.sendall(data[start : start + CHUNK])

    def _new_conn(self) -> socket.socket:
        # The method that urllib3 documents for connecting in another way.
        found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        connection = _connect_any(deque(found), self.exchange)
        connection.settimeout(self.exchange.time_left())
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection


class TlsConnection(Connection, HTTPSConnection): ...


def _connect_any(addresses: deque[Any], exchange: Exchange) -> socket.socket:
    """A connection to the first address that takes one; each is tried a moment after the one before."""
    failure = OSError("the host has no address")
    with selectors.DefaultSelector() as selector:
        try:
            while addresses or selector.get_map():
                if addresses:
                    family, kind, protocol, _, address = addresses.popleft()
                    connection = socket.socket(family, kind, protocol)
                    connection.setblocking(False)
                    selector.register(connection, selectors.EVENT_WRITE)
                    with suppress(BlockingIOError):
                        connection.connect(address)
                # An hour, because selectors refuse very long waits.
                left = min(exchange.time_left(), 3600.0)
                for key, _ in selector.select(min(left, HEAD_START) if addresses else left):
                    connection = selector.unregister(key.fileobj).fileobj  # type: ignore[assignment]
                    code = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                    if code == 0:
                        return connection
                    connection.close()
                    failure = OSError(code, os.strerror(code))
        finally:
            for key in list(selector.get_map().values()):
                key.fileobj.close()  # type: ignore[union-attr]
    raise failure


class Pool:
    """The connections to one origin. No lock is needed: the operations of a deque are atomic."""

    def __init__(self, origin: str, settings: Settings, runtime: Runtime) -> None:
        self._monotonic = runtime.monotonic
        self._origin = parts = urlsplit(origin)
        self._proxy = proxy = proxy_for(origin, settings.proxy)
        self._tls = settings.ssl_context() if parts.scheme == "https" else None
        self._idle: deque[Connection] = deque()
        self.drop_idle = partial(_close_all, self._idle)
        # Also closes the connections that were in use when the client was closed, or that are of one that never was.
        weakref.finalize(self, self.drop_idle)
        # A forwarding proxy needs the full URL in the request line, a server only the path.
        self.absolute_url = proxy is not None and self._tls is None
        login = proxy and proxy.authorization
        self._proxy_login = {"Proxy-Authorization": Secret(login)} if login else {}
        self.secrets = self._proxy_login if self.absolute_url else {}

    def get(self) -> Connection:
        """The connection used last if it is still open, or one that is not connected yet."""
        with suppress(IndexError):
            while True:
                found = self._idle.pop()
                if found.is_connected:
                    return found
                found.close()
        host, port = self._origin.hostname or "", self._origin.port or (443 if self._tls else 80)
        address = (self._proxy.host, self._proxy.port) if self._proxy else (host, port)
        if self._tls is None:
            return Connection(*address, Exchange(self._monotonic))
        connection = TlsConnection(*address, Exchange(self._monotonic), ssl_context=self._tls)
        if self._proxy is not None:
            connection.set_tunnel(host, port, {name: login.reveal() for name, login in self._proxy_login.items()})
        return connection

    def put(self, connection: Connection) -> None:
        if len(self._idle) < MAX_IDLE:
            self._idle.append(connection)
        else:
            connection.close()


def _close_all(idle: deque[Connection]) -> None:
    # Another thread may take the last one.
    with suppress(IndexError):
        while True:
            idle.pop().close()


class SyncTransport(Transport):
    """Runs the flows of one client; any number of threads may share it."""

    def __init__(self, settings: Settings, runtime: Runtime) -> None:
        super().__init__(settings, runtime)
        self._pools: dict[str, Pool] = {}
        self._locks: dict[object, threading.Lock] = {}
        _live.add(self)

    async def close(self) -> None:
        await super().close()
        self.reset()

    def reset(self) -> None:
        """Drop the connections; in a child process, also the locks that the parent's threads may hold."""
        pools, self._pools, self._locks = self._pools, {}, {}
        for pool in list(pools.values()):
            pool.drop_idle()

    async def sleep(self, seconds: float) -> None:
        self._runtime.sleep(seconds)

    async def acquire(self, token: object, deadline: float) -> Callable[[], None]:
        lock = self._locks.get(token) or self._locks.setdefault(token, threading.Lock())
        if not lock.acquire(timeout=max(deadline - self._runtime.monotonic(), 0)):
            raise timed_out(None)
        return lock.release

    async def invoke(self, function: Callable[[Any], object], argument: object, deadline: float) -> Any:
        result = function(argument)
        if hasattr(result, "__await__"):
            result.close() if hasattr(result, "close") else None
            raise TypeError("Client takes plain functions; coroutine functions are for AsyncClient")
        return result

    async def send(self, send: Send, deadline: float) -> Reply:
        request = send.request
        path = request.url.index("/", 8)
        origin = request.url[:path]
        pool = self._pools.get(origin) or self._pools.setdefault(origin, Pool(origin, self._settings, self._runtime))
        connection = pool.get()
        connection.exchange.begin(deadline)
        kept = not connection.is_closed
        try:
            if not kept:
                connection.connect()
            target = request.url if pool.absolute_url else request.url[path:]
            # No local variable holds the headers, which error trackers would show.
            raw = {"preload_content": False, "decode_content": False}
            connection.request(request.method, target, send.body, send.revealed(pool.secrets), **raw)
            response = connection.getresponse()
            if send.streamed and 200 <= response.status < 300:
                stream = SyncStream(connection, response, request)
                self._streams.add(stream)
                return _reply(response, b"", stream)
            reply = _read_all(response, request)
        except _LIBRARY_ERRORS as error:
            connection.close()
            failure = transport_error(error, request, late=self._runtime.monotonic() >= deadline)
            if kept and not connection.exchange.received and isinstance(failure, ConnectionFailed):
                # The others are as old.
                pool.drop_idle()
                failure.kept_connection = True
            raise failure from error
        except BaseException:
            connection.close()
            raise
        pool.put(connection)
        return reply


class SyncStream:
    def __init__(self, connection: Connection, response: BaseHTTPResponse, request: Request) -> None:
        self._response, self._request, self._exchange = response, request, connection.exchange
        # Also closes the connection of a stream that is garbage-collected without being closed.
        self.close = weakref.finalize(self, _shut_down, connection, response)

    async def read(self, seconds: float) -> bytes:
        self._exchange.deadline = self._exchange.monotonic() + seconds
        try:
            return self._response.read1(CHUNK) or b""
        except _LIBRARY_ERRORS as error:
            late = self._exchange.monotonic() >= self._exchange.deadline
            raise transport_error(error, self._request, late=late) from error


def _shut_down(connection: Connection, response: BaseHTTPResponse) -> None:
    if connection.sock is not None:
        with suppress(OSError):
            connection.sock.shutdown(socket.SHUT_RDWR)
    response.close()
    connection.close()


def _reply(response: BaseHTTPResponse, body: bytes, stream: object = None) -> Reply:
    return Reply(response.status, response.reason or "", Headers(response.headers.items()), body, stream)


def _read_all(response: BaseHTTPResponse, request: Request) -> Reply:
    try:
        body = response.read(MAX_BODY + 1)
        # A read may return less than is there. At the end it returns nothing, or raises if the body is incomplete.
        while response.length_remaining != 0 and len(body) <= MAX_BODY and (more := response.read(MAX_BODY + 1)):
            body += more
        if len(body) > MAX_BODY:
            raise body_too_large(request, _reply(response, body))
        return _reply(response, body)
    except BaseException:
        response.close()
        raise


_live: "weakref.WeakSet[SyncTransport]" = weakref.WeakSet()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: [*map(SyncTransport.reset, [*_live])])

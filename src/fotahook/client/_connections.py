"""urllib3 connections with a deadline, and a pool of them for each origin.

urllib3 implements HTTP and TLS. Its own pools are not used: their bookkeeping for retries and redirects, which never
happen here, costs a tenth of a call.
"""

import socket
import ssl
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from urllib3.connection import HTTPConnection, HTTPSConnection

from ..contract.proxy import Proxy
from ._response_parser import StrictResponse
from ._settings import TransportOptions, proxy_for

# Idle connections kept for one origin; more are opened if more threads call at once.
MAX_IDLE = 64


class _Exchange(threading.local):
    """The current exchange of this thread: its deadline, and whether a body follows the headers."""

    deadline = 0.0
    has_body = False


exchange = _Exchange()


def _time_left() -> float:
    left = exchange.deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("the deadline has passed")
    return left


class _Socket(socket.socket):
    """A socket that sets its timeout to the time left before each operation; a fixed one restarts with each byte."""

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        self.settimeout(_time_left())
        return super().recv_into(*args, **kwargs)

    def sendall(self, *args: Any) -> None:
        self.settimeout(_time_left())
        super().sendall(*args)


class TlsSocket(ssl.SSLSocket):
    """The same over TLS, where sendall() calls send() repeatedly."""

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        self.settimeout(_time_left())
        return super().recv_into(*args, **kwargs)

    def send(self, *args: Any, **kwargs: Any) -> int:
        self.settimeout(_time_left())
        return super().send(*args, **kwargs)


class Connection(HTTPConnection):
    """Tries all addresses of the host within the deadline; sends headers and body in one piece."""

    response_class = StrictResponse
    _unsent: bytes | None = None

    def endheaders(self, *args: Any, **kwargs: Any) -> None:
        self._unsent = b"" if exchange.has_body else None
        super().endheaders(*args, **kwargs)

    def send(self, data: Any) -> None:
        if self._unsent == b"":
            self._unsent = data
            return
        head, self._unsent = self._unsent, None
        super().send(head + data if head else data)

    def _new_conn(self) -> socket.socket:
        # The method that urllib3 documents for overriding the socket class.
        failure: OSError | None = None
        for family, kind, number, _, address in socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM):
            connection = _Socket(family, kind, number)
            try:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection.settimeout(_time_left())
                connection.connect(address)
                connection.settimeout(_time_left())
                return connection
            except OSError as error:
                connection.close()
                failure = error
            except BaseException:
                connection.close()
                raise
        raise failure or OSError(f"{self.host} has no address")


class TlsConnection(Connection, HTTPSConnection):
    """The same over TLS."""


class Pool:
    """The connections to one origin. No lock is needed: the operations of a deque are atomic."""

    def __init__(self, origin: str, options: TransportOptions) -> None:
        self._proxy = proxy_for(origin, options.proxy)
        self._connect = _connector(origin, self._proxy, options)
        self._idle: deque[Connection] = deque()
        self._closed = False
        # Also closes the connections of a client that is garbage-collected without being closed.
        weakref.finalize(self, _close_all, self._idle)
        # A forwarding proxy needs the full URL in the request line, a server only the path.
        self.absolute_url = self._proxy is not None and origin.startswith("http:")
        self.headers = _proxy_headers(self._proxy) if self.absolute_url else {}

    def get(self) -> Connection:
        """The connection used last if it is still open, or a new one."""
        while self._idle:
            try:
                found = self._idle.pop()
            except IndexError:
                break
            if found.is_connected:
                return found
            found.close()
        return self._connect()

    def put(self, connection: Connection) -> None:
        """Keep a connection whose response was read completely."""
        if len(self._idle) < MAX_IDLE:
            self._idle.append(connection)
        else:
            connection.close()
        if self._closed:
            self.close()

    def close(self) -> None:
        """Close the idle connections, and each other one when it is returned."""
        self._closed = True
        _close_all(self._idle)


def _close_all(idle: deque[Connection]) -> None:
    # Another thread may take the last one.
    with suppress(IndexError):
        while True:
            idle.pop().close()


def _connector(origin: str, proxy: Proxy | None, options: TransportOptions) -> Callable[[], Connection]:
    parts = urlsplit(origin)
    assert parts.hostname
    host, tls = parts.hostname, parts.scheme == "https"
    port = parts.port or (443 if tls else 80)
    if not tls:
        address = (host, port) if proxy is None else (proxy.host, proxy.port)
        return lambda: Connection(*address, timeout=None)
    context = options.ssl_context()
    context.sslsocket_class = TlsSocket
    if proxy is None:
        return lambda: TlsConnection(host, port, ssl_context=context, timeout=None)

    def tunnel() -> Connection:
        connection = TlsConnection(proxy.host, proxy.port, ssl_context=context, timeout=None)
        connection.set_tunnel(host, port, _proxy_headers(proxy))
        return connection

    return tunnel


def _proxy_headers(proxy: Proxy | None) -> dict[str, str]:
    authorization = proxy.authorization if proxy is not None else None
    return {"Proxy-Authorization": authorization} if authorization else {}

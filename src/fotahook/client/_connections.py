"""Connections of urllib3's, bounded by a deadline, and those of them that wait for the next call.

urllib3 speaks HTTP and TLS; its pools are left out, since their bookkeeping for retries and redirects that are never
wanted here costs a tenth of a call.
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

from ._edge import context_for
from ._environment import proxy_for
from ._head import StrictResponse
from ._proxy import Proxy
from ._settings import Connecting

# Idle connections kept to one server; more are opened when more threads call at once.
IDLE = 64


class _Exchange(threading.local):
    """The exchange that this thread is in: its deadline, and whether a body follows the headers."""

    deadline = 0.0
    has_body = False


exchange = _Exchange()


def _time_left() -> float:
    left = exchange.deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("the deadline has passed")
    return left


class _Socket(socket.socket):
    """A socket whose every operation has what is left of the exchange: its own timeout begins anew with each byte."""

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        self.settimeout(_time_left())
        return super().recv_into(*args, **kwargs)

    def sendall(self, *args: Any) -> None:
        self.settimeout(_time_left())
        super().sendall(*args)


class TlsSocket(ssl.SSLSocket):
    """The same over TLS, where sendall() is made of many send()."""

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        self.settimeout(_time_left())
        return super().recv_into(*args, **kwargs)

    def send(self, *args: Any, **kwargs: Any) -> int:
        self.settimeout(_time_left())
        return super().send(*args, **kwargs)


class Connection(HTTPConnection):
    """Connects within the deadline, however many addresses the name has, and sends headers and body in one piece."""

    response_class = StrictResponse
    _held: bytes | None = None

    def endheaders(self, *args: Any, **kwargs: Any) -> None:
        self._held = b"" if exchange.has_body else None
        super().endheaders(*args, **kwargs)

    def send(self, data: Any) -> None:
        if self._held == b"":
            self._held = data
            return
        held, self._held = self._held, None
        super().send(held + data if held else data)

    def _new_conn(self) -> socket.socket:
        # urllib3 names this method as the one to replace for sockets of another kind.
        failure: OSError | None = None
        for family, kind, number, _, address in socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM):
            made = _Socket(family, kind, number)
            try:
                made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                made.settimeout(_time_left())
                made.connect(address)
                made.settimeout(_time_left())
                return made
            except OSError as error:
                made.close()
                failure = error
            except BaseException:
                made.close()
                raise
        raise failure or OSError(f"{self.host} has no address")


class TlsConnection(Connection, HTTPSConnection):
    """The same over TLS."""


class Pool:
    """The connections to one origin. Taking and giving back need no lock: a deque's own operations are atomic."""

    def __init__(self, origin: str, connecting: Connecting) -> None:
        self._proxy = proxy_for(origin, connecting.proxy)
        self._connect = _connector(origin, self._proxy, connecting)
        self._idle: deque[Connection] = deque()
        self._closed = False
        # A client that is dropped without being closed leaves nothing open.
        weakref.finalize(self, _close_all, self._idle)
        # A proxy that forwards is told the whole URL, all others its path.
        self.whole_url = self._proxy is not None and origin.startswith("http:")
        self.headers = _proxy_headers(self._proxy) if self.whole_url else {}

    def take(self) -> Connection:
        """A connection, the one used last if it is still open."""
        while self._idle:
            try:
                found = self._idle.pop()
            except IndexError:
                break
            if found.is_connected:
                return found
            found.close()
        return self._connect()

    def give(self, connection: Connection) -> None:
        """Keep a connection whose answer was read to its end."""
        if len(self._idle) < IDLE:
            self._idle.append(connection)
        else:
            connection.close()
        if self._closed:
            self.close()

    def close(self) -> None:
        """Close the idle ones, and from now on each that comes back."""
        self._closed = True
        _close_all(self._idle)


def _close_all(idle: deque[Connection]) -> None:
    # Another thread may take the last one.
    with suppress(IndexError):
        while True:
            idle.pop().close()


def _connector(origin: str, proxy: Proxy | None, connecting: Connecting) -> Callable[[], Connection]:
    parts = urlsplit(origin)
    assert parts.hostname
    host, tls = parts.hostname, parts.scheme == "https"
    port = parts.port or (443 if tls else 80)
    if not tls:
        place = (host, port) if proxy is None else (proxy.host, proxy.port)
        return lambda: Connection(*place, timeout=None)
    context = context_for(connecting)
    context.sslsocket_class = TlsSocket
    if proxy is None:
        return lambda: TlsConnection(host, port, ssl_context=context, timeout=None)

    def tunnel() -> Connection:
        made = TlsConnection(proxy.host, proxy.port, ssl_context=context, timeout=None)
        made.set_tunnel(host, port, _proxy_headers(proxy))
        return made

    return tunnel


def _proxy_headers(proxy: Proxy | None) -> dict[str, str]:
    known = proxy.authorization if proxy is not None else None
    return {"Proxy-Authorization": known} if known else {}

"""Does: sends over urllib3 what a flow decides, in the calling thread."""

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from ..contract.errors import FotahookError, TimedOut
from ..contract.exchange import Headers, Reply, Request
from ._edge import MAX_BODY, context_for, too_large, translated
from ._environment import proxy_for
from ._settings import Connecting
from ._steps import Ask, Flow, Hold, Pause, Send, Step

T = TypeVar("T")

# Idle connections kept to one server; more are opened when more threads call at once.
POOL_SIZE = 64
_NO_RETRIES = urllib3.Retry(False, redirect=False)


class _Exchange(threading.local):
    """The deadline of the exchange that this thread is in."""

    deadline = 0.0


_exchange = _Exchange()


def _time_left() -> float:
    left = _exchange.deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("the deadline has passed")
    return left


class _Socket(socket.socket):
    """A socket whose every operation has what is left of the exchange: its own timeout begins anew with each byte."""

    def recv_into(self, *args, **kwargs) -> int:  # type: ignore[no-untyped-def]
        self.settimeout(_time_left())
        return super().recv_into(*args, **kwargs)

    def sendall(self, *args) -> None:  # type: ignore[no-untyped-def]
        self.settimeout(_time_left())
        super().sendall(*args)


class _TlsSocket(ssl.SSLSocket):
    """The same over TLS, where sendall() is made of many send()."""

    def recv_into(self, *args, **kwargs) -> int:  # type: ignore[no-untyped-def]
        self.settimeout(_time_left())
        return super().recv_into(*args, **kwargs)

    def send(self, *args, **kwargs) -> int:  # type: ignore[no-untyped-def]
        self.settimeout(_time_left())
        return super().send(*args, **kwargs)


class _Connect:
    """Connects within the deadline, however many addresses the name has."""

    host: str
    port: int

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


class _Plain(_Connect, HTTPConnection):
    pass


class _Tls(_Connect, HTTPSConnection):
    pass


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _Plain


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _Tls


class Transport:
    """Connection pools, one for each origin, and the driver of flows over them."""

    def __init__(self, connecting: Connecting, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self._connecting = connecting
        self._sleep = sleep
        self._lock = threading.Lock()
        self._pools: dict[str, tuple[HTTPConnectionPool, bool]] = {}

    def drive(self, steps: Flow[T], deadline: float) -> T:
        """What the flow comes to; what it raises."""
        try:
            step = next(steps)
            while True:
                try:
                    answer = self._do(step, deadline)
                except BaseException as error:
                    # KeyboardInterrupt too: the flow may hold a lock.
                    step = steps.throw(error)
                else:
                    step = steps.send(answer)
        except StopIteration as done:
            result: T = done.value
            return result

    def close(self) -> None:
        """Close all idle connections; those in use close when their exchange ends."""
        with self._lock:
            pools, self._pools = self._pools, {}
        for pool, _ in pools.values():
            pool.close()

    def _do(self, step: Step, deadline: float) -> object:
        if isinstance(step, Send):
            return self._send(step, deadline)
        if isinstance(step, Pause):
            self._sleep(step.seconds)
            return None
        if isinstance(step, Hold):
            _acquire(step, deadline)
            return None
        return _ask(step)

    def _send(self, step: Send, deadline: float) -> Reply:
        request = step.request
        pool, absolute = self._pool(request)
        _exchange.deadline = deadline
        try:
            response = pool.urlopen(
                request.method,
                request.url if absolute else _target(request.url),
                body=step.body,
                headers=step.headers,
                retries=_NO_RETRIES,
                redirect=False,
                assert_same_host=False,
                preload_content=False,
                decode_content=False,
            )
            return _whole(response, request)
        except FotahookError:
            raise
        except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError, ArithmeticError, ValueError) as error:
            raise translated(error, request, late=time.monotonic() >= deadline) from error

    def _pool(self, request: Request) -> tuple[HTTPConnectionPool, bool]:
        origin = request.url[: request.url.index("/", 8)]
        found = self._pools.get(origin)
        if found is None:
            with self._lock:
                found = self._pools.get(origin) or self._pools.setdefault(origin, self._new_pool(origin))
        return found

    def _new_pool(self, origin: str) -> tuple[HTTPConnectionPool, bool]:
        """A pool for an origin, and whether its requests name the whole URL: over a proxy in plain text they do."""
        proxy = proxy_for(origin, self._connecting.proxy)
        tls = origin.startswith("https:")
        context = context_for(self._connecting) if tls else None
        if context is not None:
            context.sslsocket_class = _TlsSocket
        manager: urllib3.PoolManager
        if proxy is None:
            manager = urllib3.PoolManager(maxsize=POOL_SIZE, ssl_context=context)
        else:
            basic = urllib3.make_headers(proxy_basic_auth=proxy.basic) if proxy.basic else None
            manager = urllib3.ProxyManager(proxy.url, proxy_headers=basic, maxsize=POOL_SIZE, ssl_context=context)
        manager.pool_classes_by_scheme = {"http": _PlainPool, "https": _TlsPool}
        return manager.connection_from_url(origin), proxy is not None and not tls


def _target(url: str) -> str:
    return url[url.index("/", 8) :]


def _whole(response: urllib3.BaseHTTPResponse, request: Request) -> Reply:
    """The reply with all of its body; the connection goes back to its pool, or is closed where that is not certain."""
    try:
        body = response.read(MAX_BODY + 1)
        headers = Headers(response.headers.items())
        reply = Reply(response.status, response.reason or "", headers, body)
        if len(body) > MAX_BODY:
            raise too_large(request, reply)
    except BaseException:
        response.close()
        raise
    response.release_conn()
    return reply


def _acquire(step: Hold, deadline: float) -> None:
    lock = step.lock
    assert isinstance(lock, type(threading.Lock()))
    if not lock.acquire(timeout=max(deadline - time.monotonic(), 0)):
        raise TimedOut("the deadline passed while another call was fetching the token")


def _ask(step: Ask) -> object:
    answer = step.function(step.argument)
    if hasattr(answer, "__await__"):
        answer.close() if hasattr(answer, "close") else None
        raise TypeError("Client takes plain functions; coroutine functions are for AsyncClient")
    return answer

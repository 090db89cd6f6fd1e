"""The synchronous transport: runs flows over urllib3 in the calling thread."""

import http.client
import os
import socket
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from urllib3 import BaseHTTPResponse
from urllib3.exceptions import HTTPError

from ..contract.error_responses import MAX_BODY, body_too_large
from ..contract.errors import ConnectionFailed
from ..contract.exchange import Headers, Reply, Request
from ._connections import CHUNK, Connection, Pool
from ._runtime import Runtime, Send, Stream, Transport
from ._settings import Settings
from ._transport_errors import timed_out, transport_error

_LIBRARY_ERRORS = (HTTPError, http.client.HTTPException, OSError, ArithmeticError, ValueError)


class SyncTransport(Transport):
    """Runs the flows of one client; any number of threads may share it."""

    def __init__(self, settings: Settings, runtime: Runtime) -> None:
        self._settings, self._runtime = settings, runtime
        self._streams: weakref.WeakSet[SyncStream] = weakref.WeakSet()
        self._pools: dict[str, Pool] = {}
        self._locks: dict[object, threading.Lock] = {}
        self._closed = False
        _live.add(self)

    def begin(self) -> None:
        if self._closed:
            raise RuntimeError("the client is closed")

    async def close(self) -> None:
        """Close the streams and idle connections; one in use is closed when it is returned."""
        self._closed = True
        for stream in list(self._streams):
            stream.close()
        self._close_pools()

    def after_fork(self) -> None:
        """In a child process: drop the parent's connections, and locks that its threads may hold."""
        self._locks = {}
        self._close_pools()

    def _close_pools(self) -> None:
        pools, self._pools = self._pools, {}
        for pool in list(pools.values()):
            pool.close()

    async def sleep(self, seconds: float) -> None:
        self._runtime.sleep(seconds)

    async def acquire(self, token: object, deadline: float) -> threading.Lock:
        lock = self._locks.get(token) or self._locks.setdefault(token, threading.Lock())
        if not lock.acquire(timeout=max(deadline - self._runtime.monotonic(), 0)):
            raise timed_out(None)
        return lock

    async def invoke(self, function: Callable[[Any], object], argument: object, deadline: float) -> Any:
        result = function(argument)
        if hasattr(result, "__await__"):
            result.close() if hasattr(result, "close") else None
            raise TypeError("Client takes plain functions; coroutine functions are for AsyncClient")
        return result

    async def send(self, send: Send, deadline: float) -> Reply:
        request = send.request
        path = request.url.index("/", 8)
        pool = self._pool(request.url[:path])
        connection = pool.get()
        connection.exchange.begin(deadline)
        kept = not connection.is_closed
        try:
            if not kept:
                connection.connect()
            target = request.url if pool.absolute_url else request.url[path:]
            # No local variable holds the headers, which error trackers would show.
            connection.request(
                request.method,
                target,
                send.body,
                send.revealed(pool.secrets),
                preload_content=False,
                decode_content=False,
            )
            response = connection.getresponse()
            if send.streamed and 200 <= response.status < 300:
                stream = SyncStream(connection, response, request, self._runtime.monotonic)
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

    def _pool(self, origin: str) -> Pool:
        return self._pools.get(origin) or self._pools.setdefault(
            origin, Pool(origin, self._settings, self._runtime.monotonic)
        )


class SyncStream(Stream):
    """The body of a streamed response, on a connection of its own."""

    def __init__(
        self,
        connection: Connection,
        response: BaseHTTPResponse,
        request: Request,
        monotonic: Callable[[], float],
    ) -> None:
        self._response, self._request, self._monotonic = response, request, monotonic
        self._exchange = connection.exchange
        # Also closes the connection of a stream that is garbage-collected without being closed.
        self._close = weakref.finalize(self, _shut_down, connection, response)

    async def read(self, seconds: float) -> bytes:
        deadline = self._exchange.deadline = self._monotonic() + seconds
        try:
            return self._response.read1(CHUNK) or b""
        except _LIBRARY_ERRORS as error:
            raise transport_error(error, self._request, late=self._monotonic() >= deadline) from error

    def close(self) -> None:
        self._close()


def _shut_down(connection: Connection, response: BaseHTTPResponse) -> None:
    if connection.sock is not None:
        with suppress(OSError):
            connection.sock.shutdown(socket.SHUT_RDWR)
    response.close()
    connection.close()


def _reply(response: BaseHTTPResponse, body: bytes, stream: object = None) -> Reply:
    return Reply(response.status, response.reason or "", Headers(response.headers.items()), body, stream)


def _read_all(response: BaseHTTPResponse, request: Request) -> Reply:
    """The reply with its whole body, after which the connection can be reused."""
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


def _after_fork() -> None:
    for transport in list(_live):
        transport.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

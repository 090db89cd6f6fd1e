"""Does: sends over urllib3 what a flow decides, in the calling thread."""

import http.client
import socket
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from urllib3 import BaseHTTPResponse
from urllib3.exceptions import HTTPError

from ..contract.errors import TimedOut
from ..contract.exchange import Headers, Reply, Request
from ._connections import Connection, Pool, exchange
from ._edge import MAX_BODY, too_large, translated
from ._settings import Connecting
from ._steps import Ask, Flow, Hold, Pause, Send, Step

T = TypeVar("T")

PIECE = 64 * 1024

_FOREIGN = (HTTPError, http.client.HTTPException, OSError, ArithmeticError, ValueError)


class Transport:
    """Connection pools, one for each origin, and the driver of flows over them."""

    def __init__(self, connecting: Connecting, sleep: Callable[[float], None]) -> None:
        self._connecting = connecting
        self._sleep = sleep
        self._opening = threading.Lock()
        self._pools: dict[str, Pool] = {}
        self._streams: weakref.WeakSet[SyncStream] = weakref.WeakSet()

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
        """Close all idle connections, and streams; one in use is closed when it comes back."""
        for stream in list(self._streams):
            stream.close()
        with self._opening:
            pools, self._pools = self._pools, {}
        for pool in pools.values():
            pool.close()

    def abandon(self) -> None:
        """Let go of the connections in a forked child, where a lock may be held by a thread that is not there."""
        for pool in self._pools.values():
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
        exchange.deadline, exchange.has_body = deadline, bool(step.body)
        request = step.request
        path = request.url.index("/", 8)
        pool = self._pool(request.url[:path])
        connection = pool.take()
        try:
            target = request.url if pool.whole_url else request.url[path:]
            headers = {**step.headers, **pool.headers} if pool.headers else step.headers
            response = _answered(connection, request, target, step.body, headers)
            if step.streamed and 200 <= response.status < 300:
                stream = SyncStream(connection, response, request)
                self._streams.add(stream)
                return _reply(response, b"", stream)
            reply = _whole(response, request)
        except _FOREIGN as error:
            connection.close()
            raise translated(error, request, late=time.monotonic() >= deadline) from error
        except BaseException:
            connection.close()
            raise
        pool.give(connection)
        return reply

    def _pool(self, origin: str) -> Pool:
        found = self._pools.get(origin)
        if found is None:
            with self._opening:
                found = self._pools.get(origin) or self._pools.setdefault(origin, Pool(origin, self._connecting))
        return found


class SyncStream:
    """The body of an answer that goes on, on a connection of its own."""

    def __init__(self, connection: Connection, response: BaseHTTPResponse, request: Request) -> None:
        self._response, self._request = response, request
        # One that is dropped without being closed leaves nothing open.
        self._close = weakref.finalize(self, _shut, connection, response)

    def read(self, seconds: float) -> bytes:
        """What has come, or comes within so many seconds; empty at the end."""
        exchange.deadline = time.monotonic() + seconds
        try:
            return self._response.read1(PIECE) or b""
        except _FOREIGN as error:
            raise translated(error, self._request, late=time.monotonic() >= exchange.deadline) from error

    def close(self) -> None:
        """Close the connection; somebody who reads from it in another thread is at its end."""
        self._close()


def _shut(connection: Connection, response: BaseHTTPResponse) -> None:
    if connection.sock is not None:
        with suppress(OSError):
            connection.sock.shutdown(socket.SHUT_RDWR)
    response.close()
    connection.close()


def _answered(
    connection: Connection, request: Request, target: str, body: bytes | None, headers: dict[str, str]
) -> BaseHTTPResponse:
    connection.request(request.method, target, body, headers, preload_content=False, decode_content=False)
    return connection.getresponse()


def _reply(response: BaseHTTPResponse, body: bytes, stream: object = None) -> Reply:
    return Reply(response.status, response.reason or "", Headers(response.headers.items()), body, stream)


def _whole(response: BaseHTTPResponse, request: Request) -> Reply:
    """The reply with all of its body, which leaves the connection free for the next one."""
    try:
        return _read(response, request)
    except BaseException:
        response.close()
        raise


def _read(response: BaseHTTPResponse, request: Request) -> Reply:
    body = response.read(MAX_BODY + 1)
    # A read may come back with less. One that finds nothing says that this is the end, or raises that it is missing.
    while response.length_remaining != 0 and len(body) <= MAX_BODY and (more := response.read(MAX_BODY + 1)):
        body += more
    reply = _reply(response, body)
    if len(body) > MAX_BODY:
        raise too_large(request, reply)
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

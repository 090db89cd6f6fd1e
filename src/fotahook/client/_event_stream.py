"""The stream of `GET /v1/events`. A flow without I/O decides on cursor, reconnects and end; two drivers run it."""

from collections import deque
from collections.abc import AsyncIterator, Generator, Iterator
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

import msgspec

from ..contract.calls import Call, read_nothing
from ..contract.errors import ApiException, ConnectionFailed, FotahookError, ResponseError, TimedOut, TransportError
from ..contract.events import Event, EventReader
from ..contract.exchange import ApiResponse
from ..contract.operator_calls import query_string
from ._base import AsyncClosable, AsyncMethods, Closable, SyncMethods, response_of
from ._effects import Sleep, drive, drive_async
from ._retry import retry_delay
from ._settings import DEFAULT_TIMEOUT

if TYPE_CHECKING:
    from ._async import AsyncStream
    from ._flow import Limits, MakeFlow
    from ._sync import SyncStream

HEARTBEAT_TIMEOUT: Final = 45.0
"""Seconds of silence after which a connection counts as lost; the service sends something every 15 seconds."""


class Connect(msgspec.Struct, frozen=True):
    """Make the call that opens a stream, within so many seconds if given; the result is its response."""

    call: Call[None]
    seconds: float | None


class Read(msgspec.Struct, frozen=True):
    """Read from a stream, with TimedOut after so many seconds; the result is empty at its end."""

    stream: "SyncStream | AsyncStream"
    seconds: float


Effect: TypeAlias = Connect | Read | Sleep


class _EventFlow:
    """Events in order, across as many connections as it takes.

    A lost connection is made again and continues after the last event. The stream ends when it is closed, or after
    the `timeout` that was asked for.
    """

    def __init__(
        self,
        client: SyncMethods | AsyncMethods,
        account: str | None,
        after: str | None,
        timeout: float | None,
        max_retries: int | None,
    ) -> None:
        self._transport: Any = client._transport
        self._defaults = client._defaults
        self._runtime = client._transport.runtime
        self._account = account
        self._max_retries = max_retries
        self._deadline = None if timeout is None else self._runtime.monotonic() + timeout
        self._reader = EventReader(after)
        self._cursor = after
        self._events: deque[Event] = deque()
        self._stream: SyncStream | AsyncStream | None = None
        self._failures = 0
        self._was_connected = False
        self._ended = False

    @property
    def cursor(self) -> str | None:
        """The cursor of the last event that was returned; pass it as `after=` to continue."""
        return self._cursor

    def _next(self) -> Generator[Effect, Any, Event | None]:
        """The next event, None at the end."""
        while not self._events:
            left = None if self._deadline is None else self._deadline - self._runtime.monotonic()
            if self._ended or (left is not None and left <= 0):
                self._end()
                return None
            failure = None
            try:
                chunk = yield from self._read(left)
            except (ApiException, TransportError) as error:
                chunk, failure = b"", error
            if not chunk and not self._ended:
                yield from self._reconnect(failure, left)
        event = self._events.popleft()
        self._cursor = event.cursor
        return event

    def _connection(self, call: Call[None], seconds: float | None) -> "tuple[MakeFlow[ApiResponse[None]], Limits]":
        limits = self._defaults.limits(self._runtime.monotonic(), seconds, self._max_retries)
        return response_of(call).make_flow, limits

    def _end(self) -> None:
        self._ended = True
        self._disconnect()

    def _read(self, left: float | None) -> Generator[Effect, Any, bytes]:
        if self._stream is None:
            call = _events_call(self._account, self._reader.cursor)
            self._stream = _opened((yield Connect(call, None if left is None else min(left, DEFAULT_TIMEOUT))))
            self._was_connected = True
        chunk: bytes = yield Read(self._stream, HEARTBEAT_TIMEOUT if left is None else min(HEARTBEAT_TIMEOUT, left))
        try:
            self._events.extend(self._reader.read(chunk))
        except ValueError as error:
            raise ResponseError(f"an event breaks the contract: {error}") from error
        if chunk:
            self._failures = 0
        if not self._events:
            self._cursor = self._reader.cursor
        return chunk

    def _reconnect(self, failure: FotahookError | None, left: float | None) -> Generator[Effect, Any, None]:
        """Drop the connection and wait. A first connection that failed, or a refusal by the service, is final."""
        self._disconnect()
        if failure is not None and not self._was_connected:
            raise failure
        self._failures += 1
        if failure is None or isinstance(failure, TimedOut):
            failure = ConnectionFailed("the event stream ended")
        delay = retry_delay(failure, self._failures, now=self._runtime.now(), jitter=self._runtime.jitter())
        if delay is None:
            raise failure
        yield Sleep(delay if left is None else min(delay, left))

    def _disconnect(self) -> None:
        self._reader.reset()
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()


class EventStream(SyncMethods, _EventFlow, Closable, Iterator[Event]):
    """Events for a thread, as `OperatorClient.events` returns them; a context manager that closes at its end."""

    def __next__(self) -> Event:
        event = drive(self._next(), self._perform)
        if event is None:
            raise StopIteration
        return event

    def close(self) -> None:
        """End the stream; another thread may call this."""
        self._end()

    def _perform(self, effect: Effect) -> object:
        match effect:
            case Connect(call, seconds):
                return self._transport.run(*self._connection(call, seconds))
            case Read(stream, seconds):
                return cast("SyncStream", stream).read(seconds)
            case Sleep(seconds):
                self._runtime.sleep(seconds)
        return None


class AsyncEventStream(AsyncMethods, _EventFlow, AsyncClosable, AsyncIterator[Event]):
    """Events for a task, as `AsyncOperatorClient.events` returns them; a context manager that closes at its end."""

    async def __anext__(self) -> Event:
        event = await drive_async(self._next(), self._perform)
        if event is None:
            raise StopAsyncIteration
        return event

    async def aclose(self) -> None:
        """End the stream."""
        self._end()

    async def _perform(self, effect: Effect) -> object:
        match effect:
            case Connect(call, seconds):
                return await self._transport.run(*self._connection(call, seconds))
            case Read(stream, seconds):
                return await cast("AsyncStream", stream).read(seconds)
            case Sleep(seconds):
                await self._transport.sleep(seconds)
        return None


def _events_call(account: str | None, after: str | None) -> Call[None]:
    path = f"/v1/events{query_string(account=account, after=after)}"
    return Call("GET", None, path, read_nothing, headers=(("accept", "text/event-stream"),), streamed=True)


def _opened(response: "ApiResponse[SyncStream | AsyncStream]") -> "SyncStream | AsyncStream":
    kind = response.headers.get("content-type") or ""
    if not kind.startswith("text/event-stream"):
        response.data.close()
        raise ResponseError(f"{response.status_code} for the event stream, but of type {kind or 'unknown'}")
    return response.data

"""The stream of `GET /v1/events`. A flow decides on cursor, reconnects and end."""

from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Concatenate, Final, ParamSpec

import msgspec

from ..contract.calls import Call, query_string, read_nothing
from ..contract.errors import ApiException, ConnectionFailed, FotahookError, ResponseError, TimedOut, TransportError
from ..contract.events import Event, EventReader
from ..contract.exchange import ApiResponse
from ._base import AsyncClosable, AsyncMethods, Closable, Methods, SyncMethods, both
from ._retry import retry_delay
from ._runtime import Stream, run_now
from ._settings import CallDefaults

P = ParamSpec("P")

HEARTBEAT_TIMEOUT: Final = 45.0
"""Seconds of silence after which a connection counts as lost; the service sends something every 15 seconds."""


class Subscription(msgspec.Struct, frozen=True):
    """The arguments of `OperatorClient.events`."""

    account: str | None
    after: str | None
    timeout: float | None
    max_retries: int | None


class _EventFlow(Methods):
    """Events in order, across as many connections as it takes.

    A lost connection is made again and continues after the last event. The stream ends when it is closed, or after
    the `timeout` that was asked for.
    """

    def __init__(self, client: Methods, subscription: Subscription) -> None:
        super().__init__(client)
        self._runtime = client._pipeline.runtime
        self._account, self._max_retries = subscription.account, subscription.max_retries
        timeout = subscription.timeout
        self._deadline = None if timeout is None else self._runtime.monotonic() + timeout
        self._reader = EventReader(subscription.after)
        self._cursor = subscription.after
        self._events: deque[Event] = deque()
        self._stream: Stream | None = None
        self._failures = 0
        self._was_connected = False
        self._ended = False

    @property
    def cursor(self) -> str | None:
        """The cursor of the last event that was returned; pass it as `after=` to continue."""
        return self._cursor

    async def _next(self) -> Event:
        """The next event; StopAsyncIteration at the end."""
        while not self._events:
            left = None if self._deadline is None else self._deadline - self._runtime.monotonic()
            if self._ended or (left is not None and left <= 0):
                self._end()
                raise StopAsyncIteration
            failure = None
            try:
                chunk = await self._read(left)
            except (ApiException, TransportError) as error:
                chunk, failure = b"", error
            if not chunk and not self._ended:
                await self._reconnect(failure, left)
        event = self._events.popleft()
        self._cursor = event.cursor
        return event

    def _end(self) -> None:
        self._ended = True
        self._disconnect()

    async def _read(self, left: float | None) -> bytes:
        if self._stream is None:
            timeout = None if left is None else min(left, CallDefaults().timeout)
            self._stream = _opened(await self._perform(self._call(), timeout=timeout, max_retries=self._max_retries))
            self._was_connected = True
        seconds = HEARTBEAT_TIMEOUT if left is None else min(HEARTBEAT_TIMEOUT, left)
        chunk = await self._stream.read(seconds)
        try:
            self._events.extend(self._reader.read(chunk))
        except ValueError as error:
            raise ResponseError(f"an event breaks the contract: {error}") from error
        if chunk:
            self._failures = 0
        if not self._events:
            self._cursor = self._reader.cursor
        return chunk

    def _call(self) -> Call[None]:
        path = f"/v1/events{query_string(account=self._account, after=self._reader.cursor)}"
        return Call("GET", None, path, read_nothing, headers=(("accept", "text/event-stream"),), streamed=True)

    async def _reconnect(self, failure: FotahookError | None, left: float | None) -> None:
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
        await self._pipeline.transport.sleep(delay if left is None else min(delay, left))

    def _disconnect(self) -> None:
        self._reader.reset()
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()


class EventStream(_EventFlow, SyncMethods, Closable, Iterator[Event]):
    """Events for a thread, as `OperatorClient.events` returns them; a context manager that closes at its end."""

    def __next__(self) -> Event:
        try:
            return run_now(self._next())
        except StopAsyncIteration:
            raise StopIteration from None

    def close(self) -> None:
        """End the stream; another thread may call this."""
        self._end()


class AsyncEventStream(_EventFlow, AsyncMethods, AsyncClosable, AsyncIterator[Event]):
    """Events for a task, as `AsyncOperatorClient.events` returns them; a context manager that closes at its end."""

    async def __anext__(self) -> Event:
        return await self._next()

    async def aclose(self) -> None:
        """End the stream."""
        self._end()


def _opened(response: ApiResponse[Any]) -> Stream:
    kind = response.headers.get("content-type") or ""
    if not kind.startswith("text/event-stream"):
        response.data.close()
        raise ResponseError(f"{response.status_code} for the event stream, but of type {kind or 'unknown'}")
    stream: Stream = response.data
    return stream


def streamed(plan: Callable[Concatenate[Any, P], Subscription]) -> both[P, EventStream, AsyncEventStream]:
    """Decorates a method that returns a Subscription; the result is a method that returns its stream of events."""

    def method(client: SyncMethods, *args: P.args, **kwargs: P.kwargs) -> EventStream:
        return EventStream(client, plan(client, *args, **kwargs))

    def async_method(client: AsyncMethods, *args: P.args, **kwargs: P.kwargs) -> AsyncEventStream:
        return AsyncEventStream(client, plan(client, *args, **kwargs))

    return both(plan, method, async_method, return_annotation=EventStream)

"""What is iterated, for threads and for tasks: lists that come in pages, and the stream of `GET /v1/events`."""

import inspect
import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any, Concatenate, Final, Generic, ParamSpec, TypeAlias, TypeVar, get_args

import msgspec

from ..contract.calls import Call, query_string, read_nothing
from ..contract.errors import ApiException, ConnectionFailed, FotahookError, ResponseError, TimedOut, TransportError
from ..contract.events import Event, EventReader
from ..contract.exchange import ApiResponse
from ._base import AsyncClosable, AsyncMethods, Closable, Methods, SyncMethods, both, operation
from ._flow import retry_delay
from ._runtime import Stream, run_now
from ._settings import CallDefaults, Options

P = ParamSpec("P")
T = TypeVar("T")
PageT = TypeVar("PageT")

HEARTBEAT_TIMEOUT: Final = 45.0
"""Seconds of silence after which a connection counts as lost; the service sends something every 15 seconds."""


class Listing(msgspec.Struct, Generic[PageT, T], frozen=True):
    """A list in pages: the call for the page at a cursor, its items, and the cursor of the page behind a response."""

    call: Callable[[str | None], Call[PageT]]
    items: Callable[[PageT], Iterable[T]]
    cursor: str | None
    options: Options
    following: Callable[[ApiResponse[Any], str | None], str | None] = lambda response, _: response.data.cursor


class _Pages(Methods, Generic[PageT, T]):
    """A list: iterating reads page by page, as many as needed; `page()` reads one. Nothing is read before."""

    def __init__(self, client: Methods, listing: Listing[PageT, T]) -> None:
        super().__init__(client)
        self._listing = listing

    @operation
    async def page(self) -> PageT:
        """The first page, or the one at the cursor that was given."""
        return (await self._read(self._listing.cursor)).data

    async def _read(self, cursor: str | None) -> ApiResponse[PageT]:
        return await self._perform(self._listing.call(cursor), **self._listing.options)

    async def _items(self) -> AsyncGenerator[T, None]:
        cursor = self._listing.cursor
        while True:
            response = await self._read(cursor)
            for item in self._listing.items(response.data):
                yield item
            following = self._listing.following(response, cursor)
            if following is None:
                return
            if following == cursor:
                raise ResponseError(f"the list has no end: cursor {cursor!r} leads to itself", request=response.request)
            cursor = following


class Pages(_Pages[PageT, T], SyncMethods):
    __doc__ = _Pages.__doc__

    def __iter__(self) -> Iterator[T]:
        items = self._items()
        with suppress(StopAsyncIteration):
            while True:
                yield run_now(items.__anext__())


class AsyncPages(_Pages[PageT, T], AsyncMethods):
    __doc__ = _Pages.__doc__

    def __aiter__(self) -> AsyncIterator[T]:
        return self._items()


def paged(plan: Callable[Concatenate[Any, P], Listing[PageT, T]]) -> both[P, Pages[PageT, T], AsyncPages[PageT, T]]:
    """Decorates a method that returns a Listing; the result is a method that returns its pages."""
    result = Pages[get_args(inspect.signature(plan).return_annotation)]  # type: ignore[misc,valid-type]
    return both(plan, Pages[PageT, T], AsyncPages[PageT, T], return_annotation=result)


Subscription: TypeAlias = tuple[str | None, str | None, float | None, int | None]
"""The arguments of `OperatorClient.events`: account, after, timeout, max_retries."""


class _EventFlow(Methods):
    """Events in order. A lost connection is made again; the stream ends when it is closed, or after its `timeout`."""

    cursor: str | None
    """The cursor of the last event that was returned; pass it as `after=` to continue."""

    def __init__(self, client: Methods, subscription: Subscription) -> None:
        super().__init__(client)
        self._account, self.cursor, timeout, self._max_retries = subscription
        self._deadline = math.inf if timeout is None else self._pipeline.runtime.monotonic() + timeout
        self._stream: Stream | None = None
        self._closed = False
        self._events = self._receive()

    async def _receive(self) -> AsyncGenerator[Event, None]:
        runtime, reader, failures, was_connected = self._pipeline.runtime, EventReader(self.cursor), 0, False
        while not self._closed and (left := self._deadline - runtime.monotonic()) > 0:
            failure: FotahookError = ConnectionFailed("the event stream ended")
            chunk = b""
            try:
                stream = self._stream = self._stream or await self._connect(reader.cursor, left)
                was_connected = True
                chunk = await stream.read(min(HEARTBEAT_TIMEOUT, left))
            except (ApiException, TransportError) as error:
                # A first connection that failed is final.
                if not (was_connected or self._closed):
                    raise
                failure = failure if isinstance(error, TimedOut) else error
            try:
                for event in reader.read(chunk):
                    self.cursor = event.cursor
                    yield event
            except ValueError as error:
                raise ResponseError(f"an event breaks the contract: {error}") from error
            self.cursor = reader.cursor
            if chunk:
                failures = 0
            elif not self._closed:
                self._disconnect()
                # The next stream sends an incomplete event again.
                reader = EventReader(reader.cursor)
                failures += 1
                delay = retry_delay(failure, failures, now=runtime.now(), jitter=runtime.jitter())
                if delay is None:
                    raise failure
                await self._pipeline.transport.sleep(min(delay, left))
        await self._close()

    async def _connect(self, cursor: str | None, left: float) -> Stream:
        path = f"/v1/events{query_string(account=self._account, after=cursor)}"
        accept = (("accept", "text/event-stream"),)
        call: Call[Any] = Call("GET", None, path, read_nothing, headers=accept, streamed=True)
        timeout = None if left == math.inf else min(left, CallDefaults().timeout)
        response = await self._perform(call, timeout=timeout, max_retries=self._max_retries)
        kind = response.headers.get("content-type") or ""
        if not kind.startswith("text/event-stream"):
            response.data.close()
            raise ResponseError(f"{response.status_code} for the event stream, but of type {kind or 'unknown'}")
        stream: Stream = response.data
        return stream

    def _disconnect(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()

    async def _close(self) -> None:
        self._closed = True
        self._disconnect()


class EventStream(_EventFlow, SyncMethods, Closable, Iterator[Event]):
    """Events for a thread, as `OperatorClient.events` returns them; a context manager that closes at its end.

    Another thread may close it.
    """

    def __next__(self) -> Event:
        try:
            return run_now(self._events.__anext__())
        except StopAsyncIteration:
            raise StopIteration from None


class AsyncEventStream(_EventFlow, AsyncMethods, AsyncClosable, AsyncIterator[Event]):
    """Events for a task, as `AsyncOperatorClient.events` returns them; a context manager that closes at its end."""

    async def __anext__(self) -> Event:
        return await self._events.__anext__()


def streamed(plan: Callable[Concatenate[Any, P], Subscription]) -> both[P, EventStream, AsyncEventStream]:
    return both(plan, EventStream, AsyncEventStream, return_annotation=EventStream)

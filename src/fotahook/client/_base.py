"""What the four clients share: set-up, closing, lists and streams, and methods written once for threads and tasks."""

import functools
import inspect
import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterable, Iterator
from contextlib import suppress
from copy import copy
from inspect import Parameter
from typing import Any, Concatenate, Final, Generic, ParamSpec, Self, TypeVar, Unpack, cast, get_args, overload

import msgspec

from ..contract.auth import ThingspaceOauthCredentials
from ..contract.calls import Call, query_string, read_nothing
from ..contract.errors import ApiException, ConnectionFailed, FotahookError, ResponseError, TimedOut, TransportError
from ..contract.events import Event, EventReader
from ..contract.exchange import ApiResponse
from ..contract.servers import Environment, Servers, servers_of
from ._flow import Pipeline, retry_delay
from ._runtime import Runtime, Stream, Transport, run_now
from ._settings import CallDefaults, Limits, Options, Session, Settings

P = ParamSpec("P")
T = TypeVar("T")
PlanT = TypeVar("PlanT")
SyncT = TypeVar("SyncT")
AsyncT = TypeVar("AsyncT")
PageT = TypeVar("PageT")
FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])
HEARTBEAT_TIMEOUT: Final = 45.0
"""Seconds of silence after which a connection counts as lost; the service sends something every 15 seconds."""


class Methods:
    """Operations of a client, with its pipeline and defaults."""

    _pipeline: Pipeline
    _defaults: CallDefaults

    def __init__(self, client: "Methods") -> None:
        self._pipeline, self._defaults = client._pipeline, client._defaults

    def _limits(self, **options: Unpack[Options]) -> Limits:
        """The limits of a flow that begins now; RuntimeError if the client is closed."""
        self._pipeline.transport.begin()
        chosen = self._defaults.replaced(**options)
        return Limits(self._pipeline.runtime.monotonic() + chosen.timeout, chosen.max_retries)

    async def _perform(self, call: Call[T], **options: Unpack[Options]) -> ApiResponse[T]:
        return await self._pipeline.perform(call, self._limits(**options))

    def __init_subclass__(cls) -> None:
        """Give a class plain functions in place of what is written for both ways, as mocks and other tools expect."""
        super().__init_subclass__()
        for base in cls.__mro__[1:]:
            cls.__doc__ = cls.__doc__ or base.__doc__
            for name, value in list(vars(base).items()):
                if isinstance(value, both) and name not in vars(cls) and issubclass(cls, SyncMethods | AsyncMethods):
                    setattr(cls, name, value.method if issubclass(cls, SyncMethods) else value.async_method)


class both(Generic[P, SyncT, AsyncT]):
    """A method that is written once, as a plan; one function finishes it for threads, one (or none) for tasks."""

    def __init__(
        self,
        plan: Callable[Concatenate[Any, P], PlanT],
        finish: Callable[[Any, PlanT], SyncT],
        async_finish: Callable[[Any, PlanT], AsyncT] | None,
        **replaced: object,
    ) -> None:
        def finished(finish: Callable[[Any, PlanT], T]) -> Callable[..., T]:
            @functools.wraps(plan)
            def method(client: Any, *args: P.args, **kwargs: P.kwargs) -> T:
                return finish(client, plan(client, *args, **kwargs))

            return spelled_out(method, **replaced)

        self.method = finished(finish)
        self.async_method = finished(async_finish) if async_finish else spelled_out(plan)

    @overload
    def __get__(self, client: None, owner: type[object]) -> Callable[Concatenate[Any, P], Any]: ...
    @overload
    def __get__(self, client: "SyncMethods", owner: type[object]) -> Callable[P, SyncT]: ...
    @overload
    def __get__(self, client: "AsyncMethods", owner: type[object]) -> Callable[P, AsyncT]: ...
    def __get__(self, client: Any, owner: Any) -> Any:
        return self


class SyncMethods(Methods): ...


class AsyncMethods(Methods): ...


class Closable:
    _close: Callable[[], Coroutine[Any, Any, None]]

    def close(self) -> None:
        """Close all connections. Sends nothing."""
        run_now(self._close())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncClosable:
    _close: Callable[[], Coroutine[Any, Any, None]]

    async def aclose(self) -> None:
        """Close all connections. Sends nothing."""
        await self._close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


def spelled_out(function: FunctionT, defaults: object = None, **replaced: Any) -> FunctionT:
    """A function with the signature that people should see: with each of the options in place of `**options`."""
    signature = inspect.signature(function)
    parameters = list(signature.parameters.values())
    if parameters[-1].kind is Parameter.VAR_KEYWORD:
        (options,) = get_args(parameters.pop().annotation)
        for name, kind in options.__annotations__.items():
            default = getattr(defaults, name, None)
            parameters.append(Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=kind))
    function.__dict__["__signature__"] = signature.replace(parameters=parameters, **replaced)
    return function


def operation(method: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]) -> both[P, T, Coroutine[Any, Any, T]]:
    """Decorates a coroutine function: a SyncMethods gets a method that blocks instead."""
    return both(method, lambda _, flow: run_now(flow), None)


class controller(Generic[T]):
    """An attribute of a client that is a controller, always the same one. At the class it is the controller's class."""

    def __init__(self, kind: Callable[[Any], T]) -> None:
        self._kind = kind

    @overload
    def __get__(self, client: None, owner: type[object]) -> type[T]: ...
    @overload
    def __get__(self, client: "BaseClient", owner: type[object]) -> T: ...
    def __get__(self, client: Any, owner: Any) -> Any:
        if client is None:
            return self._kind
        controllers = client._controllers
        return controllers.get(self._kind) or controllers.setdefault(self._kind, self._kind(client))


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
    def __iter__(self) -> Iterator[T]:
        items = self._items()
        with suppress(StopAsyncIteration):
            while True:
                yield run_now(items.__anext__())


class AsyncPages(_Pages[PageT, T], AsyncMethods):
    def __aiter__(self) -> AsyncIterator[T]:
        return self._items()


def paged(plan: Callable[Concatenate[Any, P], Listing[PageT, T]]) -> both[P, Pages[PageT, T], AsyncPages[PageT, T]]:
    """Decorates a method that returns a Listing; the result is a method that returns its pages."""
    result = Pages[get_args(inspect.signature(plan).return_annotation)]  # type: ignore[misc,valid-type]
    return both(plan, Pages[PageT, T], AsyncPages[PageT, T], return_annotation=result)


# The arguments of `OperatorClient.events`: account, after, timeout, max_retries.
Subscription = tuple[str | None, str | None, float | None, int | None]


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
        return cast("Stream", response.data)

    def _disconnect(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()

    async def _close(self) -> None:
        self._closed = True
        self._disconnect()


class EventStream(_EventFlow, SyncMethods, Closable, Iterator[Event]):
    """Events for a thread; a context manager that closes at its end. Another thread may close it too."""

    def __next__(self) -> Event:
        try:
            return run_now(self._events.__anext__())
        except StopAsyncIteration:
            raise StopIteration from None


class AsyncEventStream(_EventFlow, AsyncMethods, AsyncClosable, AsyncIterator[Event]):
    """Events for a task; a context manager that closes at its end."""

    async def __anext__(self) -> Event:
        return await self._events.__anext__()


def streamed(plan: Callable[Concatenate[Any, P], Subscription]) -> both[P, EventStream, AsyncEventStream]:
    return both(plan, EventStream, AsyncEventStream, return_annotation=EventStream)


class BaseClient(Methods):
    """Sets a client up from its checked options. `_runtime` is replaced by tests and by the sandbox."""

    _runtime: Runtime = Runtime()
    _transport: Callable[[Settings], Transport]

    @classmethod
    def _with_runtime(cls, runtime: Runtime, *args: Any, **kwargs: Any) -> Self:
        client = cls.__new__(cls)
        client._runtime = runtime
        cls.__init__(client, *args, **kwargs)
        return client

    def _set_up(
        self, servers: Servers, oauth: ThingspaceOauthCredentials | None, session: Session | None, settings: Settings
    ) -> None:
        self._defaults, self._controllers = settings, dict[object, object]()
        self._pipeline = Pipeline(servers, oauth, session, settings, self._runtime, self._transport(settings))

    def with_options(self, *, timeout: float | None = None, max_retries: int | None = None) -> Self:
        """A client with other defaults, which shares the connections and tokens of this one; closing it closes both."""
        client = copy(self)
        client._defaults, client._controllers = self._defaults.replaced(timeout, max_retries), {}
        return client

    def __repr__(self) -> str:
        pipeline, oauth = self._pipeline, self._pipeline.oauth_credentials
        known = (each for each in Environment if servers_of(each) == pipeline.servers)
        where = next((f"environment={each.value}" for each in known), f"base_url={pipeline.servers.get(None)!r}")
        client = f"oauth_client_id={oauth and oauth.oauth_client_id!r}, session={pipeline.session_credentials!r}"
        limits = f"timeout={self._defaults.timeout}, max_retries={self._defaults.max_retries}"
        return f"{type(self).__name__}({where}, {client}, {limits})"

    async def _close(self) -> None:
        await self._pipeline.transport.close()


class SyncBaseClient(BaseClient, SyncMethods, Closable):
    def _transport(self, settings: Settings) -> Transport:
        # Here, so that `import fotahook` loads no HTTP library.
        from ._sync import SyncTransport

        for name in ("on_request", "on_response"):
            if inspect.iscoroutinefunction(getattr(settings, name)):
                raise TypeError(f"{name} is a coroutine function, which only the asynchronous clients can call")
        return SyncTransport(settings, self._runtime)


class AsyncBaseClient(BaseClient, AsyncMethods, AsyncClosable):
    def _transport(self, settings: Settings) -> Transport:
        try:
            from ._async import AsyncTransport
        except ImportError as error:
            raise ImportError(f"{type(self).__name__} needs aiohttp: pip install 'fotahook[async]'") from error
        return AsyncTransport(settings, self._runtime)

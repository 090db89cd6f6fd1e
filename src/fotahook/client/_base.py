"""What the four clients share: set-up, closing, and methods that are written once for threads and for tasks."""

import functools
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from copy import copy
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Self, TypeVar, Unpack, get_args, overload

import msgspec

from ..contract.auth import SessionCredentials, ThingspaceOauthCredentials, VZM2mTokenCredentials
from ..contract.calls import Call
from ..contract.exchange import ApiResponse
from ..contract.servers import Servers
from ._effects import Flow, Hooks, Runtime
from ._flow import Limits, MakeFlow, Pipeline
from ._settings import CallDefaults, CallOptions, TransportOptions
from ._tokens import BearerToken, SessionToken

if TYPE_CHECKING:
    from ._async import AsyncTransport
    from ._sync import SyncTransport

P = ParamSpec("P")
T = TypeVar("T")


class Closable(ABC):
    """A context manager that calls close()."""

    @abstractmethod
    def close(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncClosable(ABC):
    """An asynchronous context manager that calls aclose()."""

    @abstractmethod
    async def aclose(self) -> None: ...

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class BothWays:
    """A method that is written once: a blocking one in a SyncMethods, an asynchronous one in an AsyncMethods."""

    def __init__(
        self, plan: Callable[..., Any], result: object, method: Callable[..., Any], async_method: Callable[..., Any]
    ) -> None:
        self.method, self.async_method = method, async_method
        for function in (method, async_method):
            functools.update_wrapper(function, plan)
            function.__dict__["__signature__"] = _public_signature(plan, result)


def _bake(cls: type, choose: Callable[[BothWays], Callable[..., Any]]) -> None:
    """Give a class plain functions in place of what is written for both ways, as mocks and other tools expect."""
    for base in cls.__mro__[1:]:
        for name, value in list(vars(base).items()):
            if isinstance(value, BothWays) and name not in vars(cls):
                setattr(cls, name, choose(value))


class SyncMethods:
    """A class whose operations block."""

    _transport: "SyncTransport"
    _defaults: CallDefaults

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        _bake(cls, lambda both: both.method)


class AsyncMethods:
    """A class whose operations are coroutines."""

    _transport: "AsyncTransport"
    _defaults: CallDefaults

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        _bake(cls, lambda both: both.async_method)


class SyncController(SyncMethods):
    """Some of the operations of a client."""

    def __init__(self, client: SyncMethods) -> None:
        self._transport, self._defaults = client._transport, client._defaults


class AsyncController(AsyncMethods):
    """Some of the operations of a client."""

    def __init__(self, client: AsyncMethods) -> None:
        self._transport, self._defaults = client._transport, client._defaults


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


class Operation(msgspec.Struct, Generic[T], frozen=True):
    """A flow to run, with the limits given by the caller; None stands for the client's own."""

    make_flow: MakeFlow[T]
    timeout: float | None = None
    max_retries: int | None = None

    def limits(self, client: SyncMethods | AsyncMethods) -> Limits:
        """Its limits, from now on."""
        return client._defaults.limits(client._transport.runtime.monotonic(), self.timeout, self.max_retries)


def response_of(call: Call[T], **options: Unpack[CallOptions]) -> Operation[ApiResponse[T]]:
    """A call that returns its whole response."""
    return Operation(lambda pipeline, limits: pipeline.perform(call, limits), **options)


def data_of(call: Call[T], **options: Unpack[CallOptions]) -> Operation[T]:
    """A call that returns the data of its response."""

    def flow(pipeline: Pipeline, limits: Limits) -> Flow[T]:
        return (yield from pipeline.perform(call, limits)).data

    return Operation(flow, **options)


class operation(BothWays, Generic[P, T]):
    """Decorates a method that returns an Operation; the result is a method or coroutine function that runs it."""

    def __init__(self, plan: Callable[Concatenate[Any, P], Operation[T]]) -> None:
        def method(client: Any, *args: P.args, **kwargs: P.kwargs) -> T:
            planned = plan(client, *args, **kwargs)
            result: T = client._transport.run(planned.make_flow, planned.limits(client))
            return result

        async def async_method(client: Any, *args: P.args, **kwargs: P.kwargs) -> T:
            planned = plan(client, *args, **kwargs)
            result: T = await client._transport.run(planned.make_flow, planned.limits(client))
            return result

        (result,) = get_args(inspect.signature(plan).return_annotation)
        super().__init__(plan, result, method, async_method)

    @overload
    def __get__(self, client: None, owner: type[object]) -> Callable[Concatenate[Any, P], Any]: ...
    @overload
    def __get__(self, client: SyncMethods, owner: type[object]) -> Callable[P, T]: ...
    @overload
    def __get__(self, client: AsyncMethods, owner: type[object]) -> Callable[P, Coroutine[Any, Any, T]]: ...
    def __get__(self, client: Any, owner: Any) -> Any:
        """For type checkers: classes have functions in its place."""
        return self


def _public_signature(plan: Callable[..., object], result: object) -> inspect.Signature:
    """The signature with CallOptions spelled out, and with another return type."""
    signature = inspect.signature(plan)
    parameters = [one for one in signature.parameters.values() if one.kind is not one.VAR_KEYWORD]
    if len(parameters) < len(signature.parameters):
        for name, kind in CallOptions.__annotations__.items():
            parameters.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind))
    return signature.replace(parameters=parameters, return_annotation=result)


class BaseClient(ABC):
    """Sets a client up from its checked options. `_runtime` is replaced by tests and by the sandbox."""

    _runtime: Runtime = Runtime()

    @classmethod
    def _with_runtime(cls, runtime: Runtime, *args: Any, **kwargs: Any) -> Self:
        """A client with other clocks, sleep or random source."""
        client = cls.__new__(cls)
        client._runtime = runtime
        cls.__init__(client, *args, **kwargs)
        return client

    def _set_up(
        self,
        servers: Servers,
        oauth: ThingspaceOauthCredentials | None,
        session: SessionCredentials | VZM2mTokenCredentials | None,
        options: TransportOptions,
        defaults: CallDefaults,
        hooks: Hooks,
    ) -> None:
        self._defaults = defaults
        self._controllers: dict[object, object] = {}
        self._pipeline = Pipeline(
            servers,
            BearerToken(oauth, self._runtime) if oauth else None,
            SessionToken(session, self._runtime) if session else None,
            hooks,
            self._runtime,
        )
        self._open(options)

    def with_options(self, *, timeout: float | None = None, max_retries: int | None = None) -> Self:
        """A client with other defaults, which shares the connections and tokens of this one; closing it closes both."""
        client = copy(self)
        client._defaults, client._controllers = self._defaults.replaced(timeout, max_retries), {}
        return client

    def __repr__(self) -> str:
        limits = f"timeout={self._defaults.timeout}, max_retries={self._defaults.max_retries}"
        return f"{type(self).__name__}({self._pipeline.described()}, {limits})"

    @abstractmethod
    def _open(self, options: TransportOptions) -> None: ...


class SyncBaseClient(BaseClient, SyncMethods, Closable):
    """A client for threads."""

    def _open(self, options: TransportOptions) -> None:
        # Here, so that `import fotahook` loads no HTTP library.
        from ._sync import SyncTransport

        hooks = self._pipeline.hooks
        for name in hooks.__struct_fields__:
            if inspect.iscoroutinefunction(getattr(hooks, name)):
                raise TypeError(f"{name} is a coroutine function, which only the asynchronous clients can call")
        self._transport = SyncTransport(self._pipeline, options)

    def close(self) -> None:
        """Close all connections. Sends nothing."""
        self._transport.close()


class AsyncBaseClient(BaseClient, AsyncMethods, AsyncClosable):
    """A client for tasks."""

    def _open(self, options: TransportOptions) -> None:
        try:
            from ._async import AsyncTransport
        except ImportError as error:
            raise ImportError(f"{type(self).__name__} needs aiohttp: pip install 'fotahook[async]'") from error
        self._transport = AsyncTransport(self._pipeline, options)

    async def aclose(self) -> None:
        """Close all connections. Sends nothing."""
        await self._transport.close()

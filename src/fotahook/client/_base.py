"""What the four clients share: set-up, closing, and methods that are written once for threads and for tasks."""

import functools
import inspect
from collections.abc import Callable, Coroutine
from copy import copy
from inspect import Parameter
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar, Unpack, get_args, overload

from ..contract.auth import ThingspaceOauthCredentials
from ..contract.calls import Call
from ..contract.exchange import ApiResponse
from ..contract.servers import Environment, Servers, servers_of
from ._flow import Pipeline
from ._runtime import Runtime, Transport, run_now
from ._settings import CallDefaults, Limits, Options, Session, Settings

P = ParamSpec("P")
T = TypeVar("T")
PlanT = TypeVar("PlanT")
SyncT = TypeVar("SyncT")
AsyncT = TypeVar("AsyncT")
FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


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


class SyncMethods(Methods):
    """Methods that block."""


class AsyncMethods(Methods):
    """Methods that are coroutines."""


class Closable:
    """Closes with its `with` block."""

    _close: Callable[[], Coroutine[Any, Any, None]]

    def close(self) -> None:
        """Close all connections. Sends nothing."""
        run_now(self._close())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncClosable:
    """Closes with its `async with` block."""

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
    """A client for threads."""

    def _transport(self, settings: Settings) -> Transport:
        # Here, so that `import fotahook` loads no HTTP library.
        from ._sync import SyncTransport

        for name in ("on_request", "on_response"):
            if inspect.iscoroutinefunction(getattr(settings, name)):
                raise TypeError(f"{name} is a coroutine function, which only the asynchronous clients can call")
        return SyncTransport(settings, self._runtime)


class AsyncBaseClient(BaseClient, AsyncMethods, AsyncClosable):
    """A client for tasks."""

    def _transport(self, settings: Settings) -> Transport:
        try:
            from ._async import AsyncTransport
        except ImportError as error:
            raise ImportError(f"{type(self).__name__} needs aiohttp: pip install 'fotahook[async]'") from error
        return AsyncTransport(settings, self._runtime)

"""Methods of a client that are written once: what to call is decided here, how to wait is the client's business."""

import functools
import inspect
import types
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar, get_args, overload

import msgspec

from ..contract.calls import Call
from ._events import AsyncEventStream, EventStream
from ._following import Follower

if TYPE_CHECKING:
    from ._operator import AsyncOperatorClient, OperatorClient

P = ParamSpec("P")
T = TypeVar("T")


class Plan(msgspec.Struct, Generic[T], frozen=True):
    """A call to make, and the caller's own limits for it, if any."""

    call: Call[T]
    timeout: float | None
    max_retries: int | None


class Follow(msgspec.Struct, frozen=True):
    """Events to follow, and how often the first connection is tried again, if the caller says so."""

    follower: Follower
    max_retries: int | None


class operation(Generic[P, T]):
    """Makes a method of one that plans: it returns what the call comes to, or where the client is async, awaits it."""

    def __init__(self, plan: Callable[Concatenate[Any, P], Plan[T]]) -> None:
        self._plan = plan
        self.__doc__ = plan.__doc__

    @overload
    def __get__(self, client: None, kind: type[object]) -> Callable[Concatenate[Any, P], Any]: ...
    @overload
    def __get__(self, client: "OperatorClient", kind: type[object]) -> Callable[P, T]: ...
    @overload
    def __get__(self, client: "AsyncOperatorClient", kind: type[object]) -> Callable[P, Awaitable[T]]: ...
    def __get__(self, client: Any, kind: type[object]) -> Callable[..., Any]:
        plan = self._plan

        @functools.wraps(plan)
        def method(client: Any, *args: P.args, **kwargs: P.kwargs) -> Any:
            return client._carry_out(functools.partial(plan, client, *args, **kwargs))

        return _bound(method, client)


class following(Generic[P]):
    """Makes a method of one that says what to follow: it returns something to iterate over."""

    def __init__(self, plan: Callable[Concatenate[Any, P], Follow]) -> None:
        self._plan = plan
        self.__doc__ = plan.__doc__

    @overload
    def __get__(self, client: None, kind: type[object]) -> Callable[Concatenate[Any, P], Any]: ...
    @overload
    def __get__(self, client: "OperatorClient", kind: type[object]) -> Callable[P, EventStream]: ...
    @overload
    def __get__(self, client: "AsyncOperatorClient", kind: type[object]) -> Callable[P, AsyncEventStream]: ...
    def __get__(self, client: Any, kind: type[object]) -> Callable[..., Any]:
        plan = self._plan

        @functools.wraps(plan)
        def method(client: Any, *args: P.args, **kwargs: P.kwargs) -> Any:
            return client._follow(plan(client, *args, **kwargs))

        return _bound(method, client)


def _bound(method: Callable[..., Any], client: object) -> Callable[..., Any]:
    """As a function would be; of the class, the method as it looks to who reads about it."""
    if client is not None:
        return types.MethodType(method, client)
    told = inspect.signature(method)
    (kind,) = get_args(told.return_annotation) or (EventStream | AsyncEventStream,)
    method.__dict__["__signature__"] = told.replace(return_annotation=kind)
    return method

"""Handlers: how they are registered, and which of them get a message."""

import inspect
import logging
from collections.abc import Callable
from typing import Final, TypeVar

import msgspec

from fotahook.contract.error_responses import one_line
from fotahook.contract.messages import CallbackMessage

log = logging.getLogger("fotahook.listener")

Handler = Callable[..., object]
"""``handler(message)`` or ``handler(message, context)``, plain or async. The return value is ignored."""
HandlerT = TypeVar("HandlerT", bound=Handler)

_LOGGED_KINDS: Final = 100
"""Kinds without a handler that are logged, once each: a sender can invent any number of kinds."""
_KIND_LIMIT: Final = 100
_STATUSES_LIMIT: Final = 100


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """Facts about the attempt, for a handler that takes a second argument."""

    id: str
    """The message's id in the inbox: the same on every attempt, so that a handler can recognize a repetition."""
    attempt: int
    """1 on the first attempt. An attempt during which the process died is not counted: its number is used again."""
    received_at: float
    """When the message was stored, in Unix seconds."""


class Route(msgspec.Struct, frozen=True, eq=False):
    """A registered handler and the messages it gets; None matches everything."""

    handler: Handler
    kind: str | None
    status: str | None
    account: str | None
    wants_context: bool
    is_async: bool

    def matches(self, message: CallbackMessage) -> bool:
        return (
            self.kind in (None, message.kind)
            and self.account in (None, message.account_name)
            and (self.status is None or self.status in message.statuses)
        )

    @property
    def name(self) -> str:
        return _name(self.handler)

    @property
    def filters(self) -> str:
        """The handler's filters as its decorator has them."""
        names = ("status", "account")
        return ", ".join(f"{name}={value!r}" for name in names if (value := getattr(self, name)) is not None)


class Router:
    """The handlers of one listener, in the order of their registration."""

    def __init__(self) -> None:
        self._routes: list[Route] = []
        self._logged: set[str | None] = set()

    def __len__(self) -> int:
        return len(self._routes)

    def add(self, handler: HandlerT, kind: str | None, status: str | None, account: str | None) -> HandlerT:
        """Register a handler. TypeError if it cannot be called with a message, or with a message and a context."""
        self._routes.append(Route(handler, kind, status, account, _wants_context(handler), _is_async(handler)))
        return handler

    def matching(self, message: CallbackMessage) -> list[Route]:
        """The routes of a message. If there are none, the log says why, once for each kind."""
        routes = [route for route in self._routes if route.matches(message)]
        if not routes:
            self._log_unmatched(message)
        return routes

    def _log_unmatched(self, message: CallbackMessage) -> None:
        kind = message.kind
        if kind is not None and len(kind) > _KIND_LIMIT:
            kind = None  # too long to be logged or pasted
        if kind in self._logged or len(self._logged) >= _LOGGED_KINDS:
            return
        self._logged.add(kind)
        filtered = [route for route in self._routes if route.kind in (None, message.kind)]
        if filtered:
            statuses = one_line(", ".join(sorted(message.statuses)) or "no status", _STATUSES_LIMIT)
            filters = "; ".join(f"{route.name} wants {route.filters}" for route in filtered)
            log.warning("no handler's filters match %r with %s: %s", message, statuses, filters)
        else:
            log.warning("no handler for %r; to add one:\n\n%s", message, _suggestion(kind))


def _is_async(handler: Handler) -> bool:
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(getattr(handler, "__call__", None))  # noqa: B004


def _wants_context(handler: Handler) -> bool:
    """Whether a handler takes a second argument: a required one, or an optional one with the name `context`."""
    if not callable(handler):
        raise TypeError(f"a handler must be a function, not {handler!r}")
    if inspect.isgeneratorfunction(handler) or inspect.isasyncgenfunction(handler):
        raise TypeError(f"{_name(handler)} is a generator function, which calling does not run: remove its yield")
    try:
        parameters = list(inspect.signature(handler).parameters.values())
    except ValueError as error:
        raise TypeError(
            f"the parameters of {_name(handler)} are unknown; wrap it in a function of (message)"
        ) from error
    positional = [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    required = [each for each in positional if each.default is each.empty]
    keywords = [each for each in parameters if each.kind is each.KEYWORD_ONLY and each.default is each.empty]
    if len(required) not in (1, 2) or keywords:
        raise TypeError(f"a handler takes (message) or (message, context); {_name(handler)} does not")
    return len(required) == 2 or [each.name for each in positional[1:2]] == ["context"]


def _name(handler: Handler) -> str:
    return getattr(handler, "__qualname__", repr(handler))


def _suggestion(kind: str | None) -> str:
    decorator = "on_any" if kind is None else f"on({kind!r})"
    return f"@listener.{decorator}\ndef handle(message):\n    ...\n"

"""Which functions see which message."""

import inspect
import logging
import re
from collections.abc import Callable
from typing import Final, TypeVar

import msgspec

from fotahook.contract.messages import CallbackMessage

log = logging.getLogger("fotahook.listener")

Handler = Callable[..., object]
"""``handler(message)`` or ``handler(message, context)``, plain or async; what it returns is ignored."""
HandlerT = TypeVar("HandlerT", bound=Handler)

_SUGGESTIONS: Final = 100
"""Kinds for which a missing handler is suggested, once each: a sender could name others without end."""
_PLAIN_KIND: Final = re.compile(r"[\w.:/ -]{1,100}", re.ASCII)
"""What can be pasted from a log of JSON, where quotes and backslashes are escaped, and is short enough for it."""


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """What a handler may want to know beside the message."""

    id: str
    """The message's id in the inbox: the same on every attempt, so that a handler can tell a repetition."""
    attempt: int
    """1 on the first attempt."""
    received_at: float
    """When the message was stored, in Unix seconds."""


class Rule(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """One registered handler and what it wants to see; None means anything."""

    handler: Handler
    kind: str | None
    status: str | None
    account: str | None
    wants_context: bool
    is_async: bool

    def matches(self, message: CallbackMessage) -> bool:
        """Whether the handler wants to see a message."""
        return (
            self.kind in (None, message.kind)
            and self.account in (None, message.account_name)
            and (self.status is None or self.status in message.statuses)
        )

    @property
    def name(self) -> str:
        """The handler's name, for people."""
        return _name(self.handler)


class Router:
    """The handlers of one listener, in the order of their registration."""

    def __init__(self) -> None:
        self._rules: list[Rule] = []
        self._suggested: set[str | None] = set()

    def __len__(self) -> int:
        return len(self._rules)

    def add(self, handler: HandlerT, kind: str | None, status: str | None, account: str | None) -> HandlerT:
        """Register a handler. TypeError says why it cannot be called with a message, or with one and a context."""
        self._rules.append(
            Rule(
                handler=handler,
                kind=kind,
                status=status,
                account=account,
                wants_context=_wants_context(handler),
                is_async=_is_async(handler),
            )
        )
        return handler

    def wanting(self, message: CallbackMessage) -> list[Rule]:
        """The rules that match a message. Where none does, a handler that would is suggested in the log."""
        rules = [rule for rule in self._rules if rule.matches(message)]
        if not rules:
            self._suggest(message)
        return rules

    def _suggest(self, message: CallbackMessage) -> None:
        kind = message.kind
        if kind is not None and not _PLAIN_KIND.fullmatch(kind):
            kind = None
        if kind not in self._suggested and len(self._suggested) < _SUGGESTIONS:
            self._suggested.add(kind)
            log.warning("no handler wants %r; one that does: %s", message, _suggestion(kind))


def _is_async(handler: Handler) -> bool:
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(getattr(handler, "__call__", None))  # noqa: B004


def _wants_context(handler: Handler) -> bool:
    """Whether the second argument is to be given: it must be, or it is optional and called `context`."""
    if not callable(handler):
        raise TypeError(f"a handler is a function, not {handler!r}")
    if inspect.isgeneratorfunction(handler) or inspect.isasyncgenfunction(handler):
        raise TypeError(f"{_name(handler)} is a generator: calling it would run nothing; a handler has no yield")
    try:
        parameters = list(inspect.signature(handler).parameters.values())
    except ValueError as error:
        raise TypeError(f"{_name(handler)} does not tell its arguments; wrap it in a function of (message)") from error
    positional = [
        parameter
        for parameter in parameters
        if parameter.kind in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    ]
    required = [parameter for parameter in positional if parameter.default is inspect.Parameter.empty]
    if len(required) not in (1, 2) or any(_is_required_keyword(parameter) for parameter in parameters):
        raise TypeError(f"a handler takes (message) or (message, context); {_name(handler)} does not")
    return len(required) == 2 or [parameter.name for parameter in positional[1:2]] == ["context"]


def _is_required_keyword(parameter: inspect.Parameter) -> bool:
    return parameter.kind is inspect.Parameter.KEYWORD_ONLY and parameter.default is inspect.Parameter.empty


def _name(handler: Handler) -> str:
    return getattr(handler, "__qualname__", repr(handler))


def _suggestion(kind: str | None) -> str:
    # One line, unlike a decorated function: a log of JSON escapes where lines end.
    on = "on_any" if kind is None else f"on({kind!r})"
    return f"listener.{on}(lambda message: print(message))"

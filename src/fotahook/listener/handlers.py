"""Which functions see which message, and what comes of calling them."""

import asyncio
import inspect
import logging
import traceback
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import msgspec

from fotahook.contract.messages import CallbackMessage, parse_message
from fotahook.delivery import Outcome
from fotahook.store.base import Delivery, Lease

log = logging.getLogger("fotahook.listener")

Handler = Callable[..., object]
"""``handler(message)`` or ``handler(message, context)``, plain or async; what it returns is ignored."""
HandlerT = TypeVar("HandlerT", bound=Handler)

_EXCERPT_LIMIT: Final = 4000


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """What a handler may want to know beside the message."""

    id: str
    """The message's id in the inbox: the same on every attempt, so that a handler can tell a repetition."""
    attempt: int
    """1 on the first attempt."""
    received_at: float
    """When the message was stored, in Unix seconds."""


class Rule(msgspec.Struct, frozen=True, kw_only=True):
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


class Router:
    """The handlers of one listener, in the order of their registration. ``deliver`` is what the dispatcher calls."""

    def __init__(self, *, timeout: float) -> None:
        self._rules: list[Rule] = []
        self._timeout = timeout

    def add(self, handler: HandlerT, kind: str | None, status: str | None, account: str | None) -> HandlerT:
        """Register a handler. TypeError if it takes neither one nor two positional arguments."""
        self._rules.append(
            Rule(
                handler=handler,
                kind=kind,
                status=status,
                account=account,
                wants_context=_wants_context(handler),
                is_async=inspect.iscoroutinefunction(inspect.unwrap(handler)),
            )
        )
        return handler

    async def deliver(self, lease: Lease, delivery: Delivery) -> Outcome:
        """Let every matching handler see a message.

        All of them are called, even after one failed; the message counts as handled when none did, and is otherwise
        shown to all of them again later.
        """
        message = parse_message(delivery.body)
        context = Context(
            id=delivery.message,
            attempt=delivery.attempts + delivery.strikes + 1,
            received_at=delivery.accepted_at,
        )
        rules = [rule for rule in self._rules if rule.matches(message)]
        if not rules:
            log.warning("no handler wants a message of kind %r; one that does:\n%s", message.kind, _suggestion(message))
        failures = [failure for rule in rules if (failure := await self._call(rule, message, context))]
        return failures[0] if failures else Outcome(code="delivered")

    async def _call(self, rule: Rule, message: CallbackMessage, context: Context) -> Outcome | None:
        arguments = (message, context) if rule.wants_context else (message,)
        deadline = asyncio.timeout(self._timeout)
        try:
            async with deadline:
                if rule.is_async:
                    called = rule.handler(*arguments)
                    if isinstance(called, Awaitable):
                        await called
                else:
                    await asyncio.to_thread(rule.handler, *arguments)
        except Exception as error:
            code = "handler_timeout" if deadline.expired() else "handler_error"
            log.exception("handler %s failed on message %s", _name(rule.handler), context.id)
            text = "".join(traceback.format_exception(error))
            return Outcome(code=code, excerpt=f"{_name(rule.handler)}\n{text}"[-_EXCERPT_LIMIT:])
        return None


def _wants_context(handler: Handler) -> bool:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    taken = [
        parameter
        for parameter in inspect.signature(handler).parameters.values()
        if parameter.kind in kinds and parameter.default is inspect.Parameter.empty
    ]
    if len(taken) not in (1, 2):
        raise TypeError(
            f"a handler takes (message) or (message, context); {_name(handler)} takes {len(taken)} arguments"
        )
    return len(taken) == 2


def _name(handler: Handler) -> str:
    return getattr(handler, "__qualname__", repr(handler))


def _suggestion(message: CallbackMessage) -> str:
    if message.kind is None:
        return "@listener.on_any\ndef handle(message):\n    ..."
    return f"@listener.on({message.kind!r})\ndef handle(message):\n    ..."

"""Effects: what a flow asks its driver to do.

A flow is a generator that decides (tokens, retries, errors) and yields effects. A driver, in a thread or in a task,
performs each effect and sends the result back into the flow, or throws the error into it.
"""

import os
import random
import time
from collections.abc import Awaitable, Callable, Generator, Mapping
from typing import Any, Protocol, TypeAlias, TypeVar

import msgspec

from ..contract.exchange import Masked, Request, Secret

EffectT = TypeVar("EffectT")
T = TypeVar("T")


class Lock(Protocol):
    """A threading.Lock or an asyncio.Lock, whose acquire() differ."""

    @property
    def acquire(self) -> Callable[..., Any]: ...

    def release(self) -> None: ...


class Send(Masked, frozen=True):
    """Send a request; the result is the Reply. `body` goes out as it is, secrets included.

    If `streamed`, the body of a 2xx is not read: the Reply carries it as an open stream.
    """

    shown = ("request",)

    request: Request
    headers: dict[str, str]
    secrets: dict[str, Secret]
    body: bytes | None
    streamed: bool = False

    def revealed(self, more: Mapping[str, Secret]) -> dict[str, str]:
        """All headers, with those that are secrets, and some more of these."""
        return {**self.headers, **{name: secret.reveal() for name, secret in (*self.secrets.items(), *more.items())}}


class Sleep(msgspec.Struct, frozen=True):
    """Wait."""

    seconds: float


class Acquire(msgspec.Struct, frozen=True):
    """Acquire a lock, or raise TimedOut at the deadline. The flow releases it."""

    lock: Lock


class Invoke(msgspec.Struct, frozen=True):
    """Call a function of the user's. With an async driver it may be a coroutine function."""

    function: Callable[[Any], object]
    argument: object


Effect: TypeAlias = Send | Sleep | Acquire | Invoke
# The result of an effect depends on its class, which Generator's type parameters cannot express.
Flow: TypeAlias = Generator[Effect, Any, T]


def drive(flow: Generator[EffectT, Any, T], perform: Callable[[EffectT], object]) -> T:
    """Run a flow in this thread; returns its result."""
    try:
        effect = next(flow)
        while True:
            try:
                result = perform(effect)
            except BaseException as error:
                # KeyboardInterrupt too: the flow may hold a lock.
                effect = flow.throw(error)
            else:
                effect = flow.send(result)
    except StopIteration as end:
        value: T = end.value
        return value


async def drive_async(flow: Generator[EffectT, Any, T], perform: Callable[[EffectT], Awaitable[object]]) -> T:
    """Run a flow in this task; returns its result."""
    try:
        effect = next(flow)
        while True:
            try:
                result = await perform(effect)
            except BaseException as error:
                # CancelledError too: the flow may hold a lock.
                effect = flow.throw(error)
            else:
                effect = flow.send(result)
    except StopIteration as end:
        value: T = end.value
        return value


def _new_key() -> str:
    return os.urandom(16).hex()


class Runtime(msgspec.Struct, frozen=True):
    """Clocks, sleep and random source, injected. `monotonic` serves deadlines, `now` (Unix time) token lifetimes."""

    # Looked up with each call: gevent and freezegun may replace them at any time.
    sleep: Callable[[float], None] = lambda seconds: time.sleep(seconds)
    async_sleep: Callable[[float], Awaitable[None]] | None = None
    monotonic: Callable[[], float] = lambda: time.monotonic()
    now: Callable[[], float] = lambda: time.time()
    jitter: Callable[[], float] = random.random
    new_key: Callable[[], str] = _new_key

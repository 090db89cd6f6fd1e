"""What a flow asks of its driver, and what the driver must lend to it.

A flow is a generator that decides; a driver does what it yields and sends back what came of it, or throws in what
went wrong. So authentication, retries and errors are written once for threads and for tasks.
"""

import os
import random
import time
from collections.abc import Awaitable, Callable, Generator
from typing import Any, Protocol, TypeAlias, TypeVar

import msgspec

from ..contract.exchange import ApiResponse, Request

T = TypeVar("T")


class Lock(Protocol):
    """What threading.Lock and asyncio.Lock have in common: letting go never waits."""

    def release(self) -> None: ...


class Send(msgspec.Struct, frozen=True):
    """Send a request and give back the Reply. `headers` and `body` are those of the wire, secrets included.

    Of a 2xx that is `streamed` the body is left to be read by the Reply's stream.
    """

    request: Request
    headers: dict[str, str]
    body: bytes | None
    streamed: bool = False

    def __repr__(self) -> str:
        return f"Send({self.request})"


class Pause(msgspec.Struct, frozen=True):
    """Wait."""

    seconds: float


class Hold(msgspec.Struct, frozen=True):
    """Take a lock, or raise TimedOut at the deadline. The flow releases it."""

    lock: Lock


class Ask(msgspec.Struct, frozen=True):
    """Call a function of the user's, which may be a coroutine function where the driver is async."""

    function: Callable[[Any], object]
    argument: object


Step: TypeAlias = Send | Pause | Hold | Ask
# What is sent into a flow depends on the step that it answers, which no type of today's can say.
Flow: TypeAlias = Generator[Step, Any, T]


def _new_key() -> str:
    return os.urandom(16).hex()


class World(msgspec.Struct, frozen=True):
    """Time and chance, which come in by the door: `monotonic` for deadlines, `now` for the lives of tokens."""

    sleep: Callable[[float], None] = time.sleep
    asleep: Callable[[float], Awaitable[None]] | None = None
    monotonic: Callable[[], float] = time.monotonic
    now: Callable[[], float] = time.time
    chance: Callable[[], float] = random.random
    new_key: Callable[[], str] = _new_key


class Hooks(msgspec.Struct, frozen=True):
    """The user's own eyes on the wire."""

    on_request: Callable[[Request], object] | None = None
    on_response: Callable[[ApiResponse[None]], object] | None = None

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            function = getattr(self, name)
            if function is not None and not callable(function):
                raise TypeError(f"{name} must be callable")

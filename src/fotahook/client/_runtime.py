"""What flows run on: the verbs of a transport, and clocks, sleep and random source, injected.

A flow is a coroutine that decides about tokens, retries and errors. The asynchronous transport awaits what it does for
a flow; the synchronous one blocks instead, so that its flows never wait and `run_now` returns their results.
"""

import os
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Protocol, TypeVar

import msgspec

from ..contract.exchange import Masked, Reply, Request, Secret

T = TypeVar("T")


class Send(Masked, frozen=True):
    """A request to send. `body` goes out as it is, secrets included.

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


class Lock(Protocol):
    """A threading.Lock or an asyncio.Lock."""

    def release(self) -> None: ...


class Stream(Protocol):
    """The body of a streamed response, on a connection of its own.

    `read` returns the next bytes, within so many seconds; empty at the end. `close` ends a read in another thread.
    """

    async def read(self, seconds: float) -> bytes: ...
    def close(self) -> None: ...


class Transport(Protocol):
    """Does the I/O of flows; deadlines are on the monotonic clock, TimedOut when one passes.

    `begin` prepares for a flow: RuntimeError if the transport is closed. `acquire` returns the lock of a token, which
    the flow releases. `invoke` calls a function of the user's, a coroutine function only if the transport is
    asynchronous. `close` closes the streams and the connections that are not in use.
    """

    def begin(self) -> None: ...
    async def send(self, send: Send, deadline: float) -> Reply: ...
    async def acquire(self, token: object, deadline: float) -> Lock: ...
    async def invoke(self, function: Callable[[Any], object], argument: object, deadline: float) -> Any: ...
    async def sleep(self, seconds: float) -> None: ...
    async def close(self) -> None: ...


def run_now(flow: Coroutine[Any, Any, T]) -> T:
    """The result of a flow that never waits."""
    try:
        flow.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    flow.close()
    raise RuntimeError("a flow waited in a thread")


class Runtime(msgspec.Struct, frozen=True):
    """Clocks, sleep and random source, injected. `monotonic` serves deadlines, `now` (Unix time) token lifetimes."""

    # Looked up with each call: gevent and freezegun may replace them at any time.
    sleep: Callable[[float], None] = lambda seconds: time.sleep(seconds)
    async_sleep: Callable[[float], Awaitable[None]] | None = None
    monotonic: Callable[[], float] = lambda: time.monotonic()
    now: Callable[[], float] = lambda: time.time()
    jitter: Callable[[], float] = random.random
    new_key: Callable[[], str] = lambda: os.urandom(16).hex()

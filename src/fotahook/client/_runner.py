"""Between a client and urllib3: opened on first use, dropped after a fork, closed once."""

import os
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from ..contract.calls import Call
from ..contract.exchange import ApiResponse
from ._flow import Caller, Limits
from ._settings import Connecting, Patience
from ._steps import Flow, World

if TYPE_CHECKING:
    from ._sync import Transport

T = TypeVar("T")

MakeFlow = Callable[[Limits], Flow[T]]


class Runner:
    """Runs the flows of a client in the calling thread; any number of threads may call."""

    def __init__(self, caller: Caller, connecting: Connecting, patience: Patience, world: World) -> None:
        self._caller, self._connecting, self._patience, self._world = caller, connecting, patience, world
        self._transport: Transport | None = None
        self._opening = threading.Lock()
        self._closed = False
        caller.renew_locks(threading.Lock)
        _live.add(self)

    def call(self, call: Call[T], timeout: float | None, max_retries: int | None) -> ApiResponse[T]:
        """The answer to a call."""
        limits = self._patience.limits(self._world.monotonic(), timeout, max_retries)
        return self._open().drive(self._caller.perform(call, limits), limits.deadline)

    def run(self, flow: MakeFlow[T]) -> T:
        """What a flow comes to, within the client's own limits."""
        limits = self._patience.limits(self._world.monotonic(), None, None)
        return self._open().drive(flow(limits), limits.deadline)

    def close(self) -> None:
        """Close the connections; a later call raises RuntimeError."""
        self._closed = True
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()

    def after_fork(self) -> None:
        """In a child: the connections are the parent's, and so is whoever held the locks."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abandon()
        self._opening = threading.Lock()
        self._caller.renew_locks(threading.Lock)

    def _open(self) -> "Transport":
        transport = self._transport
        if transport is None:
            # Imported here so that `import fotahook` brings no HTTP library along.
            from ._sync import Transport

            with self._opening:
                if self._closed:
                    raise RuntimeError("the client is closed")
                transport = self._transport = self._transport or Transport(self._connecting, self._world.sleep)
        return transport


_live: "weakref.WeakSet[Runner]" = weakref.WeakSet()


def _after_fork() -> None:
    for runner in list(_live):
        runner.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

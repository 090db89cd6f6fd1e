"""Between an async client and aiohttp: opened on first use in each event loop, closed once.

Apart from _runner, for a program without asyncio need not load it.
"""

import asyncio
from collections.abc import Awaitable
from typing import TYPE_CHECKING, TypeVar

from ..contract.calls import Call
from ..contract.exchange import ApiResponse
from ._flow import Caller
from ._runner import MakeFlow
from ._settings import Connecting, Patience
from ._steps import World

if TYPE_CHECKING:
    from ._async import AsyncTransport

T = TypeVar("T")


class AsyncRunner:
    """Runs the flows of a client in the running event loop, one loop at a time."""

    def __init__(self, caller: Caller, connecting: Connecting, patience: Patience, world: World) -> None:
        self._caller, self._connecting, self._patience, self._world = caller, connecting, patience, world
        self._transport: AsyncTransport | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    def call(self, call: Call[T], timeout: float | None, max_retries: int | None) -> Awaitable[ApiResponse[T]]:
        """The answer to a call."""
        now = self._world.monotonic()
        limits = self._patience.limits(now, timeout, max_retries)
        return self._open().drive(self._caller.perform(call, limits), limits.deadline - now)

    def run(self, flow: MakeFlow[T]) -> Awaitable[T]:
        """What a flow comes to, within the client's own limits."""
        now = self._world.monotonic()
        limits = self._patience.limits(now, None, None)
        return self._open().drive(flow(limits), limits.deadline - now)

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await self._open().sleep(seconds)

    async def close(self) -> None:
        """Close the connections; a later call raises RuntimeError."""
        self._closed = True
        transport, self._transport = self._transport, None
        if transport is not None:
            await transport.close()

    def _open(self) -> "AsyncTransport":
        loop = asyncio.get_running_loop()
        if self._transport is None or loop is not self._loop:
            self._transport = self._renewed()
            self._loop = loop
        return self._transport

    def _renewed(self) -> "AsyncTransport":
        if self._closed:
            raise RuntimeError("the client is closed")
        try:
            from ._async import AsyncTransport
        except ImportError as error:
            raise ImportError("AsyncClient needs aiohttp: pip install 'fotahook[async]'") from error
        # Connections and locks belong to the loop that they were made in.
        self._caller.renew_locks(asyncio.Lock)
        return AsyncTransport(self._connecting, self._world.asleep)

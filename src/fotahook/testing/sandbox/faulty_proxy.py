"""A proxy in front of a receiver that injects faults, for services that run elsewhere."""

import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from anyio.from_thread import start_blocking_portal
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from fotahook.contract.addresses import EVERYWHERE
from fotahook.delivery.sender import Sender, SenderSettings

from ..simulator.fault_script import Drop, Duplicate, Fault, UntrustedCertificate
from .fault_injection import FaultQueue
from .http_server import UntrustedReceiver, serving, untrusted_receiver, with_fault

_HOP_BY_HOP: Final = frozenset({b"host", b"content-length", b"connection", b"transfer-encoding", b"keep-alive"})


@dataclass(eq=False)
class FaultyProxy:
    """Forwards requests to `upstream`, or answers 200 itself without one, with faults that are injected."""

    url: str
    upstream: str | None
    register: Callable[[str], object]
    """Makes a URL the account's callback: that of the proxy, or for a time that of the untrusted receiver."""
    sender: Sender
    untrusted: UntrustedReceiver
    faults: FaultQueue = field(default_factory=FaultQueue)
    forwarded: int = 0
    """The number of requests forwarded, duplicates included."""
    _dropped: set[tuple[bytes, bytes]] = field(default_factory=set)
    _untrusted_until: int | None = None

    def inject(self, fault: Fault) -> None:
        """Let the next requests meet a fault."""
        if isinstance(fault, UntrustedCertificate):
            self._untrusted_until = self.untrusted.connections + fault.times
            self.register(self.untrusted.url)
        else:
            self.faults.add(fault)

    def restore_certificate(self) -> None:
        """Register the trusted address again once enough attempts met the untrusted one."""
        if self._untrusted_until is not None and self.untrusted.connections >= self._untrusted_until:
            self._untrusted_until = None
            self.register(self.url)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        fault = self._fault(scope)
        forward = partial(self._forward, 2 if isinstance(fault, Duplicate) else 1)
        await with_fault(forward, fault)(scope, receive, send)

    def _fault(self, scope: Scope) -> Fault | None:
        """The fault of this request. An attempt that was dropped is dropped again when the sender repeats it."""
        headers = dict(scope["headers"])
        attempt = headers.get(b"webhook-id", b""), headers.get(b"fotahook-attempt", b"")
        if attempt in self._dropped:
            return Drop()
        fault = self.faults.take()
        if isinstance(fault, Drop) and all(attempt):
            self._dropped.add(attempt)
        return fault

    async def _forward(self, times: int, scope: Scope, receive: Receive, send: Send) -> None:
        body = await Request(scope, receive).body()
        for _ in range(times - 1):
            await self._post(scope, body)
        response = await self._post(scope, body)
        await response(scope, receive, send)

    async def _post(self, scope: Scope, body: bytes) -> Response:
        """A response with the upstream's status and Retry-After; 502 if it does not respond."""
        self.forwarded += 1
        if self.upstream is None:
            return Response()
        kept = [header for header in scope["headers"] if header[0] not in _HOP_BY_HOP]
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in kept}
        outcome = await self.sender.send(self.upstream, headers, body)
        after = {} if outcome.retry_after is None else {"Retry-After": f"{outcome.retry_after:.0f}"}
        return Response(status_code=outcome.status or 502, headers=after)


@contextmanager
def faulty_proxy(
    upstream: str | None = None, register: Callable[[str], object] = lambda url: None
) -> Iterator[FaultyProxy]:
    """A proxy that runs in a thread, on a free port of 127.0.0.1."""
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(_running(upstream, register)) as proxy:
        yield proxy


@asynccontextmanager
async def _running(upstream: str | None, register: Callable[[str], object]) -> AsyncIterator[FaultyProxy]:
    async with AsyncExitStack() as stack:
        bound = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        settings = SenderSettings(secret_key=b"", allowed_networks=EVERYWHERE)
        sender = await stack.enter_async_context(Sender(settings, clock=time.time, monotonic=time.monotonic))
        untrusted = await stack.enter_async_context(untrusted_receiver())
        proxy = FaultyProxy(f"http://127.0.0.1:{bound.getsockname()[1]}/", upstream, register, sender, untrusted)
        await stack.enter_async_context(serving(proxy, bound))
        yield proxy

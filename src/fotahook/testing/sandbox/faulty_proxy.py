"""A gate before a receiver: what comes is passed on, unless it is to go wrong here. For services that run elsewhere."""

import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Final

import aiohttp
from anyio.from_thread import start_blocking_portal
from starlette.types import Receive, Scope, Send

from .fault_injection import DeliveryFaults, Drop, Duplicate, Trouble
from .http_server import answer, read_body, serving, troubled
from .untrusted_receiver import Distrusted, distrusted

_HOP_BY_HOP: Final = frozenset({b"host", b"content-length", b"connection", b"transfer-encoding", b"keep-alive"})
_ONWARD_SECONDS: Final = 15.0


class Gate:
    """Where it is, what is to go wrong, and how many requests got through. Without `onward` it answers 200 itself."""

    def __init__(self, url: str, onward: str | None, session: aiohttp.ClientSession, trap: Distrusted) -> None:
        self.url = url
        self.trap = trap
        self.faults = DeliveryFaults()
        self._onward = onward
        self._session = session
        self._dropped: set[tuple[bytes, bytes]] = set()
        self._lock = threading.Lock()
        self._passed = 0

    @property
    def passed(self) -> int:
        """Requests that got through, repetitions too."""
        with self._lock:
            return self._passed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        trouble = self._trouble(scope)
        await troubled(self._twice if isinstance(trouble, Duplicate) else self._once, trouble)(scope, receive, send)

    def _trouble(self, scope: Scope) -> Trouble | None:
        """The trouble of this request. A dropped attempt is dropped again when it comes again: it is the same one."""
        headers = dict(scope["headers"])
        attempt = headers.get(b"webhook-id", b""), headers.get(b"fotahook-attempt", b"")
        if attempt in self._dropped:
            return Drop()
        trouble = self.faults.deliveries.take("")
        if isinstance(trouble, Drop) and all(attempt):
            self._dropped.add(attempt)
        return trouble

    async def _once(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._pass(scope, await read_body(receive), send)

    async def _twice(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await read_body(receive)
        await self._post(scope, body)
        await self._pass(scope, body, send)

    async def _pass(self, scope: Scope, body: bytes, send: Send) -> None:
        status, headers = await self._post(scope, body)
        await answer(send, status, headers=headers)

    async def _post(self, scope: Scope, body: bytes) -> tuple[int, tuple[tuple[bytes, bytes], ...]]:
        """What the receiver answers: its status, and its Retry-After."""
        with self._lock:
            self._passed += 1
        if self._onward is None:
            return 200, ()
        kept = [header for header in scope["headers"] if header[0] not in _HOP_BY_HOP]
        headers = [(name.decode("utf-8", "replace"), value.decode("utf-8", "replace")) for name, value in kept]
        try:
            async with self._session.post(self._onward, data=body, headers=headers, allow_redirects=False) as answered:
                after = answered.headers.get("Retry-After")
                return answered.status, (((b"retry-after", after.encode("latin-1")),) if after else ())
        except (aiohttp.ClientError, TimeoutError):
            return 502, ()


@contextmanager
def gate(onward: str | None = None) -> Iterator[Gate]:
    """A gate at work in a thread, on a free port of 127.0.0.1."""
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(_at_work(onward)) as made:
        yield made


@asynccontextmanager
async def _at_work(onward: str | None) -> AsyncIterator[Gate]:
    async with AsyncExitStack() as stack:
        bound = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        timeout = aiohttp.ClientTimeout(total=_ONWARD_SECONDS)
        session = await stack.enter_async_context(aiohttp.ClientSession(timeout=timeout, auto_decompress=False))
        trap = await stack.enter_async_context(distrusted())
        made = Gate(f"http://127.0.0.1:{bound.getsockname()[1]}/", onward, session, trap)
        await stack.enter_async_context(serving(made, bound))
        yield made

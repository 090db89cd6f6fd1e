"""HTTP servers for tests: receivers, and a proxy that injects faults in front of a receiver elsewhere."""

import asyncio
import socket
import ssl
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import unquote

import msgspec
import uvicorn
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from fotahook.contract.addresses import EVERYWHERE
from fotahook.contract.messages import CallbackMessage, MessageInvalid, parse_message
from fotahook.delivery.sender import Sender, SenderSettings

from ...hosting.gate import Gate
from ..certificates import make_certificates
from ..simulator.faults import Delay, Drop, Duplicate, ErrorResponse, Fault, FaultQueue, UntrustedCertificate

_HOP_BY_HOP: Final = frozenset({b"host", b"content-length", b"connection", b"transfer-encoding", b"keep-alive"})


class _Droppable(HttpToolsProtocol):
    """HTTP/1.1 whose apps may close the connection without a response."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        cast(dict[str, Any], self.scope)["fotahook.drop"] = self.transport.abort


@asynccontextmanager
async def serving(app: ASGIApp, bound: socket.socket) -> AsyncIterator[None]:
    """Serve an app on a listening socket. Clients may connect before the server has started."""
    config = uvicorn.Config(
        Gate(app), http=_Droppable, ws="none", lifespan="off", log_config=None, access_log=False, server_header=False
    )
    # asyncio does this only for sockets whose protocol number is given, which create_server's is not. Without it each
    # response, head and body in two writes, takes 40 ms.
    bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve([bound]), name="serving")
    try:
        yield
    finally:
        # Requests without a response yet are of no interest any more.
        server.should_exit = server.force_exit = True
        await task


async def drop_connection(scope: Scope, receive: Receive) -> None:
    scope["fotahook.drop"]()
    while (await receive())["type"] != "http.disconnect":
        pass


async def with_fault(fault: Fault | None, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Pass a request to the app, with a fault injected."""
    match fault:
        case ErrorResponse():
            await Request(scope, receive).body()
            headers = {} if fault.retry_after is None else {"retry-after": f"{fault.retry_after:.0f}"}
            body = {"errorCode": "SANDBOX_FAULT", "errorMessage": "A test asked for this answer."}
            empty = fault.status in (204, 304)
            response = Response(None, fault.status, headers) if empty else JSONResponse(body, fault.status, headers)
            await response(scope, receive, send)
        case Drop():
            await drop_connection(scope, receive)
        case _:
            await asyncio.sleep(fault.seconds if isinstance(fault, Delay) else 0)
            await app(scope, receive, send)


class UntrustedReceiver:
    """A receiver that clients who verify certificates refuse. It closes the connections of those who do not."""

    url = ""
    connections = 0

    def connect(self) -> asyncio.Protocol:
        """Called when a client connects, before the handshake that is going to fail."""
        self.connections += 1
        return asyncio.StreamReaderProtocol(asyncio.StreamReader(), lambda _, writer: writer.close())


@asynccontextmanager
async def untrusted_receiver() -> AsyncIterator[UntrustedReceiver]:
    context, receiver = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), UntrustedReceiver()
    with tempfile.TemporaryDirectory(prefix="fotahook-untrusted-") as folder:
        made = make_certificates(Path(folder), "127.0.0.1")
        context.load_cert_chain(made.cert_file, made.key_file)
    loop = asyncio.get_running_loop()
    async with await loop.create_server(receiver.connect, "127.0.0.1", 0, ssl=context) as server:
        receiver.url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        yield receiver


class Received(msgspec.Struct, frozen=True, kw_only=True):
    """One request. Header names are in lower case; `id` and `account` are those of the headers."""

    id: str
    account: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def message(self) -> CallbackMessage:
        """The message in the body. Raises MessageInvalid if it is not JSON."""
        return parse_message(self.body)


class Receiver:
    """Answers 200 to everything. It is an ASGI app; its methods are for other threads."""

    def __init__(self, url: str) -> None:
        self.url, self._received, self._changed = url, list[Received](), threading.Condition()

    @property
    def received(self) -> list[Received]:
        """Every request so far, duplicates included, in the order of arrival."""
        return list(self._received)

    def wait(
        self, count: int = 1, *, kind: str | None = None, account: str | None = None, timeout: float = 30.0
    ) -> list[Received]:
        """Wait for `count` requests of this kind and account and return them. Raises TimeoutError with what arrived.

        `kind` is the message's ``type``, or the name of its one member; `timeout` is in real seconds.
        """

        def found() -> list[Received]:
            return [one for one in self._received if account in (None, one.account) and kind in (None, _kind(one))]

        with self._changed:
            if self._changed.wait_for(lambda: len(found()) >= count, timeout):
                return found()
            last = ", ".join(f"{_kind(one)} for {one.account or 'nobody'}" for one in self._received[-10:])
        raise TimeoutError(f"{len(found())} of {count} came in {timeout:g} s; the last: {last or 'nothing'}")

    def clear(self) -> None:
        """Forget the requests so far."""
        self._received.clear()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await Request(scope, receive).body()
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        message, account = headers.get("webhook-id", ""), unquote(headers.get("fotahook-account", ""))
        # Before the response: a test that waited for the delivery finds it here.
        with self._changed:
            self._received.append(Received(id=message, account=account, headers=headers, body=body))
            self._changed.notify_all()
        await Response()(scope, receive, send)


def _kind(received: Received) -> str | None:
    try:
        return received.message.kind
    except MessageInvalid:
        return None


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
        headers = dict(scope["headers"])
        attempt = headers.get(b"webhook-id", b""), headers.get(b"fotahook-attempt", b"")
        # An attempt that was dropped is dropped again when the sender repeats it.
        fault = Drop() if attempt in self._dropped else self.faults.take()
        if isinstance(fault, Drop) and all(attempt):
            self._dropped.add(attempt)
        forward = partial(self._forward, 2 if isinstance(fault, Duplicate) else 1)
        await with_fault(fault, forward, scope, receive, send)

    async def _forward(self, times: int, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond with the upstream's status and Retry-After; 502 if it does not respond."""
        body, response = await Request(scope, receive).body(), Response()
        kept = [header for header in scope["headers"] if header[0] not in _HOP_BY_HOP]
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in kept}
        for _ in range(times):
            self.forwarded += 1
            if self.upstream is not None:
                outcome = await self.sender.send(self.upstream, headers, body)
                after = {} if outcome.retry_after is None else {"Retry-After": f"{outcome.retry_after:.0f}"}
                response = Response(status_code=outcome.status or 502, headers=after)
        await response(scope, receive, send)


@asynccontextmanager
async def faulty_proxy(upstream: str | None, register: Callable[[str], object]) -> AsyncIterator[FaultyProxy]:
    """A proxy on a free port of 127.0.0.1."""
    settings = SenderSettings(secret_key=b"", allowed_networks=EVERYWHERE)
    with socket.create_server(("127.0.0.1", 0)) as bound:
        url = f"http://127.0.0.1:{bound.getsockname()[1]}/"
        async with Sender(settings, clock=time.time, monotonic=time.monotonic) as sender, untrusted_receiver() as other:
            proxy = FaultyProxy(url, upstream, register, sender, other)
            async with serving(proxy, bound):
                yield proxy

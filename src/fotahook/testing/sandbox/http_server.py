"""HTTP servers for tests: one whose apps may drop a connection, and a receiver with an untrusted certificate."""

import asyncio
import socket
import ssl
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import uvicorn
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ...hosting.gate import Gate
from ..certificates import make_certificates
from ..simulator.fault_script import Delay, Drop, ErrorResponse, Fault

_DROP: Final = "fotahook.drop"


class _Droppable(HttpToolsProtocol):
    """HTTP/1.1 whose apps may close the connection without a response."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        cast(dict[str, Any], self.scope)[_DROP] = self.transport.abort


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
        server.should_exit = True
        # Requests without a response yet are of no interest any more.
        server.force_exit = True
        await task


async def drop_connection(scope: Scope, receive: Receive) -> None:
    """Close the connection without a response."""
    scope[_DROP]()
    while (await receive())["type"] != "http.disconnect":
        pass


def with_fault(app: ASGIApp, fault: Fault | None) -> ASGIApp:
    """The app with a fault injected into the request."""

    async def faulty(scope: Scope, receive: Receive, send: Send) -> None:
        match fault:
            case ErrorResponse():
                await Request(scope, receive).body()
                headers = {} if fault.retry_after is None else {"retry-after": str(fault.retry_after)}
                body = {"errorCode": "SANDBOX_FAULT", "errorMessage": "A test asked for this answer."}
                empty = fault.status in (204, 304)
                response = Response(None, fault.status, headers) if empty else JSONResponse(body, fault.status, headers)
                await response(scope, receive, send)
                return
            case Drop():
                await drop_connection(scope, receive)
                return
            case Delay():
                await asyncio.sleep(fault.seconds)
        await app(scope, receive, send)

    return faulty


@dataclass
class UntrustedReceiver:
    """Its URL, and how many connections were made to it."""

    url: str
    connections: int = 0


@asynccontextmanager
async def untrusted_receiver() -> AsyncIterator[UntrustedReceiver]:
    """A receiver that clients who verify certificates refuse. It closes the connections of those who do not."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory(prefix="fotahook-untrusted-") as folder:
        made = make_certificates(Path(folder), "127.0.0.1")
        context.load_cert_chain(made.cert_file, made.key_file)

    class Closing(asyncio.Protocol):
        def __init__(self) -> None:
            # Created when a client connects, before the handshake that is going to fail.
            receiver.connections += 1

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            transport.close()

    async with await asyncio.get_running_loop().create_server(Closing, "127.0.0.1", 0, ssl=context) as server:
        receiver = UntrustedReceiver(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
        yield receiver

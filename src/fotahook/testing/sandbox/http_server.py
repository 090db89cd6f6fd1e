"""HTTP by hand: a server whose connections can be dropped, and the little that an ASGI app of tests needs."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, cast

import msgspec
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from .fault_injection import Answer, Delay, Drop, Trouble

_DROP: Final = "fotahook.drop"


class _Droppable(HttpToolsProtocol):
    """HTTP/1.1 whose apps may close the connection without an answer."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        cast(dict[str, Any], self.scope)[_DROP] = self.transport.abort


@asynccontextmanager
async def serving(app: ASGIApp, bound: socket.socket) -> AsyncIterator[None]:
    """Serve on a socket that listens already: who connects before the server is up waits for it."""
    config = uvicorn.Config(
        app, http=_Droppable, ws="none", lifespan="off", log_config=None, access_log=False, server_header=False
    )
    # asyncio does this only for sockets whose protocol number is given, which create_server's is not. Without it each
    # answer, head and body in two writes, takes 40 ms.
    bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve([bound]), name="serving")
    try:
        yield
    finally:
        server.should_exit = True
        # Whoever is not answered yet is of no interest to anybody who leaves.
        server.force_exit = True
        await task


async def read_body(receive: Receive) -> bytes:
    """The whole body of a request."""
    parts: list[bytes] = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


async def answer(send: Send, status: int, body: bytes = b"", headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
    """A whole answer."""
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [length, *headers]})
    await send({"type": "http.response.body", "body": body})


async def drop(scope: Scope, receive: Receive) -> None:
    """Close the connection without an answer."""
    scope[_DROP]()
    while (await receive())["type"] != "http.disconnect":
        pass


def troubled(app: ASGIApp, trouble: Trouble | None) -> ASGIApp:
    """The same app as somebody meets it who has this trouble."""

    async def met(scope: Scope, receive: Receive, send: Send) -> None:
        match trouble:
            case Answer():
                await read_body(receive)
                await _refuse(send, trouble)
            case Drop():
                await drop(scope, receive)
            case Delay():
                await asyncio.sleep(trouble.seconds)
                await app(scope, receive, send)
            case _:
                await app(scope, receive, send)

    return met


async def _refuse(send: Send, trouble: Answer) -> None:
    headers = [(b"content-type", b"application/json")]
    if trouble.retry_after is not None:
        headers.append((b"retry-after", b"%d" % trouble.retry_after))
    body = msgspec.json.encode({"errorCode": "SANDBOX_FAULT", "errorMessage": "A test asked for this answer."})
    await answer(send, trouble.status, b"" if trouble.status in (204, 304) else body, tuple(headers))

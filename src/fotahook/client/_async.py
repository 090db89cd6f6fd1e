"""Does: sends over aiohttp what a flow decides, in the running event loop."""

import asyncio
import io
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import TypeVar

import aiohttp
from yarl import URL

from ..contract.errors import FotahookError, TimedOut
from ..contract.exchange import Headers, Reply, Request
from ._edge import MAX_BODY, context_for, too_large, translated
from ._environment import proxy_for
from ._settings import Connecting
from ._steps import Ask, Flow, Hold, Pause, Send, Step

T = TypeVar("T")

AT_ONCE = 256 * 1024


class AsyncTransport:
    """A connection pool on one event loop, and the driver of flows over it."""

    def __init__(self, connecting: Connecting, sleep: Callable[[float], Awaitable[None]] | None) -> None:
        self._connecting = connecting
        self._sleep = sleep or asyncio.sleep
        self._proxies: dict[str, dict[str, object]] = {}
        self._http: aiohttp.ClientSession | None = None

    async def drive(self, steps: Flow[T], seconds: float) -> T:
        """What the flow comes to; what it raises. Cancelled, it closes the connection in use."""
        step: Step | None = None
        try:
            async with asyncio.timeout(seconds):
                step = next(steps)
                while True:
                    try:
                        answer = await (self._send(step) if isinstance(step, Send) else self._other(step))
                    except BaseException as error:
                        # Cancellation too: the flow may hold a lock.
                        step = steps.throw(error)
                    else:
                        step = steps.send(answer)
        except StopIteration as done:
            result: T = done.value
            return result
        except TimeoutError as error:
            raise _timed_out(step) from error

    async def close(self) -> None:
        """Close all connections."""
        http, self._http = self._http, None
        if http is not None:
            await http.close()

    async def _other(self, step: Pause | Hold | Ask) -> object:
        if isinstance(step, Pause):
            await self._sleep(step.seconds)
            return None
        if isinstance(step, Hold):
            assert isinstance(step.lock, asyncio.Lock)
            return await step.lock.acquire()
        return await _ask(step)

    async def _send(self, step: Send) -> Reply:
        request = step.request
        origin = request.url[: request.url.index("/", 8)]
        proxy = self._proxies.get(origin)
        if proxy is None:
            proxy = self._proxies[origin] = self._proxy(origin)
        http = self._http or self._open()
        try:
            response = await http.request(
                request.method,
                URL(request.url, encoded=True),
                data=_data(step.body),
                headers=step.headers,
                allow_redirects=False,
                **proxy,  # type: ignore[arg-type]
            )
            return await _whole(response, request)
        except (FotahookError, TimeoutError):
            raise
        except (aiohttp.ClientError, OSError, ArithmeticError, ValueError) as error:
            raise translated(error, request, late=False) from error

    def _open(self) -> aiohttp.ClientSession:
        # No limit of connections here: how many calls run at once is the caller's to say.
        connector = aiohttp.TCPConnector(limit=0, ssl=context_for(self._connecting))
        self._http = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
            auto_decompress=False,
            trust_env=False,
        )
        return self._http

    def _proxy(self, origin: str) -> dict[str, object]:
        proxy = proxy_for(origin, self._connecting.proxy)
        if proxy is None:
            return {}
        known = proxy.authorization
        # aiohttp turns it into Proxy-Authorization, on the tunnel's request or on the call's own.
        return {"proxy": proxy.url, "proxy_headers": {"Authorization": known} if known else None}


def _data(body: bytes | None) -> bytes | io.BytesIO | None:
    # aiohttp writes bytes in one go, and warns of the time that a large body may take so.
    return io.BytesIO(body) if body is not None and len(body) > AT_ONCE else body


def _timed_out(step: Step | None) -> TimedOut:
    if isinstance(step, Send):
        request = step.request
        return TimedOut(f"{request.method} {request.url}: no whole answer before the deadline", request=request)
    return TimedOut("the deadline passed while another call was fetching the token")


async def _whole(response: aiohttp.ClientResponse, request: Request) -> Reply:
    """The reply with all of its body, or as much as shows that it is too large."""
    pieces, size = [], 0
    try:
        async for piece in response.content.iter_any():
            pieces.append(piece)
            size += len(piece)
            if size > MAX_BODY:
                break
    finally:
        # At its end the body has let go of the connection; short of it, nothing else may use that.
        if not response.content.at_eof():
            response.close()
    # Read as http.client reads them, so that both clients show the same text.
    headers = Headers((name.decode("latin-1"), value.decode("latin-1")) for name, value in response.raw_headers)
    reply = Reply(response.status, response.reason or "", headers, b"".join(pieces))
    if size > MAX_BODY:
        raise too_large(request, reply)
    return reply


async def _ask(step: Ask) -> object:
    answer = step.function(step.argument)
    return await answer if isawaitable(answer) else answer

"""Does: sends over aiohttp what a flow decides, in the running event loop."""

import asyncio
import io
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable
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
        self._ways: dict[str, dict[str, object]] = {}
        self._http: aiohttp.ClientSession | None = None
        self._streams: weakref.WeakSet[AsyncStream] = weakref.WeakSet()
        self._opened: AsyncGenerator[aiohttp.ClientSession, None] | None = None

    async def drive(self, steps: Flow[T], seconds: float) -> T:
        """What the flow comes to; what it raises. Cancelled, it closes the connection in use."""
        step: Step | None = None
        deadline = _Deadline(seconds)
        try:
            with deadline:
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
            # A function of the user's may have raised one of its own.
            if not deadline.passed:
                raise
            raise _timed_out(step) from error

    async def close(self) -> None:
        """Close all connections."""
        for stream in list(self._streams):
            stream.close()
        opened, self._opened, self._http = self._opened, None, None
        if opened is not None:
            await opened.aclose()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await self._sleep(seconds)

    async def _other(self, step: Pause | Hold | Ask) -> object:
        if isinstance(step, Pause):
            await self.sleep(step.seconds)
            return None
        if isinstance(step, Hold):
            assert isinstance(step.lock, asyncio.Lock)
            return await step.lock.acquire()
        return await _ask(step)

    async def _send(self, step: Send) -> Reply:
        request = step.request
        origin = request.url[: request.url.index("/", 8)]
        way = self._ways.get(origin)
        if way is None:
            way = self._ways[origin] = self._way(origin)
        http = self._http or await self._open()
        try:
            response = await http.request(
                request.method,
                URL(request.url, encoded=True),
                data=_data(step.body),
                headers=step.headers,
                allow_redirects=False,
                **way,  # type: ignore[arg-type]  # a dict of keywords of several types
            )
            if step.streamed and 200 <= response.status < 300:
                stream = AsyncStream(response, request)
                self._streams.add(stream)
                return _reply(response, b"", stream)
            return await _whole(response, request)
        except FotahookError:
            raise
        except aiohttp.ClientResponseError as error:
            # It holds the request's headers with the tokens; the parser's own error beneath says what was wrong.
            raise translated(error, request, late=False) from error.__cause__
        except (aiohttp.ClientError, OSError, ArithmeticError, ValueError) as error:
            raise translated(error, request, late=False) from error

    async def _open(self) -> aiohttp.ClientSession:
        self._opened = _session()
        self._http = await anext(self._opened)
        return self._http

    def _way(self, origin: str) -> dict[str, object]:
        """What a request to an origin needs: certificates for https alone, for they take long to load."""
        way: dict[str, object] = {}
        if origin.startswith("https:"):
            way["ssl"] = context_for(self._connecting)
        proxy = proxy_for(origin, self._connecting.proxy)
        if proxy is not None:
            known = proxy.authorization
            way["proxy"] = proxy.url
            # aiohttp turns it into Proxy-Authorization, on the tunnel's request or on the call's own.
            way["proxy_headers"] = {"Authorization": known} if known else None
        return way


async def _session() -> AsyncGenerator[aiohttp.ClientSession, None]:
    """A session, closed with the generator: by the event loop itself, where it ends first or the client is dropped."""
    async with aiohttp.ClientSession(
        # No limit of connections here: how many calls run at once is the caller's to say.
        connector=aiohttp.TCPConnector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
        auto_decompress=False,
        trust_env=False,
    ) as http:
        yield http


class AsyncStream:
    """The body of an answer that goes on, on a connection of its own."""

    def __init__(self, response: aiohttp.ClientResponse, request: Request) -> None:
        self._response, self._request = response, request

    async def read(self, seconds: float) -> bytes:
        """What has come, or comes within so many seconds; empty at the end."""
        try:
            async with asyncio.timeout(seconds):
                return await self._response.content.readany()
        except (aiohttp.ClientError, OSError, ArithmeticError, ValueError) as error:
            raise translated(error, self._request, late=isinstance(error, TimeoutError)) from error

    def close(self) -> None:
        """Close the connection."""
        self._response.close()


class _Deadline:
    """What asyncio.timeout() does, at half of its cost, which is a twentieth of a call."""

    def __init__(self, seconds: float) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task, self._cancelling, self.passed = task, task.cancelling(), False
        self._timer = task.get_loop().call_later(seconds, self._pass)

    def _pass(self) -> None:
        self.passed = True
        self._task.cancel()

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._timer.cancel()
        # Somebody else's cancellation goes on as one.
        if self.passed and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error


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
    content, pieces, size = response.content, [], 0
    try:
        while size <= MAX_BODY and not content.at_eof():
            pieces.append(await content.readany())
            size += len(pieces[-1])
    finally:
        # At its end the body has let go of the connection; short of it, nothing else may use that.
        if not content.at_eof():
            response.close()
    reply = _reply(response, b"".join(pieces))
    if size > MAX_BODY:
        raise too_large(request, reply)
    return reply


def _reply(response: aiohttp.ClientResponse, body: bytes, stream: object = None) -> Reply:
    # The raw headers, for aiohttp reads them as UTF-8 and http.client does not.
    return Reply(response.status, response.reason or "", Headers(response.raw_headers), body, stream)


async def _ask(step: Ask) -> object:
    answer = step.function(step.argument)
    return await answer if isawaitable(answer) else answer

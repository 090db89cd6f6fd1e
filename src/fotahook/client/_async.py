"""The asynchronous transport: runs flows over aiohttp in the running event loop."""

import asyncio
import io
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextvars import ContextVar
from inspect import isawaitable
from typing import Any, TypeVar

import aiohttp
from yarl import URL

from ..contract.errors import MAX_BODY, ConnectionFailed, FotahookError, body_too_large
from ..contract.exchange import Headers, Reply, Request, Secret
from ._runtime import Runtime, Send, Transport, timed_out, transport_error, without_frames
from ._settings import Settings, proxy_for

T = TypeVar("T")
MAX_WRITE = 256 * 1024
_HTTP_11 = aiohttp.HttpVersion11
_LIBRARY_ERRORS = (aiohttp.ClientError, OSError, ArithmeticError, ValueError)


class AsyncTransport(Transport):
    """Runs the flows of one client, in one event loop at a time."""

    def __init__(self, settings: Settings, runtime: Runtime) -> None:
        super().__init__(settings, runtime)
        self._origins: dict[str, tuple[dict[str, object], Secret | None]] = {}
        self._locks: dict[object, asyncio.Lock] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._http: aiohttp.ClientSession | None = None
        self._http_owner: AsyncGenerator[aiohttp.ClientSession, None] | None = None

    def begin(self) -> None:
        super().begin()
        if self._loop is not (loop := asyncio.get_running_loop()):
            # Connections and locks belong to the loop that they were made in.
            self._loop, self._http, self._http_owner, self._locks = loop, None, None, {}

    async def close(self) -> None:
        await super().close()
        owner, self._http, self._http_owner = self._http_owner, None, None
        if owner is not None:
            await owner.aclose()

    async def sleep(self, seconds: float) -> None:
        await (self._runtime.async_sleep or asyncio.sleep)(seconds)

    async def acquire(self, token: object, deadline: float) -> Callable[[], None]:
        lock = self._locks.setdefault(token, asyncio.Lock())
        await self._within(deadline, lock.acquire())
        return lock.release

    async def invoke(self, function: Callable[[Any], object], argument: object, deadline: float) -> Any:
        result = function(argument)
        return await self._within(deadline, result) if isawaitable(result) else result

    async def send(self, send: Send, deadline: float) -> Reply:
        return await self._within(deadline, self._exchange(send), send.request)

    async def _within(self, deadline: float, result: Awaitable[T], request: Request | None = None) -> T:
        timer = asyncio.timeout(deadline - self._runtime.monotonic())
        try:
            async with timer:
                return await result
        except TimeoutError as error:
            # A function of the user's may have raised one of its own.
            if not timer.expired():
                raise
            without_frames(error)
            raise timed_out(request) from error

    async def _exchange(self, send: Send) -> Reply:
        request = send.request
        origin = request.url[: request.url.index("/", 8)]
        if origin not in self._origins:
            known: dict[str, object] = {}
            if origin.startswith("https:"):
                # In a thread: the authorities take long to load.
                known["ssl"] = await asyncio.to_thread(self._settings.ssl_context)
            if proxy := proxy_for(origin, self._settings.proxy):
                known["proxy"] = proxy.url
            login = proxy and proxy.authorization
            self._origins[origin] = known, Secret(login) if login else None
        options, proxy_login = self._origins[origin]
        if self._http is None:
            self._http_owner = _new_session()
            self._http = await anext(self._http_owner)
        _is_new_connection.set(False)
        try:
            # aiohttp writes bytes at once, and warns about large ones.
            body = io.BytesIO(send.body) if send.body is not None and len(send.body) > MAX_WRITE else send.body
            response = await self._http.request(
                request.method,
                URL(request.url, encoded=True),
                data=body,
                headers=send.revealed({}),
                allow_redirects=False,
                # aiohttp sends it as Proxy-Authorization, with CONNECT or with the request itself.
                proxy_headers={"Authorization": proxy_login.reveal()} if proxy_login is not None else None,
                **options,  # type: ignore[arg-type]  # a dict of keywords of several types
            )
            _check_head(response)
            if send.streamed and 200 <= response.status < 300:
                stream = AsyncStream(response, request)
                self._streams.add(stream)
                return _reply(response, b"", stream)
            return await _read_all(response, request)
        except FotahookError:
            raise
        except _LIBRARY_ERRORS as error:
            failure = transport_error(error, request, late=False)
            if isinstance(failure, ConnectionFailed) and not _is_new_connection.get():
                # The message of an error is the beginning of a head, if there was one.
                ended = isinstance(error, aiohttp.ServerDisconnectedError) and isinstance(error.message, str)
                failure.kept_connection = ended or isinstance(error, aiohttp.ClientOSError)
            # A ClientResponseError contains the request's headers with the tokens; the error behind it has the details.
            raise failure from (error.__cause__ if isinstance(error, aiohttp.ClientResponseError) else error)


_is_new_connection: ContextVar[bool] = ContextVar("_is_new_connection")


class _Connector(aiohttp.TCPConnector):
    async def _create_connection(self, *args: Any) -> aiohttp.client_proto.ResponseHandler:
        _is_new_connection.set(True)
        return await super()._create_connection(*args)


async def _new_session() -> AsyncGenerator[aiohttp.ClientSession, None]:
    """A session that is closed with this generator: by close(), by the garbage collector, or by the event loop."""
    async with aiohttp.ClientSession(
        # No limit: the caller decides how many calls run at once.
        connector=_Connector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
        auto_decompress=False,
        trust_env=False,
        # As http.client's.
        max_line_size=65536,
        max_field_size=65536,
        max_headers=100,
    ) as http:
        # The flow repeats a call on a new connection, and shows it to the hooks.
        http._retry_connection = False
        yield http


class AsyncStream:
    def __init__(self, response: aiohttp.ClientResponse, request: Request) -> None:
        self._response, self._request, self.close = response, request, response.close

    async def read(self, seconds: float) -> bytes:
        try:
            async with asyncio.timeout(seconds):
                return await self._response.content.readany()
        except _LIBRARY_ERRORS as error:
            raise transport_error(error, self._request, late=isinstance(error, TimeoutError)) from error


def _check_head(response: aiohttp.ClientResponse) -> None:
    coding, version = response.headers.get("Transfer-Encoding"), response.version
    if version is _HTTP_11 and coding is None:
        return
    if version not in (_HTTP_11, aiohttp.HttpVersion10) or (coding is not None and coding.lower() != "chunked"):
        response.close()
        raise ValueError("not HTTP/1, or a transfer coding other than chunked")


async def _read_all(response: aiohttp.ClientResponse, request: Request) -> Reply:
    content, chunks, size = response.content, [], 0
    try:
        while size <= MAX_BODY and not content.at_eof():
            chunks.append(await content.readany())
            size += len(chunks[-1])
    finally:
        # A body read to its end releases the connection; any other connection cannot be reused.
        if not content.at_eof():
            response.close()
    reply = _reply(response, b"".join(chunks))
    if size > MAX_BODY:
        raise body_too_large(request, reply)
    return reply


def _reply(response: aiohttp.ClientResponse, body: bytes, stream: object = None) -> Reply:
    # The raw headers: aiohttp decodes them as UTF-8, http.client as Latin-1.
    return Reply(response.status, response.reason or "", Headers(response.raw_headers), body, stream)

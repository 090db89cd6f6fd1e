"""What flows run on: the verbs of a transport and its errors, and clocks, sleep and random source, injected.

A flow is a coroutine. The asynchronous transport awaits what it does for a flow; the synchronous one blocks instead,
so that its flows never wait and `run_now` returns their results.
"""

import os
import random
import ssl
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Protocol, TypeVar

import msgspec

from ..contract.errors import ConnectionFailed, FotahookError, ResponseError, TimedOut, TlsError, one_line
from ..contract.exchange import Masked, Reply, Request, Secret
from ._settings import Settings

T = TypeVar("T")


class Runtime(msgspec.Struct, frozen=True):
    """Clocks, sleep and random source, injected. `monotonic` serves deadlines, `now` (Unix time) token lifetimes."""

    # Looked up with each call: gevent and freezegun may replace them at any time.
    sleep: Callable[[float], None] = lambda seconds: time.sleep(seconds)
    async_sleep: Callable[[float], Awaitable[None]] | None = None
    monotonic: Callable[[], float] = lambda: time.monotonic()
    now: Callable[[], float] = lambda: time.time()
    jitter: Callable[[], float] = random.random
    new_key: Callable[[], str] = lambda: os.urandom(16).hex()


class Send(Masked, frozen=True):
    """A request to send: `body` goes out as it is. If `streamed`, the Reply has the body of a 2xx as an open stream."""

    shown = ("request",)
    request: Request
    headers: dict[str, str]
    secrets: dict[str, Secret]
    body: bytes | None
    streamed: bool = False

    def revealed(self, more: Mapping[str, Secret]) -> dict[str, str]:
        return {**self.headers, **{name: secret.reveal() for name, secret in (*self.secrets.items(), *more.items())}}


class Stream(Protocol):
    """The body of a streamed response: `read` returns the next bytes within so many seconds, empty at the end."""

    async def read(self, seconds: float) -> bytes: ...
    def close(self) -> None: ...


class Transport(ABC):
    """Does the I/O of the flows of one client; deadlines are on the monotonic clock, TimedOut when one passes.

    Call what `acquire` returns to release the lock of a token. `invoke` calls a function of the user's.
    """

    def __init__(self, settings: Settings, runtime: Runtime) -> None:
        self._settings, self._runtime = settings, runtime
        self._streams = weakref.WeakSet[Stream]()
        self._closed = False

    def begin(self) -> None:
        if self._closed:
            raise RuntimeError("the client is closed")

    async def close(self) -> None:
        self._closed = True
        for stream in list(self._streams):
            stream.close()

    @abstractmethod
    async def send(self, send: Send, deadline: float) -> Reply: ...
    @abstractmethod
    async def acquire(self, token: object, deadline: float) -> Callable[[], None]: ...
    @abstractmethod
    async def invoke(self, function: Callable[[Any], object], argument: object, deadline: float) -> Any: ...
    @abstractmethod
    async def sleep(self, seconds: float) -> None: ...


def run_now(flow: Coroutine[Any, Any, T]) -> T:
    try:
        flow.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    flow.close()
    raise RuntimeError("a flow waited in a thread")


# OpenSSL's verification errors (X509_V_ERR_…, openssl/x509_vfy.h).
_CERTIFICATE_FAULTS = {
    9: "is not valid yet",
    10: "has expired",
    **dict.fromkeys((18, 19, 20, 21), "is not from a trusted authority"),
    **dict.fromkeys((62, 64), "is for another host"),
}
# By name, because the libraries that define them may not be installed.
_CONNECTION_LOST = {"ClientHttpProxyError", "ClientPayloadError", "IncompleteRead", "InvalidURL", "RemoteDisconnected"}
_NOT_HTTP = {"ClientResponseError", "HTTPException", "HttpProcessingError", "InvalidHeader"}


def transport_error(error: BaseException, request: Request, *, late: bool) -> FotahookError:
    """The fotahook error for an exception of a transport; `late` if the deadline has passed."""
    causes = without_frames(error)
    prefix = f"{request.method} {request.url}"
    for cause in causes:
        # aiohttp's error of this class lacks OpenSSL's fields; its cause has them.
        if isinstance(cause, ssl.SSLCertVerificationError) and hasattr(cause, "verify_code"):
            fault = _CERTIFICATE_FAULTS.get(cause.verify_code, "cannot be verified")
            why = cause.verify_message or "certificate verify failed"
            return TlsError(one_line(f"{prefix}: the server's certificate {fault} ({why})"), request=request)
    # Only a timeout of the operating system's has an errno; the others are the deadline.
    if late or any(isinstance(cause, TimeoutError) and cause.errno is None for cause in causes):
        return timed_out(request)
    for cause in causes:
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError | ssl.SSLZeroReturnError):
            return TlsError(one_line(f"{prefix}: TLS failed: {cause.reason or cause}"), request=request)
    names, root = {kind.__name__ for cause in causes for kind in type(cause).__mro__}, causes[-1]
    text = one_line(f"{prefix}: {type(root).__name__}: {root}", 400)
    if names & _CONNECTION_LOST or not (names & _NOT_HTTP or isinstance(root, ValueError | ArithmeticError)):
        return ConnectionFailed(text, request=request)
    return ResponseError(text, request=request)


def timed_out(request: Request | None) -> TimedOut:
    if request is None:
        return TimedOut("the deadline passed while another call was fetching the token")
    return TimedOut(f"{request.method} {request.url}: no complete response before the deadline", request=request)


def without_frames(error: BaseException) -> list[BaseException]:
    """An error and everything behind it, without tracebacks: local variables of the libraries' frames hold tokens."""
    seen: list[BaseException] = [error]
    for current in seen:
        current.__traceback__ = None
        inner = (current.__cause__, current.__context__, getattr(current, "reason", None), *current.args)
        seen += [cause for cause in inner if isinstance(cause, BaseException) and cause not in seen]
    return seen

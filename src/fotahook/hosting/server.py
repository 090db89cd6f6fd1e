"""Serves an ASGI app with uvicorn: the socket, signals, the ready line and the exit code."""

import asyncio
import contextlib
import ctypes
import errno
import gc
import math
import resource
import signal
import socket
import ssl
import sys
from collections.abc import Coroutine, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

import uvicorn
import uvloop
from starlette.types import ASGIApp

from . import BadOption, HostingError
from .connection_limits import ConnectionLimiter, LimitedProtocol
from .stdio import discard
from .tls import server_tls_context

INTERRUPTED: Final = 130
"""Exit code after SIGINT."""
OPEN_FILES: Final = 65_536
GRACE_SECONDS: Final = 20
"""For requests under way when the server stops."""
_GARBAGE_OBJECTS: Final = 10_000
"""Objects made and not freed between two collections of garbage; Python's default is 700."""

# From glibc's malloc.h.
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_LARGE_ALLOCATION: Final = 4 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class ListeningSocket:
    """A bound socket: connections queue until the app is served. `url` has no path."""

    socket: socket.socket
    tls: ssl.SSLContext | None
    url: str


@contextlib.contextmanager
def open_socket(
    host: str, port: int, tls_cert: Path | None = None, tls_key: Path | None = None
) -> Iterator[ListeningSocket]:
    """Listen at an address; HostingError for a bad address or certificate, before anything else is started."""
    if not 0 <= port <= 65535:
        raise BadOption(f"--port {port}: choose 1 to 65535, or 0 for any free port")
    try:
        infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = infos[0]
        bound = socket.create_server(address[:2], family=family, backlog=2048)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise HostingError(f"{host}:{port} is in use; choose another --port, or 0 for any free port") from error
        # socket appends the address, which this message names already.
        reason = (error.strerror or str(error)).partition(" (while attempting")[0]
        raise HostingError(f"cannot listen at {host}:{port}: {reason}; check --host and --port") from error
    with bound:
        tls = server_tls_context(tls_cert, tls_key)
        name = f"[{host}]" if ":" in host else host
        scheme = "http" if tls is None else "https"
        yield ListeningSocket(socket=bound, tls=tls, url=f"{scheme}://{name}:{bound.getsockname()[1]}")


async def serve_app(
    app: ASGIApp,
    listening: ListeningSocket,
    limiter: ConnectionLimiter,
    *,
    path: str = "",
    details: str = "",
    while_serving: AbstractAsyncContextManager[None] | None = None,
    background: asyncio.Task[None] | None = None,
    shutting_down: asyncio.Event | None = None,
) -> int:
    """Serve until a signal comes or `background` ends; returns the exit code. The caller runs the app's lifespan.

    `while_serving` is entered once requests are served, before the ready line is printed, and left before serving
    ends; a signal cancels the entering, a second one the leaving. `shutting_down` is set before the wait for requests
    under way. The ready line names the URL with `path`, and `details`.
    """
    tls = listening.tls
    config = uvicorn.Config(
        app,
        # uvicorn only calls it, as it would a class.
        http=cast("type[asyncio.Protocol]", partial(LimitedProtocol, limiter)),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=math.ceil(limiter.limits.idle_seconds),
        timeout_graceful_shutdown=GRACE_SECONDS,
        ssl_context_factory=None if tls is None else (lambda config, default: tls),
    )
    server = _Server(
        config,
        limiter,
        ready_line=f"fotahook ready {listening.url}{path} {details}",
        while_serving=while_serving or contextlib.nullcontext(),
        shutting_down=shutting_down or asyncio.Event(),
    )
    if background is not None:
        background.add_done_callback(lambda _: server.stop())
    await server.serve([listening.socket])
    return INTERRUPTED if server.interrupted else 0


class _Server(uvicorn.Server):
    def __init__(
        self,
        config: uvicorn.Config,
        limiter: ConnectionLimiter,
        *,
        ready_line: str,
        while_serving: AbstractAsyncContextManager[None],
        shutting_down: asyncio.Event,
    ) -> None:
        super().__init__(config)
        self.interrupted = False
        self._limiter = limiter
        self._ready_line = ready_line
        self._while_serving = while_serving
        self._shutting_down = shutting_down
        self._stopping = asyncio.Event()
        self._entered = False
        self._serving: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._stopping.is_set():
            self.should_exit = True
            return
        self._serving = asyncio.create_task(self._stay_ready(), name="serving")
        self._serving.add_done_callback(lambda _: setattr(self, "should_exit", True))

    async def _stay_ready(self) -> None:
        async with self._while_serving:
            self._entered = True
            if not self._stopping.is_set():
                try:
                    print(self._ready_line, flush=True)
                except BrokenPipeError:
                    # Nobody reads stdout; that must not stop the server.
                    discard(sys.stdout)
                await self._stopping.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._shutting_down.set()
        await super().shutdown(sockets)
        if self._serving is not None and not self._serving.cancelled():
            # Raises what `while_serving` raised, now that requests under way have their responses.
            self._serving.result()

    async def on_tick(self, counter: int) -> bool:
        # uvicorn ticks ten times a second.
        if counter % 10 == 0:
            self._limiter.sweep()
        return await super().on_tick(counter)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop on SIGTERM, SIGHUP and Ctrl-C; uvicorn's own version raises the signal again and loses the exit code."""
        loop = asyncio.get_running_loop()
        handled = [signal.SIGTERM, signal.SIGINT]
        # Under nohup it is ignored, and stays so.
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            handled.append(signal.SIGHUP)
        for number in handled:
            loop.add_signal_handler(number, self._on_signal, number)
        try:
            yield
        finally:
            for number in handled:
                loop.remove_signal_handler(number)

    def _on_signal(self, number: signal.Signals) -> None:
        self.interrupted = self.interrupted or number == signal.SIGINT
        if number == signal.SIGHUP:
            # A closing terminal may send it more than once; that is no wish to hurry.
            asyncio.get_running_loop().remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)
            if self._stopping.is_set():
                return
        self.stop()

    def stop(self) -> None:
        """Leave `while_serving` and shut down; at once where it is not entered yet, and on the second call."""
        self.force_exit = self._stopping.is_set()
        self._stopping.set()
        if self._serving is not None and (self.force_exit or not self._entered):
            self._serving.cancel()


def run(main: Coroutine[Any, Any, int]) -> int:
    """Run a server's main coroutine on uvloop."""
    _raise_open_files_limit()
    _return_freed_memory()
    _collect_garbage_less_often()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


def _raise_open_files_limit() -> None:
    # The usual limit of 1,024 is one address's connections and not much more; raising it reserves nothing.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _collect_garbage_less_often() -> None:
    # Requests and deliveries leave few cycles, and what is imported by now lives as long as the process. With Python's
    # defaults the collector takes a tenth of the CPU.
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GARBAGE_OBJECTS, 10, 10)


def _return_freed_memory() -> None:
    # By default glibc keeps large freed blocks: 19 MiB after the first password check, 16 MiB after a batch.
    # With fixed thresholds it returns them to the system. Other C libraries have no mallopt.
    if (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE_ALLOCATION)
        mallopt(_M_TRIM_THRESHOLD, _LARGE_ALLOCATION)

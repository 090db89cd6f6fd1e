"""Serves an ASGI app with uvicorn: the socket, accepting, signals, the ready line and the exit code."""

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
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

import uvicorn
import uvloop
from starlette.types import ASGIApp
from uvicorn.server import ServerState

from . import BadOption, HostingError, discard
from .connection_limits import ConnectionLimiter, LimitedProtocol
from .flags import server_tls_context

INTERRUPTED: Final = 130
GRACE_SECONDS: Final = 20
OPEN_FILES: Final = 65_536
_OWN_FILES: Final = 2048
"""For the store, deliveries and the log; at most half of all."""
_BURST: Final = 8
"""Connections accepted in one turn of the loop: their requests come together too, and others wait for all of them."""
_PAUSE_SECONDS: Final = 1.0
_LARGE_ALLOCATION: Final = 4 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class ListeningSocket:
    """A bound socket: connections queue until the app is served. `url` has no path."""

    socket: socket.socket
    tls: ssl.SSLContext | None
    url: str

    @property
    def is_loopback(self) -> bool:
        return ip_address(self.socket.getsockname()[0].partition("%")[0]).is_loopback


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


def connection_room() -> int:
    """How many connections the limit on open files leaves room for."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, soft - min(_OWN_FILES, soft // 2))


class Acceptor:
    """Accepts the connections of one listening socket for an app; the caller closes the socket."""

    def __init__(
        self, listening: ListeningSocket, limiter: ConnectionLimiter, config: uvicorn.Config, state: ServerState
    ) -> None:
        self._listening, self._tls, self._limiter = listening.socket, listening.tls, limiter
        self._config, self._state = config, state
        self._loop = asyncio.get_running_loop()
        self._opening: dict[LimitedProtocol, asyncio.Task[None]] = {}
        self._paused: asyncio.TimerHandle | None = None
        self._listening.setblocking(False)

    def start(self) -> None:
        self._paused = None
        self._loop.add_reader(self._listening, self._accept)

    def stop(self) -> None:
        """Accept no more, and drop those without TLS yet."""
        self._loop.remove_reader(self._listening)
        if self._paused is not None:
            self._paused.cancel()
        for connection in self._opening:
            connection.abort()

    def _accept(self) -> None:
        for _ in range(_BURST):
            try:
                accepted, address = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    raise
                # Else the loop would call again at once, for ever.
                self._loop.remove_reader(self._listening)
                self._paused = self._loop.call_later(_PAUSE_SECONDS, self.start)
                text = "no connection can be accepted: %s. Connections wait; raise the limit on open files %s"
                self._limiter.warn_each_minute(text, error.strerror, "(LimitNOFILE= of systemd, ulimit -n)")
                return
            accepted.setblocking(False)
            options: Any = {"config": self._config, "server_state": self._state, "app_state": {}}
            connection = LimitedProtocol(self._limiter, accepted, **options)
            self._limiter.add(connection, address[0])
            self._opening[connection] = self._loop.create_task(self._open(connection, accepted))

    async def _open(self, connection: LimitedProtocol, accepted: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: connection, accepted, ssl=self._tls)
        except OSError:
            # A failure of TLS is an OSError too.
            if self._limiter.remove(connection):
                self._limiter.refused["TLS handshakes failed"] += 1
        finally:
            del self._opening[connection]


async def serve_app(
    app: ASGIApp,
    listening: ListeningSocket,
    limiter: ConnectionLimiter,
    *,
    also: Mapping[ListeningSocket, ASGIApp] | None = None,
    path: str = "",
    details: str = "",
    while_serving: AbstractAsyncContextManager[None] | None = None,
    background: asyncio.Task[None] | None = None,
    shutting_down: asyncio.Event | None = None,
) -> int:
    """Serve until a signal comes or `background` ends; returns the exit code. The caller runs the app's lifespan.
    `while_serving` is entered once requests are served, before the ready line is printed, and left before serving ends;
    a signal cancels the entering, a second one the leaving. `shutting_down` is set before the wait for requests under
    way. The ready line names the URL with `path`, and `details`."""
    ready_line, kept = f"fotahook ready {listening.url}{path} {details}", while_serving or contextlib.nullcontext()
    server = _Server({listening: app, **(also or {})}, limiter, ready_line, kept, shutting_down or asyncio.Event())
    if background is not None:
        background.add_done_callback(lambda _: server.stop())
    await server.serve()
    return INTERRUPTED if server.interrupted else 0


class _Server(uvicorn.Server):
    def __init__(
        self,
        apps: Mapping[ListeningSocket, ASGIApp],
        limiter: ConnectionLimiter,
        ready_line: str,
        while_serving: AbstractAsyncContextManager[None],
        shutting_down: asyncio.Event,
    ) -> None:
        self._configs: dict[ListeningSocket, uvicorn.Config] = {}
        for listening, app in apps.items():
            config = self._configs[listening] = uvicorn.Config(
                app,
                http=LimitedProtocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=math.ceil(limiter.limits.idle_seconds),
                timeout_graceful_shutdown=GRACE_SECONDS,
            )
            config.load()
        super().__init__(next(iter(self._configs.values())))
        self._limiter, self._ready_line = limiter, ready_line
        self._while_serving, self._shutting_down = while_serving, shutting_down
        self._stopping = asyncio.Event()
        self._serving: asyncio.Task[None] | None = None
        self._acceptors: list[Acceptor] = []
        self.interrupted = self._entered = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        # Not uvicorn's own, which accepts without a limit, and counts a connection only once TLS is established.
        self.servers, self.started = [], True
        for listening, config in self._configs.items():
            acceptor = Acceptor(listening, self._limiter, config, self.server_state)
            acceptor.start()
            self._acceptors.append(acceptor)
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
        for acceptor in self._acceptors:
            acceptor.stop()
        await super().shutdown([listening.socket for listening in self._configs])
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
        # Under nohup SIGHUP is ignored, and stays so.
        hangup = [] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [signal.SIGHUP]
        handled = [signal.SIGTERM, signal.SIGINT, *hangup]
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
        if number != signal.SIGHUP or not self._stopping.is_set():
            self.stop()

    def stop(self) -> None:
        """Leave `while_serving` and shut down; at once where it is not entered yet, and on the second call."""
        self.force_exit = self._stopping.is_set()
        self._stopping.set()
        if self._serving is not None and (self.force_exit or not self._entered):
            self._serving.cancel()


def run(main: Coroutine[Any, Any, int]) -> int:
    # The usual limit on open files, 1,024, is one address's connections and not much more. Raising it reserves nothing.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    # By default glibc keeps large freed blocks: 19 MiB after the first password check, 16 MiB after a batch.
    # With fixed thresholds it returns them to the system. Other C libraries have no mallopt.
    if (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        # M_MMAP_THRESHOLD and M_TRIM_THRESHOLD of malloc.h.
        for threshold in (-3, -1):
            mallopt(threshold, _LARGE_ALLOCATION)
    # Requests and deliveries leave few cycles, and what is imported by now lives as long as the process. With Python's
    # defaults (700 objects) the collector takes a tenth of the CPU.
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)
    # A thread that waits for the interpreter, as the store's do after each statement, asks for it after so long. A busy
    # loop releases it in each turn for too short a time to be taken: with Python's 5 ms such a thread hardly gets it.
    sys.setswitchinterval(0.0001)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)

"""Hosting one ASGI app with uvicorn: the socket, TLS, signals, the ready line, and how the process ends."""

import asyncio
import contextlib
import ctypes
import errno
import math
import resource
import signal
import socket
import ssl
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol, cast

import uvicorn
from starlette.types import ASGIApp

from .connection_limits import Guard, Guarded
from .errors import BadOption, HostingError
from .stdio import discard_stdout

INTERRUPTED: Final = 130
"""Exit code after SIGINT."""
OPEN_FILES: Final = 65_536
GRACE_SECONDS: Final = 20
"""For requests under way when the process is told to stop."""

# Of malloc.h, which has them as negative numbers.
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_LARGE_PIECE: Final = 4 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where to listen."""

    host: str
    port: int
    tls_cert: Path | None = None
    tls_key: Path | None = None

    @classmethod
    def of(cls, options: "HasEndpoint") -> "Endpoint":
        """The endpoint that a command's flags name."""
        return cls(host=options.host, port=options.port, tls_cert=options.tls_cert, tls_key=options.tls_key)


class HasEndpoint(Protocol):
    """The flags that `serve` and `listen` have in common."""

    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def tls_cert(self) -> Path | None: ...
    @property
    def tls_key(self) -> Path | None: ...


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a server listens already: who connects waits until it serves."""

    socket: socket.socket
    tls: ssl.SSLContext | None
    url: str
    """Without a path."""


@contextlib.contextmanager
def listening(endpoint: Endpoint) -> Iterator[Place]:
    """Listen, so that everything wrong with the address or the certificate is known before anything is started."""
    with _bound(endpoint) as bound:
        yield Place(socket=bound, tls=_tls_context(endpoint), url=_url(endpoint, bound))


async def host(
    app: ASGIApp,
    place: Place,
    guard: Guard,
    *,
    path: str = "",
    facts: str = "",
    on_ready: Callable[[str], None] = lambda url: None,
    meanwhile: AbstractAsyncContextManager[None] | None = None,
    beside: asyncio.Task[None] | None = None,
    closing: asyncio.Event | None = None,
) -> int:
    """Serve until a signal comes or `beside` ends; the exit code.

    The app's lifespan stays the caller's business: what it needs is open before and closed after, with errors that
    reach the person who started it. `meanwhile` is entered when requests are served already, and left while they still
    are; a signal that comes before ends the entering, and then nobody is told that it is ready; a second one does not
    wait for the leaving. `beside` is the work without which serving makes no sense. `closing` is
    set before requests under way are waited for.
    """
    url = place.url + path

    def ready() -> None:
        on_ready(url)
        _say_ready(url, facts)

    server = _Server(app, place.tls, guard, on_ready=ready, meanwhile=meanwhile or contextlib.nullcontext())
    server.closing = closing or server.closing
    if beside is not None:
        beside.add_done_callback(lambda _: server.stop())
    with server.signals():
        await server.serve([place.socket])
    return INTERRUPTED if server.interrupted else 0


def run(main: Coroutine[Any, Any, int]) -> int:
    """Run a server's main coroutine on the fastest loop there is."""
    _open_many_files()
    _give_memory_back()
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    if sys.platform != "win32":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main)


def _open_many_files() -> None:
    # The usual limit of 1,024 is one address's connections and not much more; nothing is taken by a higher one.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _give_memory_back() -> None:
    # glibc learns from the first large piece that is freed to keep such pieces: 19 MiB for good once passwords are
    # tried, 16 for batches. Told these two numbers, it goes on giving them back to the system.
    if sys.platform != "linux" or (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is None:
        return
    mallopt(_M_MMAP_THRESHOLD, _LARGE_PIECE)
    mallopt(_M_TRIM_THRESHOLD, _LARGE_PIECE)


class _Server(uvicorn.Server):
    def __init__(
        self,
        app: ASGIApp,
        context: ssl.SSLContext | None,
        guard: Guard,
        *,
        on_ready: Callable[[], None],
        meanwhile: AbstractAsyncContextManager[None],
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                # Called like the class that it stands for.
                http=cast("type[asyncio.Protocol]", partial(Guarded, guard)),
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=math.ceil(guard.limits.idle_seconds),
                timeout_graceful_shutdown=GRACE_SECONDS,
                ssl_context_factory=(lambda config, default: context) if context is not None else None,
            )
        )
        self.interrupted = False
        self.closing = asyncio.Event()
        self._guard = guard
        self._on_ready = on_ready
        self._meanwhile = meanwhile
        self._stopping = asyncio.Event()
        self._entered = False
        self._presence: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._stopping.is_set():
            self.should_exit = True
            return
        self._presence = asyncio.create_task(self._be_present(), name="presence")
        self._presence.add_done_callback(self._end)

    async def _be_present(self) -> None:
        async with self._meanwhile:
            self._entered = True
            if not self._stopping.is_set():
                self._on_ready()
                await self._stopping.wait()

    def _end(self, _: asyncio.Task[None]) -> None:
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.closing.set()
        await super().shutdown(sockets)
        if self._presence is not None and not self._presence.cancelled():
            # What was under way is answered: if it failed, that may be told now.
            self._presence.result()

    async def on_tick(self, counter: int) -> bool:
        # Ten times a second.
        if counter % 10 == 0:
            self._guard.sweep()
        return await super().on_tick(counter)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn's own way raises the signal once more at the end, which would drown the exit code.
        yield

    @contextlib.contextmanager
    def signals(self) -> Iterator[None]:
        """Stop at SIGTERM and at Ctrl-C; a second one does not wait for requests under way."""
        loop = asyncio.get_running_loop()
        handled = (signal.SIGTERM, signal.SIGINT)
        for number in handled:
            loop.add_signal_handler(number, self._hear, number)
        try:
            yield
        finally:
            for number in handled:
                loop.remove_signal_handler(number)

    def stop(self) -> None:
        """Leave what is done meanwhile, and then end; where it is not entered yet, and the second time, at once."""
        self.force_exit = self._stopping.is_set()
        self._stopping.set()
        if self._presence is not None and (self.force_exit or not self._entered):
            self._presence.cancel()

    def _hear(self, number: signal.Signals) -> None:
        self.interrupted = self.interrupted or number == signal.SIGINT
        self.stop()


@contextlib.contextmanager
def _bound(endpoint: Endpoint) -> Iterator[socket.socket]:
    """A socket that listens."""
    if not 0 <= endpoint.port <= 65535:
        raise BadOption(f"--port {endpoint.port}: choose 1 to 65535, or 0 for any that is free")
    place = f"{endpoint.host}:{endpoint.port}"
    try:
        infos = socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = infos[0]
        bound = socket.create_server(address[:2], family=family, backlog=2048)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise HostingError(f"{place} is in use; choose another --port, or 0 for any that is free") from error
        raise HostingError(f"cannot listen at {place}: {_reason(error)}; check --host and --port") from error
    with bound:
        yield bound


def _reason(error: OSError) -> str:
    # socket adds the address to the system's words, and these name it already.
    return (error.strerror or str(error)).partition(" (while attempting")[0]


def _tls_context(endpoint: Endpoint) -> ssl.SSLContext | None:
    if endpoint.tls_cert is None and endpoint.tls_key is None:
        return None
    if endpoint.tls_cert is None:
        raise BadOption("--tls-key needs --tls-cert")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    what = [f"--tls-cert {endpoint.tls_cert}", *([f"--tls-key {endpoint.tls_key}"] if endpoint.tls_key else [])]
    try:
        load_certificate(context, endpoint.tls_cert, endpoint.tls_key)
    except _KeyEncrypted as error:
        raise HostingError(f"{what[-1]}: {error}") from error
    except OSError as error:
        raise HostingError(
            f"{' '.join(what)}: {_reason(error)}; they must be PEM files that belong together"
        ) from error
    return context


def load_certificate(context: ssl.SSLContext, certificate: Path, key: Path | None = None) -> None:
    """Load a certificate and its key. OSError if it cannot be; nobody is asked for a passphrase."""

    def refuse() -> str:
        raise _KeyEncrypted(
            "the private key is encrypted, and nobody is asked for its passphrase; give a key without one, as "
            f"openssl pkey -in {key or certificate} prints it, in a file that its owner alone can read"
        )

    context.load_cert_chain(certificate, key, refuse)


class _KeyEncrypted(Exception):
    """A private key needs a passphrase."""


def check_pem(flag: str, path: Path | None, load: Callable[[ssl.SSLContext, Path], object]) -> None:
    """HostingError, naming the flag, if a file of certificates cannot be loaded."""
    if path is None:
        return
    try:
        load(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), path)
    except _KeyEncrypted as error:
        raise HostingError(f"{flag} {path}: {error}") from error
    except OSError as error:
        raise HostingError(f"{flag} {path}: {_reason(error)}; it must be a PEM file") from error


def _url(endpoint: Endpoint, bound: socket.socket) -> str:
    scheme = "http" if endpoint.tls_cert is None else "https"
    name = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
    return f"{scheme}://{name}:{bound.getsockname()[1]}"


def _say_ready(url: str, facts: str) -> None:
    try:
        print(f"fotahook ready {url} {facts}", flush=True)
    except BrokenPipeError:
        # Whoever started this does not care for its output.
        discard_stdout()

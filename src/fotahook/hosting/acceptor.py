"""Accepts connections: each is counted before TLS begins, and surplus ones are closed."""

import asyncio
import errno
import resource
import socket
import ssl
from typing import Final

import uvicorn
from uvicorn.server import ServerState

from .connection_limits import ConnectionLimiter, LimitedProtocol

OPEN_FILES: Final = 65_536
_OWN_FILES: Final = 2048
"""Descriptors that stay for the store, deliveries and the log; at most half of all."""
_BURST: Final = 8
"""Connections accepted in one turn of the loop: their requests come together too, and others wait for all of them."""
_PAUSE_SECONDS: Final = 1.0
_EXHAUSTED: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))


def raise_open_files_limit() -> None:
    """Raise this process's limit on open files as far as it may; that reserves nothing."""
    # The usual limit of 1,024 is one address's connections and not much more.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def connection_room() -> int:
    """How many connections the limit on open files leaves room for."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, soft - min(_OWN_FILES, soft // 2))


class Acceptor:
    """Accepts the connections of one listening socket for an app; the caller closes the socket."""

    def __init__(
        self,
        listening: socket.socket,
        tls: ssl.SSLContext | None,
        limiter: ConnectionLimiter,
        config: uvicorn.Config,
        state: ServerState,
    ) -> None:
        self._listening, self._tls, self._limiter = listening, tls, limiter
        self._config, self._state = config, state
        self._loop = asyncio.get_running_loop()
        self._opening: dict[LimitedProtocol, asyncio.Task[None]] = {}
        self._paused: asyncio.TimerHandle | None = None
        listening.setblocking(False)

    def start(self) -> None:
        """Accept connections from now on."""
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
                if error.errno not in _EXHAUSTED:
                    raise
                # Else the loop would call again at once, for ever.
                self._loop.remove_reader(self._listening)
                self._paused = self._loop.call_later(_PAUSE_SECONDS, self.start)
                self._limiter.warn_each_minute(
                    "no connection can be accepted: %s. Connections wait; raise the limit on open files (LimitNOFILE= "
                    "of systemd, ulimit -n)",
                    error.strerror,
                )
                return
            accepted.setblocking(False)
            connection = LimitedProtocol(
                self._limiter, accepted, config=self._config, server_state=self._state, app_state={}
            )
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

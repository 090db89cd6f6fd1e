"""uvicorn's HTTP protocol with bounds: nobody keeps a connection by being slow, and no address keeps all of them.

uvicorn waits for ever for the head and for the body of a request, and for whoever does not read the answer. Here each
connection is in one phase at a time, and most phases have a deadline, looked at once a second.
"""

import asyncio
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv6Address, IPv6Network
from itertools import chain
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from .refusals import BODY_TOO_SLOW, CROWDED, HEAD_TOO_LARGE, HEAD_TOO_SLOW, NOT_HTTP, TOO_MANY_TOGETHER, Refusal
from .transport import Joined

logger = logging.getLogger(__name__)

_TOGETHER_LIMIT: Final = 100
"""Requests that wait for the answer to an earlier one. A single read has room for thousands, which take megabytes."""
_SUMMARY_SECONDS: Final = 60.0
_TOLD_LIMIT: Final = 100
_IPV6_CLIENT_BITS: Final = 64
"""One client's share of IPv6 addresses, of which it may use any."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one connection, and one address, may take of a server. Seconds and bytes."""

    header_bytes: int = 32 * 1024
    header_seconds: float = 10.0
    body_seconds: float = 60.0
    """For a body to arrive, and for an answer to be taken."""
    idle_seconds: float = 75.0
    per_address: int = 512


class Phase(Enum):
    """What a connection waits for."""

    HEAD = "head"
    BODY = "body"
    ANSWER = "answer"
    READER = "reader"
    """For the client to read what was written."""
    IDLE = "idle"
    OVER = "over"
    """For the client to hang up: closed at once, what it still sends would make its system forget our last words."""


class Guard:
    """The connections of one server, by address. `open_paths` are answered even where an address has its share."""

    def __init__(
        self, limits: Limits, open_paths: Collection[str], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.limits = limits
        self.open_paths = frozenset(path.encode() for path in open_paths)
        self.now = monotonic
        self._peers: dict[str, dict[Guarded, None]] = {}
        self._told: set[str] = set()
        self._refused: Counter[str] = Counter()
        self._summed_up = monotonic()

    def enter(self, connection: "Guarded") -> bool:
        """Count a connection; False if its address has its share already, all at work.

        Before that those go that only wait for their client, the longest waiting first and those that are sending a
        body last. So slow clients push out one another, and whoever shares their address gets through.
        """
        peers = self._peers.setdefault(connection.address, {})
        peers[connection] = None
        if len(peers) <= self.limits.per_address:
            return True
        here = [peer for peer in peers if not peer.transport.is_closing()]
        excess = len(here) - self.limits.per_address
        if excess <= 0:
            return True
        self._tell(connection.address)
        waiting = sorted((peer for peer in here if peer.waits() and peer is not connection), key=Guarded.rank)
        for peer in waiting[:excess]:
            self.count(CROWDED.title)
            peer.drop()
        return len(waiting) >= excess

    def leave(self, connection: "Guarded") -> None:
        """A connection that is over counts no more."""
        peers = self._peers.get(connection.address, {})
        peers.pop(connection, None)
        if not peers:
            self._peers.pop(connection.address, None)

    def sweep(self) -> None:
        """End what is over its time; say once a minute how much was refused."""
        now = self.now()
        for peers in list(self._peers.values()):
            for connection in list(peers):
                connection.check(now)
        if now - self._summed_up >= _SUMMARY_SECONDS:
            self._summed_up = now
            if self._refused:
                told = ", ".join(f"{count} {title}" for title, count in self._refused.items())
                self._refused.clear()
                logger.warning("refused or ended in the last minute: %s", told)

    def count(self, title: str) -> None:
        """Something was refused or ended."""
        self._refused[title] += 1

    def _tell(self, address: str) -> None:
        # Once for each address: this must not become another way to fill the disk.
        if address not in self._told and len(self._told) < _TOLD_LIMIT:
            self._told.add(address)
            logger.warning(
                "%s has %d connections, its share: those that wait are closed for new ones. If it is a proxy, "
                "give it a larger share with --connections-per-address",
                address,
                self.limits.per_address,
            )


class Guarded(HttpToolsProtocol):
    """One connection under a guard."""

    def __init__(self, guard: Guard, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._guard = guard
        self._limits = guard.limits
        self.address = ""
        self.phase = Phase.HEAD
        self.since = guard.now()
        self._patience = {
            Phase.HEAD: self._limits.header_seconds,
            Phase.BODY: self._limits.body_seconds,
            Phase.ANSWER: math.inf,
            Phase.READER: self._limits.body_seconds,
            Phase.IDLE: self._limits.idle_seconds,
            Phase.OVER: self._limits.header_seconds,
        }
        self._admitted = True
        self._loose = 0
        """Bytes that came since the last piece of a request was complete: of a head, or of what follows a body."""
        self._refusal = NOT_HTTP

    # What the guard asks

    def waits(self) -> bool:
        """Whether it is the client's turn."""
        return self.phase is not Phase.ANSWER

    def rank(self) -> tuple[bool, bool, float]:
        """Which of those that wait is to go first: the lowest."""
        return self.phase is Phase.BODY, self.phase is not Phase.OVER, self.since

    def drop(self) -> None:
        """End the connection without another word."""
        self.transport.abort()

    def check(self, now: float) -> None:
        """End the connection if its client had its time."""
        if self.phase is Phase.BODY and self.flow.read_paused:
            # It is not the client who is slow.
            self.since = now
        if now - self.since <= self._patience[self.phase]:
            return
        if self.transport.is_closing():
            # What was written at the end is not read.
            self.drop()
            return
        match self.phase:
            case Phase.HEAD if self._loose:
                self._end(HEAD_TOO_SLOW)
            case Phase.BODY:
                self._end(BODY_TOO_SLOW)
            case Phase.READER:
                self._guard.count("answers not read")
                self.drop()
            case Phase.OVER:
                self.drop()
            case _:
                # Where nothing was asked there is nothing to answer.
                self.transport.close()

    # What uvicorn is told by the event loop, and by its parser

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(Joined(transport, self.loop))
        self.address = _client(self.client[0] if self.client else "")
        self._admitted = self._guard.enter(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._guard.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.phase is Phase.OVER:
            return
        if self.phase is Phase.IDLE:
            self._enter(Phase.HEAD)
        self._loose += len(data)
        super().data_received(data)
        if self._loose > self._limits.header_bytes:
            self._end(HEAD_TOO_LARGE)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self.phase is not Phase.HEAD:
            self._enter(Phase.HEAD)

    def on_headers_complete(self) -> None:
        self._loose = 0
        # Each with ": " and the line's end, as it was sent.
        size = len(self.url) + 4 * len(self.headers) + sum(map(len, chain.from_iterable(self.headers)))
        if size > self._limits.header_bytes:
            self._refuse(HEAD_TOO_LARGE)
        if len(self.pipeline) >= _TOGETHER_LIMIT:
            self._refuse(TOO_MANY_TOGETHER)
        if not self._admitted and self.url.partition(b"?")[0] not in self._guard.open_paths:
            self._refuse(CROWDED)
        self._enter(Phase.BODY)
        super().on_headers_complete()
        if not self._admitted:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        self._loose = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._loose = 0
        self._enter(Phase.IDLE if self.cycle.response_complete else Phase.ANSWER)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        # Not where the rest of a body still comes, or where the next request does or is in hand.
        if self.phase is Phase.ANSWER and self.cycle.response_complete:
            self._enter(Phase.IDLE)

    def shutdown(self) -> None:
        if self.phase is Phase.OVER or (self.transport.is_closing() and not self.transport.get_write_buffer_size()):
            # All was said, and only the client's farewell is awaited, over TLS for half a minute.
            self.drop()
        else:
            super().shutdown()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self.phase is Phase.ANSWER:
            self._enter(Phase.READER)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.phase is Phase.READER:
            self._enter(Phase.IDLE if self.cycle.response_complete else Phase.ANSWER)

    def send_400_response(self, msg: str) -> None:
        # Called for whatever the parser, or a callback of it, does not like.
        self._end(self._refusal)

    def _enter(self, phase: Phase) -> None:
        self.phase, self.since = phase, self._guard.now()

    def _refuse(self, refusal: Refusal) -> None:
        """Stop the parser, in one of its callbacks."""
        self._refusal = refusal
        raise ValueError(refusal.title)

    def _end(self, refusal: Refusal) -> None:
        """Refuse, unless an answer has begun, and read nothing more."""
        if self.phase is Phase.OVER or self.transport.is_closing():
            return
        self._guard.count(refusal.title)
        # None before the first request, whatever uvicorn's types say.
        cycle: RequestResponseCycle | None = self.cycle
        under_way = cycle is not None and not cycle.response_complete
        if under_way and (self.phase is not Phase.BODY or self.pipeline):
            # An earlier request is to be answered yet, and this would pass for its answer.
            self.drop()
            return
        if not under_way or not self.cycle.response_started:
            self.transport.write(refusal.response())
        if under_way:
            # Whoever waits for the body, or writes the answer, learns that it is over.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self._enter(Phase.OVER)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()


def _client(address: str) -> str:
    """What stands for the client at an address: itself, or for IPv6 the network it is in."""
    if ":" not in address:
        return address
    ip = IPv6Address(address)
    return str(ip.ipv4_mapped or IPv6Network((ip, _IPV6_CLIENT_BITS), strict=False))

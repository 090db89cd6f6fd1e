"""Decides how events are followed: from which cursor, when to connect again, when it ends. Does no I/O.

A generator for each next event, like the flows of _flow; its steps are a whole call that opens a stream, a piece of
that stream, and a pause.
"""

from collections import deque
from collections.abc import Generator
from typing import Any, Final, Protocol, TypeAlias

import msgspec

from ..contract import operator_calls
from ..contract.calls import Call
from ..contract.errors import ApiException, ConnectionFailed, FotahookError, ResponseError, TimedOut, TransportError
from ..contract.events import Event, EventReader
from ..contract.exchange import ApiResponse
from ._retry import wait_before_retry
from ._steps import Pause, World

SILENCE: Final = 45.0
"""The service is heard of every 15 seconds; after three times as much the connection is taken for lost."""


class Stream(Protocol):
    """The body of an answer that goes on."""

    def close(self) -> None: ...


class Connect(msgspec.Struct, frozen=True):
    """Make the call that opens a stream, within so many seconds where they are given, and give back its answer."""

    call: Call[None]
    seconds: float | None


class Listen(msgspec.Struct, frozen=True):
    """Give back the next piece of a stream, empty at its end; TimedOut after so many seconds."""

    stream: Stream
    seconds: float


Following: TypeAlias = Generator[Connect | Listen | Pause, Any, Event | None]


class Follower:
    """Follows events across as many connections as it takes, until `timeout` seconds are over, if any are given.

    The first connection has to work; it is made again for as long as it takes, unless the service refuses it.
    """

    def __init__(self, account: str | None, after: str | None, timeout: float | None, world: World) -> None:
        self._account = account
        self._reader = EventReader(after)
        self._world = world
        self._until = None if timeout is None else world.monotonic() + timeout
        self._ready: deque[Event] = deque()
        self._stream: Stream | None = None
        self._failures = 0
        self._was_open = False
        self._over = False
        self.cursor = after
        """Where to go on behind the last event that was given out."""

    def next(self) -> Following:
        """The next event, None at the end."""
        while not self._ready:
            left = None if self._until is None else self._until - self._world.monotonic()
            if self._over or (left is not None and left <= 0):
                self.end()
                return None
            failure = None
            try:
                piece = yield from self._piece(left)
            except (ApiException, TransportError) as error:
                piece, failure = b"", error
            if not piece and not self._over:
                yield from self._begin_again(failure, left)
        event = self._ready.popleft()
        self.cursor = event.cursor
        return event

    def end(self) -> None:
        """Give the connection up; the next event is None."""
        self._over = True
        self._drop()

    def _piece(self, left: float | None) -> Generator[Connect | Listen, Any, bytes]:
        if self._stream is None:
            call = operator_calls.events(self._account, self._reader.cursor)
            self._stream = _opened((yield Connect(call, left)))
            self._was_open = True
        piece: bytes = yield Listen(self._stream, SILENCE if left is None else min(SILENCE, left))
        try:
            self._ready.extend(self._reader.read(piece))
        except ValueError as error:
            raise ResponseError(f"an event breaks the contract: {error}") from error
        if piece:
            self._failures = 0
        if not self._ready:
            self.cursor = self._reader.cursor
        return piece

    def _begin_again(self, failure: FotahookError | None, left: float | None) -> Generator[Pause, Any, None]:
        self._drop()
        if failure is not None and not self._was_open:
            raise failure
        self._failures += 1
        if failure is None or isinstance(failure, TimedOut):
            failure = ConnectionFailed("the stream of events ended")
        wait = wait_before_retry(failure, self._failures, now=self._world.now(), chance=self._world.chance())
        if wait is None:
            raise failure
        yield Pause(wait if left is None else min(wait, left))

    def _drop(self) -> None:
        self._reader.begin_again()
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()


def _opened(answer: ApiResponse[Stream]) -> Stream:
    kind = answer.headers.get("content-type") or ""
    if not kind.startswith("text/event-stream"):
        answer.data.close()
        raise ResponseError(f"{answer.status_code} for the stream of events, but of type {kind or 'unknown'}")
    return answer.data

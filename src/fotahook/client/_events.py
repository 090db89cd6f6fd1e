"""Events as something to iterate over: the two drivers of _following."""

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, cast

from ..contract.events import Event
from ._closing import AsyncClosing, Closing
from ._following import Connect, Follower, Listen
from ._settings import DEFAULT_TIMEOUT
from ._steps import Pause, World

if TYPE_CHECKING:
    from ._async import AsyncStream
    from ._async_runner import AsyncRunner
    from ._runner import Runner
    from ._sync import SyncStream


class _Events:
    """Events as they happen, one after the other, across as many connections as it takes.

    A connection that is lost is made again, and goes on where it broke off. It ends with `close`, or when the seconds
    are over that were asked for.
    """

    def __init__(self, follower: Follower, max_retries: int | None, world: World) -> None:
        self._follower = follower
        self._max_retries = max_retries
        self._world = world

    @property
    def cursor(self) -> str | None:
        """The cursor behind the last event that was given out; `after=` goes on from it."""
        return self._follower.cursor


class EventStream(_Events, Closing, Iterator[Event]):
    """Events for a thread, as `OperatorClient.events` gives them; a context manager that closes at its end."""

    def __init__(self, runner: "Runner", follower: Follower, max_retries: int | None, world: World) -> None:
        super().__init__(follower, max_retries, world)
        self._runner = runner

    def __next__(self) -> Event:
        steps = self._follower.next()
        try:
            step = next(steps)
            while True:
                try:
                    answer = self._do(step)
                except Exception as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(answer)
        except StopIteration as done:
            return _given(done.value, StopIteration)

    def close(self) -> None:
        """End it, from another thread too."""
        self._follower.end()

    def _do(self, step: Connect | Listen | Pause) -> object:
        match step:
            case Connect(call, seconds):
                return self._runner.call(call, _patience(seconds), self._max_retries)
            case Listen(stream, seconds):
                return cast("SyncStream", stream).read(seconds)
            case Pause(seconds):
                self._world.sleep(seconds)
        return None


class AsyncEventStream(_Events, AsyncClosing, AsyncIterator[Event]):
    """Events for a task, as `AsyncOperatorClient.events` gives them; a context manager that closes at its end."""

    def __init__(self, runner: "AsyncRunner", follower: Follower, max_retries: int | None, world: World) -> None:
        super().__init__(follower, max_retries, world)
        self._runner = runner

    async def __anext__(self) -> Event:
        steps = self._follower.next()
        try:
            step = next(steps)
            while True:
                try:
                    answer = await self._do(step)
                except Exception as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(answer)
        except StopIteration as done:
            return _given(done.value, StopAsyncIteration)

    async def aclose(self) -> None:
        """End it."""
        self._follower.end()

    async def _do(self, step: Connect | Listen | Pause) -> Any:
        match step:
            case Connect(call, seconds):
                return await self._runner.call(call, _patience(seconds), self._max_retries)
            case Listen(stream, seconds):
                return await cast("AsyncStream", stream).read(seconds)
            case Pause(seconds):
                await self._runner.sleep(seconds)
        return None


def _given(event: Event | None, end: type[Exception]) -> Event:
    if event is None:
        raise end from None
    return event


def _patience(seconds: float | None) -> float | None:
    return None if seconds is None else min(seconds, DEFAULT_TIMEOUT)

"""One time limit for many things that run side by side, kept by one timer for all of them."""

import asyncio
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Final, Generic, TypeVar

T = TypeVar("T")

LATE_SECONDS: Final = 0.01
"""A timer that is called so much too late tells that the event loop was busy."""


class DeadlineExceeded(TimeoutError):
    """The block took longer than its deadline allows."""


class DeadlineQueue(Generic[T]):
    """Calls `on_overdue` with each thing that is not removed within so many seconds. Belongs to one event loop. Things
    are due in the order in which they were added, so one timer for the oldest is enough."""

    def __init__(self, seconds: float, on_overdue: Callable[[T], object]) -> None:
        self._seconds = seconds
        self._on_overdue = on_overdue
        self._due: dict[T, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._now: Callable[[], float]

    def __len__(self) -> int:
        return len(self._due)

    def add(self, thing: T) -> None:
        if self._timer is None:
            # A look-up of the loop is a system call: not for each thing.
            loop = asyncio.get_running_loop()
            self._now, due = loop.time, loop.time() + self._seconds
            self._timer = loop.call_at(due, self._on_timer, due)
        self._due[thing] = self._now() + self._seconds

    def remove(self, thing: T) -> bool:
        """It has ended; whether that was before its time was over."""
        return self._due.pop(thing, None) is not None

    def clear(self) -> None:
        self._due.clear()

    def end_oldest(self) -> None:
        """The time of the one that was added first is over already."""
        thing = next(iter(self._due))
        del self._due[thing]
        self._on_overdue(thing)

    def _on_timer(self, due: float) -> None:
        if (now := self._now()) > due + LATE_SECONDS:
            # The event loop was busy meanwhile, which is nobody's fault: what has ended says so first.
            self._timer = asyncio.get_running_loop().call_later(LATE_SECONDS, self._end_due_by, now)
        else:
            self._end_due_by(due)

    def _end_due_by(self, now: float) -> None:
        while self._due and next(iter(self._due.values())) <= now:
            self.end_oldest()
        due = next(iter(self._due.values()), None)
        self._timer = None if due is None else asyncio.get_running_loop().call_at(due, self._on_timer, due)


class Deadline(threading.local):
    """``with deadline:`` ends the block with DeadlineExceeded after so many seconds.

    Like ``asyncio.timeout``, which sets a timer for each block. A task must not enter the same deadline twice at once.
    Each thread, and each event loop that runs in it, has a queue of its own.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks = DeadlineQueue[asyncio.Task[object]](seconds, asyncio.Task.cancel)

    def __enter__(self) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a deadline can only be used in a task")
        if task.get_loop() is not self._loop:
            # The one before may never run again.
            self._tasks.clear()
            self._loop = task.get_loop()
            self._tasks = DeadlineQueue[asyncio.Task[object]](self.seconds, asyncio.Task.cancel)
        self._tasks.add(task)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        task = asyncio.current_task()
        # Somebody else may have cancelled an overdue task too, which must take effect.
        if task and not self._tasks.remove(task) and task.uncancel() == 0 and kind is asyncio.CancelledError:
            raise DeadlineExceeded from error

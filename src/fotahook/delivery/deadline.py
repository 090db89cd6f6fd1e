"""One time limit for many tasks that run side by side, kept by one timer for all of them."""

import asyncio
from types import TracebackType


class DeadlineExceeded(TimeoutError):
    """The block took longer than its deadline allows."""


class Deadline:
    """``with deadline:`` ends the block with DeadlineExceeded after so many seconds.

    Like ``asyncio.timeout``, which sets a timer for each block. Blocks with the same limit end in the order in which
    they began, so one timer for the oldest is enough. A task must not enter the same deadline twice at once. All tasks
    belong to the event loop of the first one.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._due: dict[asyncio.Task[object], float] = {}
        # Asking for the running loop costs a system call.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> None:
        loop = self._loop = self._loop or asyncio.get_running_loop()
        due = self._due[_current_task(loop)] = loop.time() + self._seconds
        if self._timer is None:
            self._timer = loop.call_at(due, self._cancel_overdue)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        task = _current_task(self._loop)
        # The timer removes a task that it cancels. Somebody else may have cancelled it too, which must take effect.
        overdue = self._due.pop(task, None) is None
        if overdue and task.uncancel() == 0 and kind is asyncio.CancelledError:
            raise DeadlineExceeded from error

    def _cancel_overdue(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        while self._due:
            task, due = next(iter(self._due.items()))
            if due > loop.time():
                self._timer = loop.call_at(due, self._cancel_overdue)
                return
            del self._due[task]
            task.cancel()


class LoopDeadline:
    """A Deadline in each event loop, for an object that may outlive the loop it is used in."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._current: tuple[asyncio.AbstractEventLoop, Deadline] | None = None

    def __call__(self) -> Deadline:
        """The deadline of the running loop."""
        loop = asyncio.get_running_loop()
        if self._current is None or self._current[0] is not loop:
            self._current = loop, Deadline(self.seconds)
        return self._current[1]


def _current_task(loop: asyncio.AbstractEventLoop | None) -> asyncio.Task[object]:
    task = asyncio.current_task(loop)
    if task is None:
        raise RuntimeError("a deadline can only be used in a task")
    return task

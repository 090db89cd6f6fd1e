"""One limit for many things that run side by side, kept by one timer for all of them."""

import asyncio
from types import TracebackType


class Deadline:
    """``with deadline:`` ends what runs within it by TimeoutError once it has taken so many seconds.

    As ``asyncio.timeout``, which sets a timer for each. What shares a limit is due in the order in which it began, so
    that only the first needs one. Not to be entered twice by one task.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._due: dict[asyncio.Task[object], float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> None:
        loop = asyncio.get_running_loop()
        due = self._due[_this_task()] = loop.time() + self._seconds
        if self._timer is None:
            self._timer = loop.call_at(due, self._ring)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        task = _this_task()
        # Rung for, it is gone from here. Somebody else may have cancelled it at the same time, and is to hear of it.
        rung = self._due.pop(task, None) is None
        if rung and task.uncancel() == 0 and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def _ring(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        while self._due:
            task, due = next(iter(self._due.items()))
            if due > loop.time():
                self._timer = loop.call_at(due, self._ring)
                return
            del self._due[task]
            task.cancel()


def _this_task() -> asyncio.Task[object]:
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("a deadline is for what runs in a task")
    return task

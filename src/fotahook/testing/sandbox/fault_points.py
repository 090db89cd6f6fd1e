"""Fault points: the process kills itself at a named step boundary, as a power cut would, so that nothing can prepare.

They stand around the store and around the deliverer, never inside: what is tried is the code that runs in earnest.
"""

import logging
import os
import re
import signal
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

from starlette.types import ASGIApp, Receive, Scope, Send

from fotahook.delivery import Deliver, Outcome
from fotahook.store import Store
from fotahook.store.records import Delivery, Lease

log = logging.getLogger("fotahook.testing")

_STORE_VERBS: Final = ("accept", "lease", "fetch", "settle")

_VERBS: Final = (*_STORE_VERBS, "deliver", "answer")

POINTS: Final = tuple(f"{verb}.{side}" for verb in _VERBS for side in ("before", "after"))
"""``accept.after`` is committed but not answered, ``deliver.after`` sent or handled but not settled. A ``lease.after``
is passed only where something was leased: the others are polls. The points of ``answer`` are those of POST requests,
before anything of them is read and when the answer was handed to the system."""

_FAULT: Final = re.compile(r"(?P<point>[a-z.]+)(:(?P<times>[1-9][0-9]{0,8}))?")


def kill_this_process() -> None:
    """End at once: nothing is flushed, closed or given back."""
    os.kill(os.getpid(), signal.SIGKILL)


class FaultPoints:
    """Kills the process when a point is passed for the N-th time; `fault` is ``POINT[:N]``, N is 1 if not given.

    ValueError, which lists the points, for any other text.
    """

    def __init__(self, fault: str, *, kill: Callable[[], None] = kill_this_process) -> None:
        read = _FAULT.fullmatch(fault)
        if read is None or read["point"] not in POINTS:
            raise ValueError(f"{fault!r} is no fault point; use POINT or POINT:N with one of {', '.join(POINTS)}")
        self._point = read["point"]
        self._left = int(read["times"] or 1)
        self._kill = kill

    def around_store(self, store: Store) -> Store:
        """The same store, with points before and after the verbs that move messages on."""
        return cast(Store, _WatchedStore(store, self))

    def around_deliver(self, deliver: Deliver) -> Deliver:
        """The same deliverer, with points before and after each attempt."""

        async def watched(lease: Lease, delivery: Delivery) -> Outcome:
            self.passed("deliver.before")
            outcome = await deliver(lease, delivery)
            self.passed("deliver.after")
            return outcome

        return watched

    def around_app(self, app: ASGIApp) -> ASGIApp:
        """The same app, with points before and after each POST."""

        async def watched(scope: Scope, receive: Receive, send: Send) -> None:
            posted = scope.get("method") == "POST"
            if posted:
                self.passed("answer.before")
            await app(scope, receive, send)
            if posted:
                self.passed("answer.after")

        return watched

    def passed(self, point: str) -> None:
        """Count the passing of a point, and act if it is the one."""
        if point != self._point:
            return
        self._left -= 1
        if self._left == 0:
            log.warning("fault point %s: the process kills itself", point)
            self._kill()


class _WatchedStore:
    def __init__(self, store: Store, points: FaultPoints) -> None:
        self._store = store
        self._points = points

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._store, name)
        return self._watched(name, attribute) if name in _STORE_VERBS else attribute

    def _watched(self, verb: str, call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def watched(*args: Any, **options: Any) -> Any:
            self._points.passed(f"{verb}.before")
            result = await call(*args, **options)
            if verb != "lease" or result:
                self._points.passed(f"{verb}.after")
            return result

        return watched

"""Fault points: the process kills itself at a named step, as a power cut would end it.

They wrap the store, the deliverer and the app from outside, so that the code under test is the code of production.
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

_STORE_METHODS: Final = ("accept", "lease", "fetch", "settle")

POINTS: Final = tuple(
    f"{step}.{side}" for step in (*_STORE_METHODS, "deliver", "answer") for side in ("before", "after")
)
"""At ``accept.after`` a message is committed but not answered, at ``deliver.after`` sent or handled but not settled.
``lease.after`` is reached only when something was leased, since other calls are polls. The ``answer`` points are those
of POST requests: before the request is read, and after the response is handed to the system."""

_FAULT: Final = re.compile(r"(?P<point>[a-z.]+)(:(?P<times>[1-9][0-9]{0,8}))?")


def kill_this_process() -> None:
    """End at once: nothing is flushed, closed or released."""
    os.kill(os.getpid(), signal.SIGKILL)


class FaultPoints:
    """Kills the process when a point is reached for the N-th time. `fault` is ``POINT[:N]``; N is 1 by default.

    Raises ValueError, which lists the points, for any other text.
    """

    def __init__(self, fault: str, *, kill: Callable[[], None] = kill_this_process) -> None:
        match = _FAULT.fullmatch(fault)
        if match is None or match["point"] not in POINTS:
            raise ValueError(f"{fault!r} is no fault point; use POINT or POINT:N with one of {', '.join(POINTS)}")
        self._point = match["point"]
        self._left = int(match["times"] or 1)
        self._kill = kill

    def around_store(self, store: Store) -> Store:
        """The store, with points before and after the methods that move messages on."""
        return cast(Store, _FaultyStore(store, self))

    def around_deliver(self, deliver: Deliver) -> Deliver:
        """The deliverer, with points before and after each attempt."""

        async def faulty(lease: Lease, delivery: Delivery) -> Outcome:
            self.reach("deliver.before")
            outcome = await deliver(lease, delivery)
            self.reach("deliver.after")
            return outcome

        return faulty

    def around_app(self, app: ASGIApp) -> ASGIApp:
        """The app, with points before and after each POST."""

        async def faulty(scope: Scope, receive: Receive, send: Send) -> None:
            post = scope.get("method") == "POST"
            if post:
                self.reach("answer.before")
            await app(scope, receive, send)
            if post:
                self.reach("answer.after")

        return faulty

    def reach(self, point: str) -> None:
        """Count a point, and kill the process if it is the one."""
        if point != self._point:
            return
        self._left -= 1
        if self._left == 0:
            log.warning("fault point %s: the process kills itself", point)
            self._kill()


class _FaultyStore:
    def __init__(self, store: Store, points: FaultPoints) -> None:
        self._store = store
        self._points = points

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._store, name)
        return self._faulty(name, attribute) if name in _STORE_METHODS else attribute

    def _faulty(self, name: str, method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def faulty(*args: Any, **options: Any) -> Any:
            self._points.reach(f"{name}.before")
            result = await method(*args, **options)
            if name != "lease" or result:
                self._points.reach(f"{name}.after")
            return result

        return faulty

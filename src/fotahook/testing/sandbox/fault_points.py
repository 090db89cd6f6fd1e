"""Fault points: the process kills itself at a named step, as a power cut would end it.

They wrap the store, the deliverer and the app from outside, so that the code under test is the code of production.
"""

import logging
import os
import re
import signal
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final, ParamSpec, TypeVar, cast

from starlette.types import ASGIApp

from fotahook.delivery import Deliver
from fotahook.store import Store
from fotahook.store.base import AskForLeases
from fotahook.store.base import Receive as ReceiveHandOver
from fotahook.store.records import HandOver

P = ParamSpec("P")
T = TypeVar("T")

_STORE_METHODS: Final = ("accept", "lease", "fetch", "settle")

POINTS: Final = tuple(
    f"{step}.{side}" for step in (*_STORE_METHODS, "hand", "deliver", "answer") for side in ("before", "after")
)
"""At ``accept.after`` a message is committed but not answered, at ``deliver.after`` sent or handled but not settled.
``lease.after`` is reached only when something was leased, since other calls are polls. At ``hand.before`` a message is
committed and its lane leased, and the dispatcher does not know it yet. The ``answer`` points are those
of POST requests: before the request is read, and after the response is handed to the system."""


class FaultPoints:
    """Kills the process when a point is reached for the N-th time. `fault` is ``POINT[:N]``; N is 1 by default.

    Raises ValueError, which lists the points, for any other text.
    """

    def __init__(self, fault: str, *, kill: Callable[[], None] = lambda: os.kill(os.getpid(), signal.SIGKILL)) -> None:
        match = re.fullmatch(r"([a-z.]+)(?::([1-9][0-9]{0,8}))?", fault)
        if match is None or match[1] not in POINTS:
            raise ValueError(f"{fault!r} is no fault point; use POINT or POINT:N with one of {', '.join(POINTS)}")
        self._point, self._left, self._kill = match[1], int(match[2] or 1), kill

    def around_store(self, store: Store) -> Store:
        """The store, with points before and after the methods that move messages on."""
        return cast(Store, _FaultyStore(store, self))

    def around_deliver(self, deliver: Deliver) -> Deliver:
        """The deliverer, with points before and after each attempt."""
        return self.around("deliver", deliver)

    def around_app(self, app: ASGIApp) -> ASGIApp:
        """The app, with points before and after each POST."""
        faulty = self.around("answer", app)
        return lambda scope, *sides: (faulty if scope.get("method") == "POST" else app)(scope, *sides)

    def around(self, step: str, call: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        async def faulty(*args: P.args, **options: P.kwargs) -> T:
            self.reach(f"{step}.before")
            result = await call(*args, **options)
            if step != "lease" or result:
                self.reach(f"{step}.after")
            return result

        return faulty

    def reach(self, point: str) -> None:
        if point == self._point:
            self._left -= 1
            if self._left == 0:
                logging.getLogger("fotahook.testing").warning("fault point %s: the process kills itself", point)
                self._kill()


class _FaultyStore:
    def __init__(self, store: Store, points: FaultPoints) -> None:
        self._store, self._points = store, points

    def hand_over(self, request: AskForLeases, receive: ReceiveHandOver) -> None:
        def receive_or_die(handed: Sequence[HandOver]) -> None:
            self._points.reach("hand.before")
            receive(handed)
            self._points.reach("hand.after")

        self._store.hand_over(request, receive_or_die)

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._store, name)
        return self._points.around(name, attribute) if name in _STORE_METHODS else attribute

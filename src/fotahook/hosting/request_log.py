"""Each request under an id: in every line of the log that it causes, and in its answer.

Of the requests themselves those that failed (5xx) are logged, a line each. The others are told by the metrics, and what
became of a message by the store; who wants a line for each all the same asks for it.
"""

import logging
import random
import re
import time
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADER: Final = b"x-request-id"
FIELDS: Final = ("method", "path", "status", "milliseconds", "client")
"""What a request's own line has beside its words."""

request_id: Final[ContextVar[str | None]] = ContextVar("fotahook_request_id", default=None)

_SANE: Final = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")
_PATH_SHOWN: Final = 200

logger = logging.getLogger(__name__)


class RequestLog:
    """An ASGI app whose requests have ids. `every`: log all of them; `paths`: with their paths, never the query."""

    def __init__(
        self, app: ASGIApp, *, every: bool, paths: bool, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._app = app
        self._every = every
        self._paths = paths
        self._monotonic = monotonic

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        own_id, begun, status = _id_of(scope["headers"]), self._monotonic(), 0
        # The task is this request's alone, so nobody else meets what is set here.
        request_id.set(own_id.decode())

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message.get("headers", ()), (HEADER, own_id)]}
            await send(message)

        try:
            await self._app(scope, receive, answer)
        finally:
            if self._every or status >= 500:
                self._tell(scope, status, self._monotonic() - begun)

    def _tell(self, scope: Scope, status: int, seconds: float) -> None:
        method = scope["method"]
        path = scope["raw_path"][:_PATH_SHOWN].decode("latin-1") if self._paths else None
        client = scope["client"][0] if scope.get("client") else None
        facts = (method, path, status, round(1000 * seconds, 1), client)
        level = logging.WARNING if status >= 500 else logging.INFO
        said = f"{method} {path}" if self._paths else method
        # Without a status the client went away before it was answered.
        logger.log(level, "%s: %s", said, status or "not answered", extra=dict(zip(FIELDS, facts, strict=True)))


def _id_of(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The id that the client or a proxy gave the request, if it is a plain one; else a new one."""
    given = [value for name, value in headers if name == HEADER]
    if len(given) == 1 and _SANE.fullmatch(given[0]):
        return given[0]
    # Nobody's secret: it only has to differ from the others in the log.
    return b"%016x" % random.getrandbits(64)

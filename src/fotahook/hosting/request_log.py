"""Request ids, in every response and log line, and a log line for each request that failed.

Successful requests appear in the metrics, and in the log only where every request is to be logged.
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
"""Fields of a request's log line."""

request_id: Final[ContextVar[str | None]] = ContextVar("fotahook_request_id", default=None)

_ACCEPTED_ID: Final = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")
_PATH_LIMIT: Final = 200

logger = logging.getLogger(__name__)


class RequestLog:
    """ASGI middleware. `log_all`: every request, not only 5xx; `log_paths`: their paths too, never the query."""

    def __init__(
        self, app: ASGIApp, *, log_all: bool, log_paths: bool, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._app = app
        self._log_all = log_all
        self._log_paths = log_paths
        self._monotonic = monotonic

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        own_id, began, status = _id_of(scope["headers"]), self._monotonic(), 0
        # Each request has a task of its own, so no other request sees this value.
        request_id.set(own_id.decode())

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message.get("headers", ()), (HEADER, own_id)]}
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        finally:
            if self._log_all or status >= 500:
                self._log(scope, status, self._monotonic() - began)

    def _log(self, scope: Scope, status: int, seconds: float) -> None:
        method = scope["method"]
        path = scope["raw_path"][:_PATH_LIMIT].decode("latin-1") if self._log_paths else None
        client = scope["client"][0] if scope.get("client") else None
        values = (method, path, status, round(1000 * seconds, 1), client)
        level = logging.WARNING if status >= 500 else logging.INFO
        request = f"{method} {path}" if self._log_paths else method
        # Without a status, the client disconnected before the response.
        logger.log(level, "%s: %s", request, status or "no response", extra=dict(zip(FIELDS, values, strict=True)))


def _id_of(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The id given by the client or a proxy if it is plain text, else a new one."""
    given = [value for name, value in headers if name == HEADER]
    if len(given) == 1 and _ACCEPTED_ID.fullmatch(given[0]):
        return given[0]
    # Not a secret: it only has to be unique in the log.
    return b"%016x" % random.getrandbits(64)

"""Logging to stderr: readable lines at a terminal, one JSON object a line elsewhere. Every response has a request id,
and so has every log line of the request. Failed requests are logged, and successful ones where that is asked for."""

import contextlib
import logging
import os
import queue
import random
import re
import sys
import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import KW_ONLY, dataclass
from typing import Final, Literal, TypeAlias

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.typing import EventDict, WrappedLogger

LogFormat: TypeAlias = Literal["auto", "text", "json"]

HEADER: Final = b"x-request-id"
FIELDS: Final = ("method", "path", "status", "milliseconds", "client")

request_id: Final[ContextVar[str | None]] = ContextVar("fotahook_request_id", default=None)

_ACCEPTED_ID: Final = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")
_PATH_LIMIT: Final = 200
_FLUSH_SECONDS: Final = 2.0

logger = logging.getLogger(__name__)


def configure_logging(log_format: LogFormat = "auto", *, level: int = logging.INFO) -> None:
    """Send this process's log to stderr; "auto" is text at a terminal and JSON elsewhere."""
    as_text = sys.stderr.isatty() if log_format == "auto" else log_format == "text"
    real = sys.stderr is sys.__stderr__
    handler = QueuedHandler(sys.stderr.fileno()) if real else logging.StreamHandler(sys.stderr)
    # Frame locals hold tokens and bodies: they stay out of the log.
    tracebacks = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                structlog.stdlib.add_log_level,
                structlog.stdlib.add_logger_name,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.stdlib.ExtraAdder(FIELDS),
                lambda _, method, event: {**event, "request_id": own_id} if (own_id := request_id.get()) else event,
            ],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info if as_text else structlog.processors.ExceptionRenderer(tracebacks),
                structlog.processors.EventRenamer("message"),
                _render_text if as_text else structlog.processors.JSONRenderer(),
            ],
        )
    )
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # Its other lines repeat the ready line, the exit code and the summary of refused connections.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)


class QueuedHandler(logging.Handler):
    """Writes to a file descriptor in a thread, so that a pipe that nobody reads holds up nothing but the log. Lines
    that find the queue full are dropped and counted; the next line that is written says how many."""

    def __init__(self, descriptor: int, limit: int = 1000) -> None:
        super().__init__()
        # Not a stream, at whose lock the end of the process would wait for the thread.
        self._descriptor = descriptor
        self._lines: queue.Queue[str] = queue.Queue(limit)
        self._dropped = 0
        threading.Thread(target=self._write_lines, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            # Here, because the request's id is known only to its own task.
            self._lines.put_nowait(self.format(record))
        except queue.Full:
            self._dropped += 1
        except Exception:
            self.handleError(record)

    def flush(self) -> None:
        """Wait a little until everything is written; at the end of the process somebody may still read."""
        deadline = time.monotonic() + _FLUSH_SECONDS
        while self._lines.unfinished_tasks and time.monotonic() < deadline:
            time.sleep(0.001)

    def _write_lines(self) -> None:
        while True:
            self._write(self._lines.get())
            if self._dropped:
                count, self._dropped = self._dropped, 0
                text = "%d log lines were dropped: what reads the log was too slow"
                record = logging.LogRecord(__name__, logging.WARNING, __file__, 0, text, (count,), None)
                self._write(self.format(record))
            self._lines.task_done()

    def _write(self, line: str) -> None:
        rest = f"{line}\n".encode("utf-8", "backslashreplace")
        with contextlib.suppress(OSError):
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]


def _render_text(logger: WrappedLogger, method: str, event: EventDict) -> str:
    """Time (UTC), level, logger, the message's first line, key=value; further lines and the traceback below."""
    first, *below = str(event.pop("message")).split("\n")
    below += event.pop("exception", "").splitlines()
    time = f"{event.pop('timestamp')[:19]}Z"
    head = f"{time} {event.pop('level').upper():<8} {event.pop('logger')}: {first}"
    for name, value in event.items():
        if value is not None:
            head += f' {name}="{value}"' if not str(value) or set(str(value)) & set(' "=') else f" {name}={value}"
    # Logged text comes from strangers too and must not steer the terminal.
    return "\n".join(
        "".join(char if char.isprintable() or char == "\t" else "?" for char in line) for line in (head, *below)
    )


@dataclass(frozen=True)
class RequestLog:
    """ASGI middleware. `log_all`: every request, not only 5xx; `log_paths`: their paths too, never the query."""

    app: ASGIApp
    _: KW_ONLY
    log_all: bool
    log_paths: bool
    monotonic: Callable[[], float] = time.monotonic

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        # The id given by the client or a proxy if it is plain text, else a new one. Not a secret: it only has to be
        # unique in the log.
        given = [value for name, value in scope["headers"] if name == HEADER]
        known = given[0] if len(given) == 1 and _ACCEPTED_ID.fullmatch(given[0]) else None
        own_id, began, status = known or b"%016x" % random.getrandbits(64), self.monotonic(), 0
        # Each request has a task of its own, so no other request sees this value.
        request_id.set(own_id.decode())

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [*message.get("headers", ()), (HEADER, own_id)]
                if scope["scheme"] == "https":
                    # RFC 6797: browsers ignore it without TLS, and for IP addresses.
                    headers.append((b"strict-transport-security", b"max-age=31536000"))
                message = {**message, "headers": headers}
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        finally:
            if self.log_all or status >= 500:
                method, milliseconds = scope["method"], round(1000 * (self.monotonic() - began), 1)
                path = scope["raw_path"][:_PATH_LIMIT].decode("latin-1") if self.log_paths else None
                client = scope["client"][0] if scope.get("client") else None
                extra = dict(zip(FIELDS, (method, path, status, milliseconds, client), strict=True))
                level = logging.WARNING if status >= 500 else logging.INFO
                # Without a status, the client disconnected before the response.
                text = f"{method} {path}" if self.log_paths else method
                logger.log(level, "%s: %s", text, status or "no response", extra=extra)

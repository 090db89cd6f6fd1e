"""Logging to stderr: readable lines at a terminal, one JSON object a line elsewhere."""

import logging
import sys
from typing import Final, Literal, TypeAlias

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from .request_log import FIELDS, request_id

LogFormat: TypeAlias = Literal["auto", "text", "json"]

# Frame locals hold tokens and bodies: they stay out of the log.
_TRACEBACKS: Final = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)


def configure_logging(log_format: LogFormat = "auto", *, level: int = logging.INFO) -> None:
    """Send this process's log to stderr; "auto" is text at a terminal and JSON elsewhere."""
    as_text = sys.stderr.isatty() if log_format == "auto" else log_format == "text"
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_formatter(as_text=as_text))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # Its other lines repeat the ready line, the exit code and the summary of refused connections.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)


def _formatter(*, as_text: bool) -> structlog.stdlib.ProcessorFormatter:
    add_fields: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.ExtraAdder(FIELDS),
        _add_request_id,
    ]
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=add_fields,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info if as_text else structlog.processors.ExceptionRenderer(_TRACEBACKS),
            structlog.processors.EventRenamer("message"),
            _render_text if as_text else structlog.processors.JSONRenderer(),
        ],
    )


def _add_request_id(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    own_id = request_id.get()
    return event if own_id is None else {**event, "request_id": own_id}


def _render_text(logger: WrappedLogger, method: str, event: EventDict) -> str:
    """Time (UTC), level, logger, the message's first line, key=value; further lines and the traceback below."""
    first, *below = str(event.pop("message")).split("\n")
    below += event.pop("exception", "").splitlines()
    time = f"{event.pop('timestamp')[:19]}Z"
    head = f"{time} {event.pop('level').upper():<8} {event.pop('logger')}: {first}"
    fields = (f"{name}={_quoted(str(value))}" for name, value in event.items() if value is not None)
    return "\n".join(map(_printable, (" ".join([head, *fields]), *below)))


def _quoted(value: str) -> str:
    return value if value and not set(value) & set(' "=') else f'"{value}"'


def _printable(line: str) -> str:
    # Logged text comes from strangers too and must not steer the terminal.
    return "".join(character if character.isprintable() or character == "\t" else "?" for character in line)

"""Logs: what every room says through `logging`, as one JSON object a line on stderr.

At a terminal a text of several lines stands below its object, so that it can be read, and a handler be pasted.
"""

import logging
import sys
from typing import Final

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from .request_log import FIELDS, request_id

# A frame's locals hold tokens and bodies: they stay out of the log.
_TRACEBACKS: Final = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)


def log_as_json(level: int = logging.INFO) -> None:
    """Set up the logging of this process."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_formatter(_render_for_people if sys.stderr.isatty() else _render))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # Below that it tells how it starts and stops, which the ready line and the exit code do already, and of each
    # client that speaks no HTTP, which the guard counts.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)


def _formatter(render: Processor) -> structlog.stdlib.ProcessorFormatter:
    before: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.ExtraAdder(FIELDS),
        _add_request_id,
    ]
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=before,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.ExceptionRenderer(_TRACEBACKS),
            structlog.processors.EventRenamer("message"),
            render,
        ],
    )


_render: Final = structlog.processors.JSONRenderer()


def _render_for_people(logger: WrappedLogger, method: str, event: EventDict) -> str:
    first, *more = str(event["message"]).split("\n")
    told = _render(logger, method, {**event, "message": first})
    # What is not escaped by JSON must not steer the terminal.
    lines = ("".join(character if character.isprintable() else "?" for character in line) for line in more)
    return "\n".join([str(told), *lines])


def _add_request_id(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    own_id = request_id.get()
    return event if own_id is None else {**event, "request_id": own_id}

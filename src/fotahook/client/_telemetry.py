"""A span of OpenTelemetry for each request, if the program uses OpenTelemetry; fotahook does not depend on it."""

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

from ..contract.version import VERSION

Trace = AbstractContextManager[Callable[[int], None]]
"""The time of a request; its value notes the status of the response."""


def _note_nothing(status: int) -> None:
    pass


# OpenTelemetry is not loaded, so there is no span to continue and nobody to export one.
_NOTHING: Trace = nullcontext(_note_nothing)


def trace_request(method: str, url: str, headers: dict[str, str], attempt: int) -> Trace:
    """Begin the span of a request, and add its `traceparent` to the headers."""
    return _span(method, url, headers, attempt) if "opentelemetry.trace" in sys.modules else _NOTHING


@contextmanager
def _span(method: str, url: str, headers: dict[str, str], attempt: int) -> Iterator[Callable[[int], None]]:
    from opentelemetry import propagate, trace

    attributes: dict[str, str | int] = {
        "http.request.method": method,
        "url.full": url,
        "http.request.resend_count": attempt - 1,
    }
    span = trace.get_tracer("fotahook", VERSION).start_span(method, kind=trace.SpanKind.CLIENT, attributes=attributes)
    propagate.inject(headers, trace.set_span_in_context(span))
    try:
        yield partial(span.set_attribute, "http.response.status_code")
    except BaseException as error:
        span.set_status(trace.StatusCode.ERROR)
        span.set_attribute("error.type", type(error).__qualname__)
        raise
    finally:
        span.end()

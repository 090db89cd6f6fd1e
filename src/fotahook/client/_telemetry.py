"""A span of OpenTelemetry for each request, if the program uses OpenTelemetry; fotahook does not depend on it."""

import sys
from typing import TYPE_CHECKING, Self

from ..contract.version import VERSION

if TYPE_CHECKING:
    from opentelemetry.trace import Span


class Trace:
    """Does nothing: OpenTelemetry is not loaded, so there is no span to continue and nobody to export one."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        pass

    def responded(self, status: int) -> None:
        """Note the status of the response."""


class _SpanTrace(Trace):
    def __init__(self, span: "Span") -> None:
        self._span = span

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        from opentelemetry.trace import StatusCode

        if kind is not None:
            self._span.set_status(StatusCode.ERROR)
            self._span.set_attribute("error.type", kind.__qualname__)
        self._span.end()

    def responded(self, status: int) -> None:
        self._span.set_attribute("http.response.status_code", status)


_NOTHING = Trace()


def trace_request(method: str, url: str, headers: dict[str, str], attempt: int) -> Trace:
    """Begin the span of a request, and add its `traceparent` to the headers."""
    if "opentelemetry.trace" not in sys.modules:
        return _NOTHING
    from opentelemetry import propagate, trace

    attributes: dict[str, str | int] = {
        "http.request.method": method,
        "url.full": url,
        "http.request.resend_count": attempt - 1,
    }
    span = trace.get_tracer("fotahook", VERSION).start_span(method, kind=trace.SpanKind.CLIENT, attributes=attributes)
    propagate.inject(headers, trace.set_span_in_context(span))
    return _SpanTrace(span)

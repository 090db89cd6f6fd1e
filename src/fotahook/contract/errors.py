"""The SDK's exceptions. Bad arguments raise TypeError or ValueError.

FotahookError
├── ApiException                  a response that is neither 2xx nor a redirect
│   ├── FotaV2ResultException     400 of a callback call: `error_code`, `error_message`
│   ├── AuthenticationError       401, after the tokens were renewed once if possible
│   ├── PermissionDenied          403
│   ├── NotFound                  404
│   ├── RateLimited               429
│   └── ServerError               5xx
├── TransportError                no complete response
│   ├── ConnectionFailed          no connection, or one lost before the response was complete
│   ├── TimedOut                  the deadline passed before the response was complete
│   └── TlsError                  the certificate or the handshake failed
├── ResponseError                 a response that breaks the contract: unexpected JSON, too large, a redirect
├── LoginRefused                  the session login was refused; it is not retried
└── WebhookRejected               a received message is not accepted (raised where messages are received)

`str()` of each is one printable line. None contains a token, a secret or a password; all can be pickled and copied.
"""

from typing import ClassVar

from .exchange import Headers, Reply, Request


class FotahookError(Exception):
    """The base class of all errors of the SDK.

    `request` is the failed request, if any, with secrets masked; `attempts` is how often it was sent.
    """

    attempts = 0
    kept_connection = False
    """Whether the connection was kept from an earlier exchange, and ended before a byte of the response."""
    request_id: str | None = None
    """The `X-Request-Id` of the response, if there was one: support asks for it."""

    def __init__(self, message: str, *, request: Request | None = None) -> None:
        super().__init__(message)
        self.request = request

    def __reduce__(self) -> tuple[object, ...]:
        # The default calls the class with `args` only, which our constructors do not accept.
        return _restore, (type(self), self.args, self.__dict__)


def _restore(kind: type[FotahookError], args: tuple[object, ...], state: dict[str, object]) -> FotahookError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


class AnsweredError(FotahookError):
    """The base class of errors with a response; `status_code` is 0 if none could be read."""

    def __init__(self, message: str, *, request: Request | None = None, reply: Reply | None = None) -> None:
        super().__init__(message, request=request)
        self.status_code = reply.status if reply else 0
        self.headers = reply.headers if reply else Headers()
        self.raw_body = reply.body if reply else b""
        self.request_id = self.headers.get("x-request-id")


class ApiException(AnsweredError):
    """The service returned an error.

    `error_code` and `error_message` come from the body if it is ThingSpace's JSON or a fault of its gateway; else they
    are None. Codes are stable from release to release, messages are not.
    """

    reason: ClassVar[str] = "The service refused the call."

    def __init__(
        self,
        message: str,
        *,
        request: Request | None = None,
        reply: Reply | None = None,
        error_code: str | None = None,
        error_message: str | None = None,
    ) -> None:
        super().__init__(message, request=request, reply=reply)
        self.error_code = error_code
        self.error_message = error_message


class FotaV2ResultException(ApiException):
    """400: the callback call was refused; `error_code` says why. `reason` is the published description of 400."""

    reason = "Unexpected error."


class AuthenticationError(ApiException):
    """401: the tokens or credentials are not accepted."""

    reason = "Authentication failed."


class PermissionDenied(ApiException):
    """403: the credentials are valid, but do not allow this."""

    reason = "Permission denied."


class NotFound(ApiException):
    """404: nothing exists at this path."""

    reason = "Not found."


class RateLimited(ApiException):
    """429: too many calls. `headers.get("retry-after")` may have the time to wait."""

    reason = "Too many requests."


class ServerError(ApiException):
    """5xx: the service or its gateway failed."""

    reason = "The service failed."


class TransportError(FotahookError):
    """There was no complete response; `__cause__` is the transport's own exception."""


class ConnectionFailed(TransportError):
    """There was no connection, or it was lost before the response was complete."""


class TimedOut(TransportError):
    """The deadline (`timeout=`, in seconds) passed before the response was complete."""


class TlsError(TransportError):
    """The server's certificate or the TLS handshake failed; the message says how."""


class ResponseError(AnsweredError):
    """The response breaks the contract, so the outcome of the call is unknown.

    Raised for a 2xx with an unexpected body, a body over 1 MiB, a redirect, and bytes that are not HTTP.
    """


class LoginRefused(AnsweredError):
    """The session login was refused. Only `login()` tries again: five failures in a row lock the account."""


class WebhookRejected(FotahookError):
    """A received request is not accepted: answer it with the HTTP status `status`. The text says why."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status

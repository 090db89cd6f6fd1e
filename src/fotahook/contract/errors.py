"""What the SDK raises, besides TypeError and ValueError for bad arguments.

FotahookError
├── ApiException                  an answer that is neither 2xx nor a redirect
│   ├── FotaV2ResultException     400 of a callback call: `error_code`, `error_message`
│   ├── AuthenticationError       401, after the tokens were renewed once where they can be
│   ├── PermissionDenied          403
│   ├── NotFound                  404
│   ├── RateLimited               429
│   └── ServerError               5xx
├── TransportError                no whole answer came
│   ├── ConnectionFailed          no connection, or one lost before the answer was complete
│   ├── TimedOut                  the deadline passed first
│   └── TlsError                  a certificate or a handshake that cannot be trusted
├── ResponseError                 an answer that breaks the contract: not the JSON agreed, too large, a redirect
└── LoginRefused                  the session login was refused; it is not tried again by itself

`str()` of each is one printable line. None holds a token, a secret or a password, and each survives pickle and copy.
"""

from typing import ClassVar

from .exchange import Headers, Reply, Request


class FotahookError(Exception):
    """The root of all errors of the SDK; `request` is the request in hand, if there was one, secrets masked."""

    def __init__(self, message: str, *, request: Request | None = None) -> None:
        super().__init__(message)
        self.request = request

    def __reduce__(self) -> tuple[object, ...]:
        # Exception's own way calls the class with `args` alone, which our constructors would refuse.
        return _restored, (type(self), self.args, self.__dict__)


def _restored(kind: type[FotahookError], args: tuple[object, ...], state: dict[str, object]) -> FotahookError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


class AnsweredError(FotahookError):
    """What ApiException, ResponseError and LoginRefused have in common: the parts of the answer.

    `status_code` is 0 where no status could be read.
    """

    def __init__(self, message: str, *, request: Request | None = None, reply: Reply | None = None) -> None:
        super().__init__(message, request=request)
        self.status_code = reply.status if reply else 0
        self.headers = reply.headers if reply else Headers()
        self.raw_body = reply.body if reply else b""


class ApiException(AnsweredError):
    """The service answered with an error.

    `error_code` and `error_message` are those of the body, where it is ThingSpace's JSON or a fault of the gateway
    before it; else None. Codes are stable from release to release, messages are not.
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
    """403: the credentials are good, but not for this."""

    reason = "Permission denied."


class NotFound(ApiException):
    """404: there is nothing at this path."""

    reason = "Not found."


class RateLimited(ApiException):
    """429: too many calls. `headers.get("retry-after")` may say when to come back."""

    reason = "Too many requests."


class ServerError(ApiException):
    """5xx: the service, or a gateway before it, failed."""

    reason = "The service failed."


class TransportError(FotahookError):
    """No whole answer came; `__cause__` is what the transport raised."""


class ConnectionFailed(TransportError):
    """There was no connection, or it was lost before the answer was complete."""


class TimedOut(TransportError):
    """The deadline (`timeout=`, in seconds) passed before the answer was complete."""


class TlsError(TransportError):
    """The server's certificate or the TLS handshake failed; the message says in which way."""


class ResponseError(AnsweredError):
    """The answer breaks the contract, so nothing can be said about the outcome of the call.

    Raised for a 2xx whose body is not what the call promises, a body over 1 MiB, a redirect, and bytes that
    are not HTTP.
    """


class LoginRefused(AnsweredError):
    """The session login was refused.

    It is not tried again until `login()` is called: five failures in a row lock the account.
    """

"""Every answer that is not the one asked for.

ThingSpace's services answer `{"errorCode", "errorMessage"}`, the gateway before them `{"fault": {…}}`; which of them
speaks when is told in docs/thingspace.md, Errors. Codes and words that are not Verizon's are ours, and every one of
ours says what happened and what to do about it.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec
from starlette.responses import Response

GATEWAY_PATHS: Final = "/api/"
"""Below this the gateway speaks for itself; fotahook's own paths know no gateway."""


class Fault(NamedTuple):
    """The gateway's code and message for a problem that it finds before any service is asked."""

    code: str
    message: str


INVALID_CREDENTIALS: Final = Fault("900901", "Invalid Credentials")
MISSING_CREDENTIALS: Final = Fault("900902", "Missing Credentials")
NO_RESOURCE: Final = Fault("900906", "No matching resource found")


class Problem(Exception):
    """A request that ends in an error answer.

    `fault`: what the gateway says instead, below ``/api``. `also`: members beside ThingSpace's two.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        fault: Fault | None = None,
        headers: Mapping[str, str] | None = None,
        also: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.fault = fault
        self.headers = headers or {}
        self.also = also or {}

    @property
    def content(self) -> dict[str, str]:
        """What it says, in ThingSpace's two members."""
        return {"errorCode": self.code, "errorMessage": self.message}

    def response(self, path: str) -> Response:
        """The answer as it reads on this path."""
        body: dict[str, object] = {**self.content, **self.also}
        if self.fault is not None and path.startswith(GATEWAY_PATHS):
            body = {"fault": {"code": self.fault.code, "message": self.fault.message, "description": self.message}}
        return answer(body, self.status, headers=self.headers)


def answer(content: object, status: int = 200, *, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer."""
    return Response(msgspec.json.encode(content), status, headers, "application/json")


# What the request says


def invalid(message: str) -> Problem:
    """ThingSpace's one code for whatever is wrong with a request."""
    return Problem(400, "INVALID_PARAMETER", message)


def no_body() -> Problem:
    # Verizon's words for an empty body.
    return invalid("Input binding error")


def bad_account() -> Problem:
    # Verizon's words for a missing account or a wrong character in it.
    return invalid("Invalid account name format")


def wrong_grant() -> Problem:
    code, message = "invalid_request", "Missing grant_type parameter value"
    # OAuth's own names beside ThingSpace's (RFC 6749, section 5.2): token clients look for those.
    return Problem(400, code, message, also={"error": code, "error_description": message})


# One answer for an account that does not exist and one that is somebody else's.
_NO_ACCOUNT = "There is no such account among yours; check the number, leading zeros included, or have it granted."


def no_callback_account() -> Problem:
    # The code is that of Verizon's connectivity calls; 400 is what every FOTA error has.
    return Problem(400, "REQUEST_FAILED.AccountNotFound", _NO_ACCOUNT)


def no_account() -> Problem:
    return not_found(_NO_ACCOUNT)


def too_large(limit: int, what: str = "body") -> Problem:
    return Problem(413, "TOO_LARGE", f"The {what} has more than {limit} bytes; send a smaller one.")


def too_many_lines(limit: int) -> Problem:
    return Problem(
        413, "TOO_LARGE", f"The batch has more than {limit} lines and none was accepted; send a shorter one."
    )


def not_found(message: str) -> Problem:
    return Problem(404, "NOT_FOUND", message)


def no_such_path() -> Problem:
    message = "Nothing is served at this path; check it against the list of calls in docs/service.md."
    return Problem(404, "NOT_FOUND", message, fault=NO_RESOURCE)


def wrong_method(method: str, allow: str) -> Problem:
    message = f"{method[:20]} is not a method of this path; it has {allow}."
    return Problem(405, "METHOD_NOT_ALLOWED", message, headers={"Allow": allow})


def conflict(message: str) -> Problem:
    return Problem(409, "CONFLICT", message)


def other_message() -> Problem:
    return conflict("This idempotency key came earlier with another message; use a new key for a new one.")


def gone(message: str) -> Problem:
    return Problem(410, "GONE", message)


# Who is asking


def no_client() -> Problem:
    message = "Send the client's id and secret as Authorization: Basic."
    return _unauthorized("MISSING_CREDENTIALS", message, MISSING_CREDENTIALS, "Basic")


def wrong_client() -> Problem:
    message = "The client's id or secret is wrong, or the client was revoked."
    return _unauthorized("INVALID_CREDENTIALS", message, INVALID_CREDENTIALS, "Basic")


def no_token() -> Problem:
    message = "Send the access token as Authorization: Bearer; the token call hands one out."
    return _unauthorized("MISSING_CREDENTIALS", message, MISSING_CREDENTIALS, "Bearer")


def wrong_token() -> Problem:
    message = "The access token is unknown, revoked or has expired; ask the token call for a new one."
    return _unauthorized("INVALID_CREDENTIALS", message, INVALID_CREDENTIALS, "Bearer")


# The codes are those of Verizon's session calls; that the callback calls give them too, and with 401, is ours.


def no_session() -> Problem:
    message = "Send the session token of the login call as VZ-M2M-Token."
    return _unauthorized("REQUEST_FAILED.SessionToken.Format", message, None, "VZ-M2M-Token")


def malformed_session() -> Problem:
    message = "The VZ-M2M-Token is not a GUID; send the session token as the login call gave it."
    return _unauthorized("INPUT_INVALID.SessionToken.Invalid", message, None, "VZ-M2M-Token")


def ended_session() -> Problem:
    message = "The session is unknown, logged out or was idle for 20 minutes; log in again."
    return _unauthorized("REQUEST_FAILED.SessionToken.Expired", message, None, "VZ-M2M-Token")


def login_refused() -> Problem:
    # One answer for every reason: it must not tell which part was wrong.
    return Problem(400, "LOGIN_REFUSED", "The user name or the password is wrong; check both before trying again.")


def login_locked(seconds: int) -> Problem:
    # The same code: whoever reads codes only is refused, and has no reason to ask again and again.
    message = f"Five logins in a row were refused, so none is tried for now; wait for {seconds} seconds."
    return Problem(400, "LOGIN_REFUSED", message, headers={"Retry-After": str(seconds)})


def missing_scope(scope: str) -> Problem:
    message = f"This call needs the scope {scope}; have it granted to the client, and to the user where one logs in."
    return Problem(403, "INVALID_ACCESS", message)


def too_many_requests(seconds: int) -> Problem:
    message = f"The client has had its share of requests; wait for {seconds} seconds, and publish messages in batches."
    return Problem(429, "TOO_MANY_REQUESTS", message, headers={"Retry-After": str(seconds)})


def _unauthorized(code: str, message: str, fault: Fault | None, scheme: str) -> Problem:
    return Problem(401, code, message, fault=fault, headers={"WWW-Authenticate": scheme})


# What the service cannot do


def store_full() -> Problem:
    return Problem(507, "STORE_FULL", "The store has no room left and kept nothing of this; tell the operator.")


def store_unavailable() -> Problem:
    message = "The store cannot be reached just now; send the same request again, with the same keys."
    return Problem(503, "STORE_UNAVAILABLE", message, headers={"Retry-After": "1"})


def not_ready(part: str, why: str) -> Problem:
    return Problem(503, "NOT_READY", f"{part}: {why}; the log says more.", headers={"Retry-After": "1"})


def no_room() -> Problem:
    message = "Too many batches are being read just now and nothing of this one was kept; send the same request again."
    return Problem(503, "BUSY", message, headers={"Retry-After": "1"})


def too_many_streams(limit: int) -> Problem:
    message = f"The client has {limit} streams of events open already; close one that is not read."
    return Problem(429, "TOO_MANY", message, headers={"Retry-After": "60"})


def internal_error() -> Problem:
    return Problem(500, "INTERNAL_ERROR", "The service failed at this request; its log says why.")

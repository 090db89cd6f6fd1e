"""Every error answer of the service: a table of statuses, codes and texts. ThingSpace's services answer `{"errorCode",
"errorMessage"}`, its gateway `{"fault": {…}}`; docs/thingspace.md, Errors, says which of the two answers when. Codes
and texts that are not Verizon's are ours; each of our texts says what to do."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import msgspec
from starlette.responses import Response

GATEWAY_PATHS: Final = "/api/"
"""ThingSpace's gateway answers for the paths below this one. fotahook's own paths have no gateway."""

_FAULTS: Final = {
    "INVALID_CREDENTIALS": ("900901", "Invalid Credentials"),
    "MISSING_CREDENTIALS": ("900902", "Missing Credentials"),
    "NOT_FOUND": ("900906", "No matching resource found"),
}


@dataclass(frozen=True)
class ErrorType:
    """A row of the table. Call it with the values that its text needs to get the exception to raise."""

    status: int
    code: str
    text: str
    headers: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, *args: object, **values: object) -> "ApiError":
        headers = {name: value.format(**values) for name, value in self.headers.items()}
        return ApiError(self.status, self.code, self.text.format(*args, **values), headers)


class ApiError(Exception):
    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status, self.code, self.message, self.headers = status, code, message, headers or {}
        self.content = {"errorCode": code, "errorMessage": message}

    def response(self, path: str) -> Response:
        body: dict[str, object] = {**self.content}
        if self.code in _FAULTS and path.startswith(GATEWAY_PATHS):
            code, message = _FAULTS[self.code]
            body = {"fault": {"code": code, "message": message, "description": self.message}}
        if self.code == WRONG_GRANT.code:
            # OAuth's own members too, for clients that follow RFC 6749, section 5.2.
            body |= {"error": self.code, "error_description": self.message}
        return answer(body, self.status, headers=self.headers)


def answer(content: object, status: int = 200, *, headers: Mapping[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(content), status, headers, "application/json")


_RETRY: Final = {"Retry-After": "1"}
_WAIT: Final = {"Retry-After": "{seconds}"}

# The request is wrong. Three texts are Verizon's: an empty body, a missing or malformed account, an unknown campaign.
_invalid = partial(ErrorType, 400, "INVALID_PARAMETER")
INVALID = _invalid("{}")
NO_BODY = _invalid("Input binding error")
BAD_ACCOUNT = _invalid("Invalid account name format")
NO_CAMPAIGN = _invalid("Invalid upgradeId")
WRONG_GRANT = ErrorType(400, "invalid_request", "Missing grant_type parameter value")
OTHER_ACCOUNT = _invalid("The message's accountName is not {}, nor an account you may publish for; correct it.")
NO_ANSWER = _invalid("The receiver at url must answer the challenge before it is registered: {}.")
NOT_FOUND = ErrorType(404, "NOT_FOUND", "{}")
NO_SUCH_PATH = ErrorType(404, "NOT_FOUND", "There is no such path; docs/service.md lists the calls.")
WRONG_METHOD = ErrorType(
    405, "METHOD_NOT_ALLOWED", "{method} is not allowed on this path; use {allow}.", {"Allow": "{allow}"}
)
CONFLICT = ErrorType(409, "CONFLICT", "{}")
OTHER_MESSAGE = ErrorType(409, "CONFLICT", "The idempotency key was used for another message; use a new key.")
GONE = ErrorType(410, "GONE", "{}")
TOO_LARGE = ErrorType(413, "TOO_LARGE", "The {what} is larger than {limit} bytes; send a smaller one.")
TOO_MANY_LINES = ErrorType(413, "TOO_LARGE", "The batch has more than {limit} lines; none was accepted, send fewer.")

# The same text for an account that does not exist and for one that belongs to somebody else. The first code is that of
# Verizon's connectivity calls; 400 is the status of every FOTA error.
_NO_ACCOUNT: Final = "Account not found, or not granted to you; check the number, including its leading zeros."
NO_CALLBACK_ACCOUNT = ErrorType(400, "REQUEST_FAILED.AccountNotFound", _NO_ACCOUNT)
NO_ACCOUNT = ErrorType(404, "NOT_FOUND", _NO_ACCOUNT)

# The caller is unknown. The codes about sessions are those of Verizon's session calls; that the callback calls answer
# them too, and with 401, is ours.
_basic = partial(ErrorType, 401, headers={"WWW-Authenticate": "Basic"})
NO_CLIENT = _basic("MISSING_CREDENTIALS", "Send the client's id and secret as Authorization: Basic.")
WRONG_CLIENT = _basic("INVALID_CREDENTIALS", "The client is unknown or revoked, or its secret wrong.")
_bearer = partial(ErrorType, 401, headers={"WWW-Authenticate": "Bearer"})
NO_TOKEN = _bearer("MISSING_CREDENTIALS", "Send an access token as Authorization: Bearer; the token call returns one.")
WRONG_TOKEN = _bearer("INVALID_CREDENTIALS", "The access token is unknown, revoked or expired; request a new one.")
_session = partial(ErrorType, 401, headers={"WWW-Authenticate": "VZ-M2M-Token"})
NO_SESSION = _session("REQUEST_FAILED.SessionToken.Format", "Send the session token of the login call as VZ-M2M-Token.")
MALFORMED_SESSION = _session(
    "INPUT_INVALID.SessionToken.Invalid", "VZ-M2M-Token is not a GUID; send the login call's token."
)
ENDED_SESSION = _session("REQUEST_FAILED.SessionToken.Expired", "The session is unknown or has ended; log in again.")

# The caller may not do this, or not now. A refused login does not say which part was wrong; a locked one has the same
# code, so that a client that reads only codes stops trying.
LOGIN_REFUSED = ErrorType(400, "LOGIN_REFUSED", "The user name or the password is wrong; check both.")
LOGIN_LOCKED = ErrorType(400, "LOGIN_REFUSED", "Too many failed logins; wait for {seconds} seconds.", _WAIT)
_denied = partial(ErrorType, 403, "INVALID_ACCESS")
MISSING_SCOPE = _denied("This call requires the scope {}; grant it to the client, and to the user of a session.")
WRONG_NETWORK = _denied("The client or user may not be used from {}; see its networks.")
TOO_MANY_REQUESTS = ErrorType(
    429, "TOO_MANY_REQUESTS", "Rate limit exceeded; wait {seconds} seconds, and publish messages in batches.", _WAIT
)
TOO_MANY_STREAMS = ErrorType(
    429, "TOO_MANY", "The client has {limit} event streams open; close one that is not read.", {"Retry-After": "60"}
)

# The service cannot do it.
_full = partial(ErrorType, 507)
QUOTA_REACHED = _full("QUOTA_REACHED", "The account has {}, which is its quota; nothing was saved. Deliver them first.")
STORE_FULL = _full("STORE_FULL", "The store is full and nothing was saved; contact the operator.")
_unavailable = partial(ErrorType, 503, headers=_RETRY)
NOT_COUNTED = ErrorType(503, "BUSY", "The quota is counted again in {seconds} seconds; nothing was saved, wait.", _WAIT)
STORE_UNAVAILABLE = _unavailable(
    "STORE_UNAVAILABLE", "The store is unavailable; send the same request again, with the same keys."
)
NOT_READY = _unavailable("NOT_READY", "{part}: {reason}; see the log.")
BUSY = _unavailable("BUSY", "Too many requests with bodies at once; nothing was saved, send it again.")
TOO_MANY_CHECKS = _unavailable("BUSY", "A check of yours is under way, or too many others; try again in a minute.")
TOO_MANY_LOGINS = _unavailable("BUSY", "Too many logins at once; send the login again.")
INTERNAL_ERROR = ErrorType(500, "INTERNAL_ERROR", "The service failed to handle this request; see its log.")

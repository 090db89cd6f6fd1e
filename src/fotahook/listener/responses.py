"""What the listener answers: a status, headers and JSON; for ASGI and WSGI alike."""

from http import HTTPStatus

import msgspec

from fotahook.store.records import Accepted, StoreFull

from .verification import Rejected


class Answer(msgspec.Struct, frozen=True):
    """One whole response."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()

    def all_headers(self) -> list[tuple[str, str]]:
        """The headers with those of the body."""
        return [("content-type", "application/json"), ("content-length", str(len(self.body))), *self.headers]

    def raw_headers(self) -> list[tuple[bytes, bytes]]:
        """The same as ASGI wants them."""
        own = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in self.headers]
        return [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(self.body)), *own]


def accepted(accepted: Accepted) -> Answer:
    """The message is on disk. Rejected (409) if its bytes are not, and never will be."""
    if accepted.conflict:
        raise Rejected(409, "this webhook-id came earlier with another message")
    return Answer(200, msgspec.json.encode({"id": accepted.id, "duplicate": accepted.duplicate}))


def refused(error: Exception, headers: tuple[tuple[str, str], ...] = ()) -> Answer:
    """What an error comes to: Rejected, or one of the store's."""
    if isinstance(error, Rejected):
        # The code with which `fotahook listen` ends a body that came too slowly before the app does.
        code = "REQUEST_TIMEOUT" if error.status == HTTPStatus.REQUEST_TIMEOUT else "MESSAGE_REFUSED"
        return problem(error.status, code, str(error), *headers)
    if isinstance(error, StoreFull):
        return problem(507, "INBOX_FULL", "there is no room left for messages")
    return problem(503, "INBOX_AWAY", "messages cannot be stored now", ("retry-after", "5"))


def unwell(error: Exception) -> Answer:
    """What health says while messages meet one of the store's errors."""
    return msgspec.structs.replace(refused(error), status=503)


def problem(status: int, code: str, text: str, *headers: tuple[str, str]) -> Answer:
    """An error, in the shape of ThingSpace's."""
    return Answer(status, msgspec.json.encode({"errorCode": code, "errorMessage": text}), headers)


HEALTHY = Answer(200, b'{"status":"ok"}')
NOT_HANDLING = problem(503, "NOT_HANDLING", "messages are stored but no longer handled: see the log, then restart")
# The path may be all that keeps others out, so it is not told.
NOT_FOUND = problem(404, "NOT_FOUND", "nothing is received here")
POST_ONLY = problem(405, "METHOD_NOT_ALLOWED", "messages are POSTed", ("allow", "POST"))
GET_ONLY = problem(405, "METHOD_NOT_ALLOWED", "health is read with GET", ("allow", "GET, HEAD"))

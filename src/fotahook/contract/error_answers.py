"""From an error answer to the exception that tells of it: codes read wherever a body hides them, one readable line."""

import re
from collections.abc import Collection

import msgspec

from .errors import (
    ApiException,
    AuthenticationError,
    NotFound,
    PermissionDenied,
    RateLimited,
    ResponseError,
    ServerError,
)
from .exchange import MASK, Headers, Reply, Request

BY_STATUS: dict[int, type[ApiException]] = {
    401: AuthenticationError,
    403: PermissionDenied,
    404: NotFound,
    429: RateLimited,
}

EXCERPT = 200
# Shorter ones would mask half of the words of a message; nobody's secret is as short.
SHORTEST_SECRET = 4

# The gateway answers some faults in XML: `<am:fault><am:code>…</am:code><am:message>…`. A parser would do more than
# read two fields, such as expanding entities that the body brings along.
_XML_FIELD = r"<(?:\w+:)?%s>\s*([^<]{0,2000}?)\s*</"
_XML_CODE = re.compile(_XML_FIELD % "code")
_XML_MESSAGE = re.compile(_XML_FIELD % "message")
_TAG = re.compile(r"<[^<>]{0,2000}>")


def refusal(
    reply: Reply, request: Request, kind_of_400: type[ApiException], secrets: Collection[str] = ()
) -> ApiException | ResponseError | None:
    """The error that an answer amounts to, or None for a 2xx.

    `secrets` are masked in the body wherever the service echoes them, so that no message can hold one.
    """
    status = reply.status
    if 200 <= status < 300:
        return None
    reply = masked(reply, secrets)
    if status < 400:
        return _not_final(reply, request)
    code, message = fault(reply.body)
    kind = kind_of_400 if status == 400 else BY_STATUS.get(status, ServerError if status >= 500 else ApiException)
    said = ": ".join(part for part in (code, message) if part) or excerpt(reply.body) or reply.reason
    line = one_line(f"{status} for {request.method} {request.url}: {said or kind.reason}")
    return kind(line, request=request, reply=reply, error_code=code, error_message=message)


def _not_final(reply: Reply, request: Request) -> ResponseError:
    about = f"{reply.status} for {request.method} {request.url}"
    location = reply.headers.get("location")
    if reply.status < 300 or location is None:
        return ResponseError(one_line(f"{about}: not an answer of this API"), request=request, reply=reply)
    told = one_line(f"{about}: redirects are not followed; it points to {location}")
    return ResponseError(told, request=request, reply=reply)


def masked(reply: Reply, secrets: Collection[str]) -> Reply:
    """The reply, each secret in its body, reason and headers replaced by `***`."""
    for secret in _longest_first(secrets):
        shown = Headers([(name, value.replace(secret, MASK)) for name, value in reply.headers.items()])
        body = reply.body.replace(secret.encode(errors="surrogatepass"), MASK.encode())
        reply = Reply(reply.status, reply.reason.replace(secret, MASK), shown, body)
    return reply


def masked_text(text: str, secrets: Collection[str]) -> str:
    """The text, each secret in it replaced by `***`."""
    for secret in _longest_first(secrets):
        text = text.replace(secret, MASK)
    return text


def _longest_first(secrets: Collection[str]) -> list[str]:
    return sorted((secret for secret in secrets if len(secret) >= SHORTEST_SECRET), key=len, reverse=True)


def fault(body: bytes) -> tuple[str | None, str | None]:
    """The code and message of an error body, None for what it does not hold.

    Reads ThingSpace's `{"errorCode", "errorMessage"}`, the gateway's `{"fault": {"code", "message", "description"}}`
    in JSON and in XML, and OAuth's `{"error", "error_description"}` (RFC 6749, section 5.2).
    """
    try:
        told = msgspec.json.decode(body)
    except (ValueError, RecursionError):
        return _xml_fault(body)
    if not isinstance(told, dict):
        return None, None
    inner = told.get("fault")
    if isinstance(inner, dict):
        return _text(inner.get("code")), _text(inner.get("description")) or _text(inner.get("message"))
    code = _text(told.get("errorCode")) or _text(told.get("error"))
    return code, _text(told.get("errorMessage")) or _text(told.get("error_description"))


def _xml_fault(body: bytes) -> tuple[str | None, str | None]:
    text = body.decode("utf-8", "replace")
    code, message = _XML_CODE.search(text), _XML_MESSAGE.search(text)
    return (code and code[1]) or None, (message and message[1]) or None


def _text(value: object) -> str | None:
    """A code or message as text: gateways write codes as numbers too; anything nested is none."""
    if isinstance(value, bool | dict | list) or value is None:
        return None
    return str(value) or None


def excerpt(body: bytes) -> str:
    """The beginning of a body of any kind, as a line to read: of HTML its text, of binary its size."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return f"a body of {len(body)} bytes that are not text"
    return one_line(_TAG.sub(" ", text[: EXCERPT * 10]), EXCERPT)


def one_line(text: str, limit: int = EXCERPT * 3) -> str:
    """The text as one printable line of at most `limit` characters."""
    printable = "".join(char if char.isprintable() else " " for char in text[: limit * 4])
    line = " ".join(printable.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"

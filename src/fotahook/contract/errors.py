"""The SDK's exceptions, and how an error response becomes one. Bad arguments raise TypeError or ValueError.

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

import copyreg
import re
import zlib
from codecs import BOM_UTF8
from collections.abc import Collection
from typing import ClassVar

import msgspec
from msgspec import structs

from .exchange import MASK, Headers, Reply, Request

MAX_BODY = 1024 * 1024
EXCERPT = 200
XML_LIMIT = 64 * 1024
# Masking shorter ones would make messages unreadable; no secret is that short.
MIN_SECRET = 4
# One of letters only that is as long is no word.
LONG_SECRET = 12
_BEFORE_VALUE = (
    r"(?:(?<=[\"'`=:>(\[{&?,])|(?<=[=:] )|(?i:(?<=password )|(?<=secret )|(?<=token )|(?<=bearer )|(?<=basic )))"
)
# The gateway sends some faults as XML: `<am:fault><am:code>…</am:code><am:message>…`. An XML parser would do more than
# read two fields, such as expand entities.
_XML_FIELD = r"<(?:\w{1,50}:)?%s>([^<]{0,2000})</"
_TAG = re.compile(r"<[^<>]{0,2000}>")


class FotahookError(Exception):
    """The base of all errors: `request` failed, secrets masked, or is None; `attempts` is how often it was sent."""

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
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined]


class AnsweredError(FotahookError):
    """The base class of errors with a response; `status_code` is 0 if none could be read."""

    def __init__(self, message: str, *, request: Request | None = None, reply: Reply | None = None) -> None:
        super().__init__(message, request=request)
        self.status_code = reply.status if reply else 0
        self.headers = reply.headers if reply else Headers()
        self.raw_body = reply.body if reply else b""
        self.request_id = self.headers.get("x-request-id")


class ApiException(AnsweredError):
    """The service returned an error; `error_code` and `error_message` are None if they are not known.

    Codes are stable from release to release, messages are not.
    """

    reason: ClassVar[str] = "The service refused the call."
    error_code: str | None = None
    error_message: str | None = None
    _by_status: ClassVar[dict[int, type["ApiException"]]] = {}

    def __init_subclass__(cls, *, reason: str = "", status: int = 0) -> None:
        cls.reason = reason or cls.reason
        cls._by_status.setdefault(status, cls)


class FotaV2ResultException(ApiException, reason="Unexpected error."):
    """400: the callback call was refused; `error_code` says why. `reason` is the published description of 400."""


class AuthenticationError(ApiException, status=401, reason="Authentication failed."):
    """401: the tokens or credentials are not accepted."""


class PermissionDenied(ApiException, status=403, reason="Permission denied."):
    """403: the credentials are valid, but do not allow this."""


class NotFound(ApiException, status=404, reason="Not found."):
    """404: nothing exists at this path."""


class RateLimited(ApiException, status=429, reason="Too many requests."):
    """429: too many calls. `headers.get("retry-after")` may have the time to wait."""


class ServerError(ApiException, reason="The service failed."):
    """5xx: the service or its gateway failed."""


class TransportError(FotahookError):
    """There was no complete response; `__cause__` is the transport's own exception."""


class ConnectionFailed(TransportError):
    """There was no connection, or it was lost before the response was complete."""


class TimedOut(TransportError):
    """The deadline (`timeout=`, in seconds) passed before the response was complete."""


class TlsError(TransportError):
    """The server's certificate or the TLS handshake failed; the message says how."""


class ResponseError(AnsweredError):
    """The outcome is unknown: a 2xx with an unexpected body or over 1 MiB, a redirect, or bytes that are not HTTP."""


class LoginRefused(AnsweredError):
    """The session login was refused. Only `login()` tries again: five failures in a row lock the account."""


class WebhookRejected(FotahookError):
    """A received request is not accepted: answer it with the HTTP status `status`. The text says why."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def error_from_reply(
    reply: Reply, request: Request, error_400: type[ApiException], secrets: Collection[str] = ()
) -> ApiException | ResponseError:
    """The exception for a response that is not accepted. `secrets` are masked wherever the response echoes them."""
    status = reply.status
    reply = mask_reply(reply, secrets)
    if 200 <= status < 300:
        return response_error("neither 200, 201 nor 204, so nothing is known of the outcome", request, reply)
    if status < 400:
        location = reply.headers.get("location") if status >= 300 else None
        problem = f"redirects are not followed; it points to {location}" if location else "not a response of this API"
        return response_error(problem, request, reply)
    code, message = parse_error_body(reply.body)
    kind = {400: error_400, **ApiException._by_status}.get(status, ServerError if status >= 500 else ApiException)
    text = ": ".join(part for part in (code, message) if part) or excerpt(reply.body) or reply.reason
    line = one_line(f"{status} for {request.method} {request.url}: {text or kind.reason}")
    error = kind(line, request=request, reply=reply)
    error.error_code, error.error_message = code, message
    return error


def response_error(problem: str, request: Request, reply: Reply) -> ResponseError:
    text = one_line(f"{reply.status} for {request.method} {request.url}: {problem}")
    return ResponseError(text, request=request, reply=reply)


def decoded(reply: Reply, request: Request) -> Reply:
    """The reply with a body that was compressed, although we never ask for it, as it was before."""
    # No JSON begins like gzip or zlib.
    if reply.body[:1] not in (b"\x1f", b"x") or reply.headers.get("content-encoding") not in ("gzip", "deflate"):
        return reply
    inflate = zlib.decompressobj(zlib.MAX_WBITS + 32)
    try:
        body = inflate.decompress(reply.body, MAX_BODY + 1)
    except zlib.error:
        return reply
    plain = structs.replace(reply, body=body)
    if len(body) > MAX_BODY:
        raise body_too_large(request, plain)
    return plain if inflate.eof else reply


def body_too_large(request: Request, reply: Reply) -> ResponseError:
    start = structs.replace(reply, body=reply.body[:MAX_BODY])
    return response_error(f"a body of more than {MAX_BODY} bytes", request, start)


def mask_reply(reply: Reply, secrets: Collection[str]) -> Reply:
    headers = Headers([(name, mask_text(value, secrets)) for name, value in reply.headers.items()])
    # Latin-1 keeps any bytes; a secret beyond ASCII is looked for as UTF-8.
    encoded = [secret.encode(errors="surrogatepass").decode("latin-1") for secret in secrets]
    body = mask_text(reply.body.decode("latin-1"), encoded).encode("latin-1")
    return structs.replace(reply, reason=mask_text(reply.reason, secrets), headers=headers, body=body)


def mask_text(text: str, secrets: Collection[str]) -> str:
    """The text with each secret replaced by `***`; a plain word, such as `wrong`, only where it stands as a value."""
    for secret in sorted((secret for secret in secrets if len(secret) >= MIN_SECRET), key=len, reverse=True):
        if secret not in text:
            continue
        if text == secret or not (secret.isalpha() and len(secret) < LONG_SECRET):
            text = text.replace(secret, MASK)
        else:
            text = re.sub(f"{_BEFORE_VALUE}{re.escape(secret)}(?![A-Za-z])", MASK, text)
    return text


def parse_error_body(body: bytes) -> tuple[str | None, str | None]:
    """The code and the message of an error of ThingSpace, of its gateway (JSON or XML), or of OAuth (RFC 6749, 5.2)."""
    try:
        content = msgspec.json.decode(body.removeprefix(BOM_UTF8))
    except (ValueError, RecursionError):
        text = body[:XML_LIMIT].decode("utf-8", "replace")
        found = [re.search(_XML_FIELD % name, text) for name in ("code", "message")]
        code, message = ((match and match[1].strip()) or None for match in found)
        return code, message
    if not isinstance(content, dict):
        return None, None
    fault = content.get("fault")
    if isinstance(fault, dict):
        return _text(fault, "code"), _text(fault, "description", "message")
    return _text(content, "errorCode", "error"), _text(content, "errorMessage", "error_description")


def _text(content: dict[str, object], *names: str) -> str | None:
    """The first of these members that is there, as text; some gateways send codes as numbers."""
    values = (content.get(name) for name in names)
    texts = ("" if isinstance(value, bool | dict | list | None) else str(value) for value in values)
    return next(filter(None, texts), None)


def excerpt(body: bytes) -> str:
    """The beginning of a body as one readable line: of HTML the text, of binary data the size."""
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

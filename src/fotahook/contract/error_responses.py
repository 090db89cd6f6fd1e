"""Turns an error response into an exception: finds code and message in the body, masks secrets."""

import re
import zlib
from codecs import BOM_UTF8
from collections.abc import Collection

import msgspec
from msgspec import structs

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

ERROR_CLASSES: dict[int, type[ApiException]] = {
    401: AuthenticationError,
    403: PermissionDenied,
    404: NotFound,
    429: RateLimited,
}

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
_XML_CODE = re.compile(_XML_FIELD % "code")
_XML_MESSAGE = re.compile(_XML_FIELD % "message")
_TAG = re.compile(r"<[^<>]{0,2000}>")


def error_from_reply(
    reply: Reply, request: Request, error_400: type[ApiException], secrets: Collection[str] = ()
) -> ApiException | ResponseError:
    """The exception for a response that is not accepted. `secrets` are masked wherever the response echoes them."""
    status = reply.status
    reply = mask_reply(reply, secrets)
    if status < 400:
        location = reply.headers.get("location")
        if 200 <= status < 300:
            problem = "neither 200, 201 nor 204, so nothing is known of the outcome"
        elif status < 200 or location is None:
            problem = "not a response of this API"
        else:
            problem = f"redirects are not followed; it points to {location}"
        return response_error(problem, request, reply)
    code, message = parse_error_body(reply.body)
    kind = {400: error_400, **ERROR_CLASSES}.get(status, ServerError if status >= 500 else ApiException)
    text = ": ".join(part for part in (code, message) if part) or excerpt(reply.body) or reply.reason
    line = one_line(f"{status} for {request.method} {request.url}: {text or kind.reason}")
    return kind(line, request=request, reply=reply, error_code=code, error_message=message)


def response_error(problem: str, request: Request, reply: Reply) -> ResponseError:
    """The error for a response that breaks the contract."""
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
    """The error for a body over the limit; it keeps the first MAX_BODY bytes."""
    start = structs.replace(reply, body=reply.body[:MAX_BODY])
    return response_error(f"a body of more than {MAX_BODY} bytes", request, start)


def mask_reply(reply: Reply, secrets: Collection[str]) -> Reply:
    """The reply with each secret in its body, reason and headers replaced by `***`."""
    headers = Headers([(name, mask_text(value, secrets)) for name, value in reply.headers.items()])
    # Latin-1 keeps any bytes; a secret beyond ASCII is looked for as UTF-8.
    encoded = [secret.encode(errors="surrogatepass").decode("latin-1") for secret in secrets]
    body = mask_text(reply.body.decode("latin-1"), encoded).encode("latin-1")
    return structs.replace(reply, reason=mask_text(reply.reason, secrets), headers=headers, body=body)


def mask_text(text: str, secrets: Collection[str]) -> str:
    """The text with each secret replaced by `***`.

    A secret that is a plain word, such as `wrong`, is replaced only where it stands as a value: quoted, behind `=`, `:`
    or a word such as `password`, or alone.
    """
    for secret in sorted((secret for secret in secrets if len(secret) >= MIN_SECRET), key=len, reverse=True):
        if secret not in text:
            continue
        if text == secret or not (secret.isalpha() and len(secret) < LONG_SECRET):
            text = text.replace(secret, MASK)
        else:
            text = re.sub(f"{_BEFORE_VALUE}{re.escape(secret)}(?![A-Za-z])", MASK, text)
    return text


def parse_error_body(body: bytes) -> tuple[str | None, str | None]:
    """The code and the message in an error body, None for what is missing.

    Understands ThingSpace's `{"errorCode", "errorMessage"}`, the gateway's `{"fault": {"code", "message",
    "description"}}` in JSON and in XML, and OAuth's `{"error", "error_description"}` (RFC 6749, section 5.2).
    """
    try:
        content = msgspec.json.decode(body.removeprefix(BOM_UTF8))
    except (ValueError, RecursionError):
        return _parse_xml(body)
    if not isinstance(content, dict):
        return None, None
    fault = content.get("fault")
    if isinstance(fault, dict):
        return _text(fault.get("code")), _text(fault.get("description")) or _text(fault.get("message"))
    code = _text(content.get("errorCode")) or _text(content.get("error"))
    return code, _text(content.get("errorMessage")) or _text(content.get("error_description"))


def _parse_xml(body: bytes) -> tuple[str | None, str | None]:
    text = body[:XML_LIMIT].decode("utf-8", "replace")
    code, message = _XML_CODE.search(text), _XML_MESSAGE.search(text)
    return (code and code[1].strip()) or None, (message and message[1].strip()) or None


def _text(value: object) -> str | None:
    """A code or message as text; some gateways send codes as numbers."""
    if isinstance(value, bool | dict | list) or value is None:
        return None
    return str(value) or None


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

"""What a request says, checked: its path, its headers, its body. Whatever does not fit is a Problem."""

import base64
import re
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Final, TypeVar
from urllib.parse import parse_qsl, unquote_to_bytes

import msgspec
from starlette.requests import ClientDisconnect, Request

from ..contract.urls import account_refusal
from ..store.events import EventCursor
from . import errors

KEY_LIMIT: Final = 128
PAGE_LIMIT: Final = 200
_QUERY_LIMIT: Final = 20

T = TypeVar("T")

Moment = Annotated[datetime, msgspec.Meta(tz=True)]
PageLimit = Annotated[int, msgspec.Meta(ge=1, le=PAGE_LIMIT)]


class Asked(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """What a call of our own is asked. A name that it does not know is refused: it may be one misspelt."""


_MARK = re.compile(r"[0-9]{1,18}(\.[0-9]{1,18}){3}")
_NOT_ENCODED = re.compile(r"%(?![0-9A-Fa-f]{2})")
_KEY = re.compile(rf"[\x21-\x7e]{{1,{KEY_LIMIT}}}")


def segment(request: Request, name: str) -> str | None:
    """A segment of the path, percent-decoded once; None if what it stands for is not UTF-8."""
    raw: str = request.path_params[name]
    if raw.isascii() and "%" not in raw:
        return raw
    if _NOT_ENCODED.search(raw):
        return None
    try:
        return unquote_to_bytes(raw.encode("latin-1")).decode()
    except UnicodeDecodeError:
        return None


def account(request: Request) -> str:
    """The account that the path names."""
    name = segment(request, "account")
    if name is None or account_refusal(name) is not None:
        raise errors.bad_account()
    return name


def header(request: Request, name: str) -> str | None:
    """A header that may come once; None if it is absent."""
    wanted = name.lower().encode("latin-1")
    values = [value for known, value in request.scope["headers"] if known == wanted]
    if len(values) > 1:
        raise errors.invalid(f"The header {name} came {len(values)} times; send it once.")
    return values[0].decode("latin-1") if values else None


def key_header(request: Request, name: str) -> str | None:
    """A key of ours in a header; None if there is none."""
    return key(f"The header {name}", header(request, name))


def key(name: str, value: str | None) -> str | None:
    """A key of ours: 1 to 128 visible ASCII characters, or none at all."""
    if value is not None and not _KEY.fullmatch(value):
        raise errors.invalid(f"{name} must have 1 to {KEY_LIMIT} visible ASCII characters.")
    return value


def check_length(request: Request, limit: int) -> None:
    """Refuse a body that says itself that it is too large, before any of it is read."""
    declared = header(request, "Content-Length")
    if declared is None:
        return
    if not (declared.isascii() and declared.isdigit()):
        raise errors.invalid("The header Content-Length is not a number.")
    # The number of digits first: a number may have as many as a header has room for.
    if len(declared.lstrip("0")) > 18 or int(declared) > limit:
        raise errors.too_large(limit)


async def body(request: Request, limit: int) -> bytes:
    """The body, of which no more than `limit` bytes are held; a Problem where it is larger, or blank."""
    content = await body_or_none(request, limit)
    if content is None:
        raise errors.no_body()
    return content


async def body_or_none(request: Request, limit: int) -> bytes | None:
    """The same; None where it is blank."""
    content = bytearray()
    async for chunk in chunks(request, limit):
        content += chunk
    return bytes(content) if content.strip() else None


async def chunks(request: Request, limit: int) -> AsyncIterator[bytes]:
    """The body as it arrives; a Problem as soon as it has more bytes than `limit`."""
    left = limit
    try:
        async for chunk in request.stream():
            left -= len(chunk)
            if left < 0:
                raise errors.too_large(limit)
            yield chunk
    except ClientDisconnect:
        # Nobody is left to read the answer; the handler just must not go on with half a body.
        raise errors.invalid("The body ended before it was complete.") from None


def json_object(content: bytes, kind: type[T], what: str = "body") -> T:
    """The JSON object in these bytes as a struct of this type, members that it does not have left out."""
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.ValidationError as error:
        raise errors.invalid(f"The {what} has the wrong shape: {error}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise errors.invalid(f"The {what} is not JSON: {error}.") from None
    except RecursionError:
        raise errors.invalid(f"The {what} is nested too deeply.") from None


async def json_or_default(request: Request, limit: int, kind: type[T]) -> T:
    """The JSON object in the body, or what it would be with nothing in it; there need not be a body."""
    content = await body_or_none(request, limit)
    return json_object(b"{}" if content is None else content, kind)


def query(request: Request, kind: type[T]) -> T:
    """What the query asks for. Parameters without a value count as absent."""
    try:
        text = request.scope["query_string"].decode("ascii")
        pairs = parse_qsl(text, errors="strict", max_num_fields=_QUERY_LIMIT)
    except ValueError:
        raise errors.invalid(f"The query is not one of at most {_QUERY_LIMIT} parameters in UTF-8.") from None
    asked = dict(pairs)
    if len(asked) < len(pairs):
        raise errors.invalid("The query has a parameter twice; send each once.")
    try:
        return msgspec.convert(asked, kind, strict=False)
    except msgspec.ValidationError as error:
        raise errors.invalid(f"The query has the wrong shape: {error}.") from None


def new_cursor(place: str) -> str:
    """A cursor to go on from a place; nobody but `cursor` is meant to read it."""
    return base64.urlsafe_b64encode(place.encode()).decode().rstrip("=")


def cursor(text: str | None) -> str | None:
    """The place that a cursor stands for; None if there is none."""
    if text is None:
        return None
    try:
        place = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True).decode()
    except ValueError:
        raise _bad_cursor() from None
    if "\0" in place:
        raise _bad_cursor()
    return place


def number_cursor(text: str | None) -> int | None:
    """The same, where a place is a number."""
    place = cursor(text)
    if place is None:
        return None
    if not (place.isascii() and place.isdigit() and len(place) <= 18):
        raise _bad_cursor()
    return int(place)


def mark_cursor(mark: EventCursor) -> str:
    """A cursor to go on from behind a mark."""
    return new_cursor(".".join(map(str, msgspec.structs.astuple(mark))))


def mark(text: str | None) -> EventCursor | None:
    """The mark that a cursor stands for; None if there is none."""
    place = cursor(text)
    if place is None:
        return None
    if not _MARK.fullmatch(place):
        raise _bad_cursor()
    return EventCursor(*map(int, place.split(".")))


def _bad_cursor() -> errors.Problem:
    return errors.invalid("The cursor is none that this list gave; begin without one.")

"""Parses and checks what a request sends: path, headers, query and body. What is invalid raises an ApiError."""

import re
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import Annotated, Final, TypeVar
from urllib.parse import parse_qsl, unquote_to_bytes

import msgspec
from starlette.requests import Request

from ..contract.addresses import account_refusal
from . import errors

_KEY_LENGTH: Final = 128
_FIELDS: Final = 20

T = TypeVar("T")

Time = Annotated[datetime, msgspec.Meta(tz=True)]
PageSize = Annotated[int, msgspec.Meta(ge=1, le=200)]


class Params(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """The query or body of one of our own calls. Unknown names are refused: they may be misspelt."""


_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_KEY = re.compile(rf"[\x21-\x7e]{{1,{_KEY_LENGTH}}}")


def segment(request: Request, name: str) -> str:
    """A segment of the path, percent-decoded once; empty if it is not UTF-8, or has a NUL."""
    raw: str = request.path_params[name]
    if raw.isascii() and "%" not in raw:
        return raw
    try:
        decoded = "" if _BAD_ESCAPE.search(raw) else unquote_to_bytes(raw.encode("latin-1")).decode()
    except UnicodeDecodeError:
        return ""
    return "" if "\0" in decoded else decoded


def check_account(name: str) -> str:
    if account_refusal(name) is not None:
        raise errors.BAD_ACCOUNT()
    return name


def header(request: Request, name: str) -> str | None:
    """A header that may be sent once; None if it is absent."""
    wanted = name.lower().encode("latin-1")
    values = [value for known, value in request.scope["headers"] if known == wanted]
    if len(values) > 1:
        raise errors.INVALID(f"The header {name} was sent {len(values)} times; send it once.")
    return values[0].decode("latin-1") if values else None


def key(name: str, value: str | None) -> str | None:
    if value is not None and not _KEY.fullmatch(value):
        raise errors.INVALID(f"{name} must have 1 to {_KEY_LENGTH} visible ASCII characters.")
    return value


async def chunks(request: Request, limit: int) -> AsyncIterator[bytes]:
    """The body as it arrives. Raises an ApiError as soon as it is larger than `limit` bytes, or than memory allows."""
    left, more = limit, True
    take: Callable[[int], bool] = request.scope["take"]
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            # Nobody reads the answer; it only stops the handler.
            raise errors.INVALID("The body ended before it was complete.")
        chunk, more = message.get("body", b""), message.get("more_body", False)
        left -= len(chunk)
        if left < 0:
            raise errors.TOO_LARGE(what="body", limit=limit)
        if not take(len(chunk)):
            raise errors.BUSY()
        yield chunk


async def body(request: Request, limit: int, *, optional: bool = False) -> bytes:
    """The body. Raises an ApiError if it is larger than `limit` bytes, or blank and not optional."""
    content = bytearray()
    async for chunk in chunks(request, limit):
        content += chunk
    if not optional and not content.strip():
        raise errors.NO_BODY()
    return bytes(content)


def json_object(content: bytes, kind: type[T], what: str = "body") -> T:
    """A JSON object as a struct of this type; members that the type does not know are dropped."""
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.ValidationError as error:
        raise errors.INVALID(f"The {what} has the wrong shape: {error}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise errors.INVALID(f"The {what} is not JSON: {error}.") from None
    except RecursionError:
        raise errors.INVALID(f"The {what} is nested too deeply.") from None


def fields(content: bytes, what: str, *, keep_blank_values: bool) -> dict[str, str]:
    try:
        pairs = parse_qsl(content.decode("ascii"), keep_blank_values, errors="strict", max_num_fields=_FIELDS)
    except ValueError:
        raise errors.INVALID(f"The {what} is not one of at most {_FIELDS} fields in UTF-8.") from None
    found = dict(pairs)
    if len(found) < len(pairs):
        raise errors.INVALID(f"The {what} has a field twice; send each once.")
    return found

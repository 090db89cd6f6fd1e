"""API calls as values: what to send, and how to read the response. No I/O."""

from codecs import BOM_UTF8
from collections.abc import Callable, Hashable
from functools import cache
from typing import Any, Generic, TypeAlias, TypeVar, cast
from urllib.parse import quote

import msgspec

from .errors import ApiException, FotaV2ResultException
from .exchange import Masked
from .models import (
    CallbackSummary,
    FotaV2CallbackRegistrationRequest,
    FotaV2CallbackRegistrationResult,
    FotaV2SuccessResult,
)
from .servers import Server

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

JSON = "application/json"

Registration: TypeAlias = FotaV2CallbackRegistrationRequest | str
DEREGISTERED = "until another one is registered, ThingSpace drops the account's messages; a fotahook service keeps them"


class Call(Masked, Generic[T_co], frozen=True):
    """One API call. All calls can be repeated by contract: register replaces, and so do the others.

    Args:
        server: The server that `path` belongs to; None for fotahook's own API, whose paths begin at the base URL.
        read: Turns the body of a 2xx into the data; raises ValueError if it cannot.
        secret: The bodies contain tokens or passwords and are never shown.
        secrets: Those that are known beforehand; they are masked in every error.
        session: Needs the session token besides the OAuth token.
        ends_session: Never starts a new session.
        is_login: A refusal counts towards the lock of the account, so an ambiguous one is never retried.
        repeatable: Repeating it has no other effect, so a kept connection that dies may be replaced.
        streamed: The body of a 2xx is not read; the data is the open stream.
        error_400: The error for 400.
    """

    shown = ("method", "path")

    method: str
    server: Server | None
    path: str
    read: Callable[[bytes], T_co]
    body: bytes | None = None
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()
    secret: bool = False
    secrets: tuple[str, ...] = ()
    session: bool = False
    ends_session: bool = False
    is_login: bool = False
    repeatable: bool = True
    streamed: bool = False
    error_400: type[ApiException] = ApiException


def list_registered_callbacks(account: str) -> Call[CallbackSummary | None]:
    """GET: the callback of an account, None if there is none (an empty body)."""
    return _callback("GET", account, _read_summary)


def update_callback(
    account: str, body: FotaV2CallbackRegistrationRequest | str
) -> Call[FotaV2CallbackRegistrationResult]:
    """PUT: replaces the callback of an account."""
    return _callback("PUT", account, read_json(FotaV2CallbackRegistrationResult), encode_registration(body))


def register_callback(
    account: str, body: FotaV2CallbackRegistrationRequest | str
) -> Call[FotaV2CallbackRegistrationResult]:
    """POST: registers the callback of an account, in place of an earlier one."""
    return _callback("POST", account, read_json(FotaV2CallbackRegistrationResult), encode_registration(body))


def deregister_callback(account: str) -> Call[FotaV2SuccessResult]:
    """DELETE: removes the callback of an account."""
    return _callback("DELETE", account, read_json(FotaV2SuccessResult))


def _callback(method: str, account: str, read: Callable[[bytes], T], body: bytes | None = None) -> Call[T]:
    path = f"/callbacks/{segment('account', account)}"
    server = Server.SOFTWARE_MANAGEMENT_V2
    return Call(method, server, path, read, body, session=True, error_400=FotaV2ResultException)


def segment(name: str, value: str) -> str:
    """A value as one segment of a path: everything but letters, digits and `_.-~` is percent-encoded.

    TypeError if it is not a str; ValueError if it is empty, or `.` or `..`, which would change the path.
    """
    if not isinstance(value, str):
        hint = ": a number loses its leading zeros" if isinstance(value, int) else ""
        raise TypeError(f"{name} must be a str, not {type(value).__name__}{hint}")
    if value in ("", ".", ".."):
        raise ValueError(f"{name} must not be {value!r}")
    try:
        return quote(value, safe="")
    except UnicodeEncodeError:
        raise ValueError(f"{name} is not valid Unicode") from None


def encode_registration(body: Registration) -> bytes:
    """The request model, or its URL, as JSON; TypeError for anything else."""
    if isinstance(body, str):
        body = FotaV2CallbackRegistrationRequest(body)
    if not isinstance(body, FotaV2CallbackRegistrationRequest):
        raise TypeError(f"body must be a FotaV2CallbackRegistrationRequest or a str, not {type(body).__name__}")
    if not isinstance(body.url, str):
        raise TypeError(f"body.url must be a str, not {type(body.url).__name__}")
    try:
        return msgspec.json.encode(body)
    except UnicodeEncodeError:
        raise ValueError("body.url is not valid Unicode") from None


def read_json(kind: type[T], *, strict: bool = True) -> Callable[[bytes], T]:
    """A function that decodes JSON of one type; it raises ValueError for any other body."""
    return _reader(cast("Hashable", kind), strict)


@cache
def _reader(kind: Any, strict: bool) -> Callable[[bytes], Any]:
    decode = msgspec.json.Decoder(kind, strict=strict).decode

    def read(body: bytes) -> object:
        try:
            return decode(body.removeprefix(BOM_UTF8))
        except RecursionError:
            raise ValueError("JSON is nested too deeply") from None

    return read


def read_nothing(body: bytes) -> None:
    """Ignores the body."""


def _read_summary(body: bytes) -> CallbackSummary | None:
    # 200 or 204 without a body: nothing is registered.
    return read_json(CallbackSummary)(body) if body.strip() else None

"""The calls as values: what goes out, and how the answer is read. Nothing here sends."""

from collections.abc import Callable
from typing import Generic, TypeVar
from urllib.parse import quote

import msgspec

from .errors import ApiException, FotaV2ResultException
from .models import (
    CallbackSummary,
    FotaV2CallbackRegistrationRequest,
    FotaV2CallbackRegistrationResult,
    FotaV2SuccessResult,
)
from .servers import Server

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

CALLBACKS = "/callbacks/"

JSON = "application/json"


class Call(msgspec.Struct, Generic[T_co], frozen=True):
    """One call of the API. All are repeatable by contract: register replaces, and so do the others.

    Args:
        server: Where the path begins; None for a service's own API, whose paths begin at its base URL.
        read: Turns the body of a 2xx into the data; raises ValueError if it cannot.
        secret: The bodies hold tokens or passwords, and are shown to nobody.
        words: Those of them that are known beforehand, which no message may repeat.
        session: The session token goes along with the OAuth token.
        ends_session: The session is not begun anew for it.
        counted: A refusal counts towards the lock of the account, so that an unclear one is never repeated.
        streamed: The body of a 2xx goes on, so it is not read: the data is the stream itself.
        error_400: The error for 400.
    """

    name: str
    method: str
    server: Server | None
    path: str
    read: Callable[[bytes], T_co]
    body: bytes | None = None
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()
    secret: bool = False
    words: tuple[str, ...] = ()
    session: bool = False
    ends_session: bool = False
    counted: bool = False
    streamed: bool = False
    error_400: type[ApiException] = ApiException

    def __repr__(self) -> str:
        # Without the body and the words, which may be secret.
        return f"Call({self.name!r}, {self.method!r}, {self.path!r})"


def list_registered_callbacks(account: str) -> Call[CallbackSummary | None]:
    """GET: the callback of an account, None if there is none (an empty answer)."""
    return _callback("list_registered_callbacks", "GET", account, _read_summary)


def update_callback(account: str, body: FotaV2CallbackRegistrationRequest) -> Call[FotaV2CallbackRegistrationResult]:
    """PUT: replaces the callback of an account."""
    return _callback("update_callback", "PUT", account, _read_registration, registration(body))


def register_callback(account: str, body: FotaV2CallbackRegistrationRequest) -> Call[FotaV2CallbackRegistrationResult]:
    """POST: registers the callback of an account, in place of an earlier one."""
    return _callback("register_callback", "POST", account, _read_registration, registration(body))


def deregister_callback(account: str) -> Call[FotaV2SuccessResult]:
    """DELETE: removes the callback of an account."""
    return _callback("deregister_callback", "DELETE", account, _read_success)


def _callback(name: str, method: str, account: str, read: Callable[[bytes], T], body: bytes | None = None) -> Call[T]:
    return Call(
        name,
        method,
        Server.SOFTWARE_MANAGEMENT_V2,
        CALLBACKS + segment("account", account),
        read,
        body,
        session=True,
        error_400=FotaV2ResultException,
    )


def segment(name: str, value: str) -> str:
    """A value as one segment of a path: everything but letters, digits and `_.-~` is percent-encoded.

    TypeError for what is not a str; ValueError for an empty one and for `.` and `..`, which would lead elsewhere.
    """
    if not isinstance(value, str):
        hint = ": a number loses the leading zeros that belong to it" if isinstance(value, int) else ""
        raise TypeError(f"{name} must be a str, not {type(value).__name__}{hint}")
    if value in ("", ".", ".."):
        raise ValueError(f"{name} must not be {value!r}")
    try:
        return quote(value, safe="")
    except UnicodeEncodeError:
        raise ValueError(f"{name} is not valid Unicode") from None


def registration(body: FotaV2CallbackRegistrationRequest) -> bytes:
    """The request model as JSON; TypeError for anything else."""
    if not isinstance(body, FotaV2CallbackRegistrationRequest):
        raise TypeError(f"body must be a FotaV2CallbackRegistrationRequest, not {type(body).__name__}")
    if not isinstance(body.url, str):
        raise TypeError(f"body.url must be a str, not {type(body.url).__name__}")
    try:
        return msgspec.json.encode(body)
    except UnicodeEncodeError:
        raise ValueError("body.url is not valid Unicode") from None


def read_json(kind: type[T], *, strict: bool = True) -> Callable[[bytes], T]:
    """A reader that takes a body for JSON of one type; ValueError for any other body."""
    decode = msgspec.json.Decoder(kind, strict=strict).decode

    def read(body: bytes) -> T:
        try:
            return decode(body)
        except RecursionError:
            raise ValueError("JSON is nested too deeply") from None

    return read


def read_nothing(body: bytes) -> None:
    """A reader for answers whose body says nothing."""


_decode_summary = read_json(CallbackSummary)
_read_registration = read_json(FotaV2CallbackRegistrationResult)
_read_success = read_json(FotaV2SuccessResult)


def _read_summary(body: bytes) -> CallbackSummary | None:
    # 200 or 204 without a body: nothing is registered.
    return _decode_summary(body) if body.strip() else None

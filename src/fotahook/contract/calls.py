"""API calls as values: what to send, and how to read the response. No I/O."""

from codecs import BOM_UTF8
from collections.abc import Callable, Hashable, Mapping
from functools import cache
from typing import Any, Final, Generic, TypeAlias, TypeVar, cast, get_origin
from urllib.parse import quote, urlencode

import msgspec

from .errors import ApiException, FotaV2ResultException, ResponseError
from .exchange import ApiResponse, Masked, Reply
from .models import CallbackSummary, FotaV2CallbackRegistrationRequest, V2CampaignDevice
from .servers import Server

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

JSON = "application/json"
FIRST_PAGE: Final = "0"
"""The `lastSeenDeviceId` of the first page of a campaign's devices."""

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
        repeatable: Repeating it has no other effect. Others are only retried if the caller asks for it.
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


def callback_call(method: str, account: str, read: Callable[[bytes], T], body: bytes | None = None) -> Call[T]:
    """A call to the callback of an account."""
    return _thingspace_call(method, "/callbacks/{account}", {"account": account}, read, body)


def report_call(path: str, kind: type[T], **values: str) -> Call[T]:
    """A call that reads campaigns or devices; each `{name}` in the path stands for a value."""
    read = read_json(kind, strict=False)

    def read_list(body: bytes) -> T:
        # An empty body is no list, as it is no callback in `read_summary`.
        return read(body if body.strip() else b"[]")

    return _thingspace_call("GET", path, values, read_list if get_origin(kind) is list else read)


def devices_call(account: str, campaign_id: str, last_seen_device_id: str | None) -> Call[V2CampaignDevice]:
    """The call that reads a page of a campaign's devices."""
    path = "/reports/{account}/campaigns/{campaign_id}/devices"
    values = {"account": account, "campaign_id": campaign_id}
    if last_seen_device_id is not None:
        path += "?lastSeenDeviceId={last_seen_device_id}"
        values["last_seen_device_id"] = last_seen_device_id
    return report_call(path, V2CampaignDevice, **values)


def _thingspace_call(
    method: str, path: str, values: Mapping[str, str], read: Callable[[bytes], T], body: bytes | None = None
) -> Call[T]:
    path = path.format_map({name: segment(name, value) for name, value in values.items()})
    server = Server.SOFTWARE_MANAGEMENT_V2
    return Call(method, server, path, read, body, session=True, error_400=FotaV2ResultException)


def next_page(response: ApiResponse[V2CampaignDevice], last_seen_device_id: str | None) -> str | None:
    """The `lastSeenDeviceId` of the page after this one, None after the last page.

    ResponseError if it would be this page again, since that would never end.
    """
    page = response.data
    if not page.has_more_data:
        return None
    last = page.last_seen_device_id or (page.device_list[-1].device_id if page.device_list else None)
    if last in (None, last_seen_device_id):
        text = f"a page of devices says that there are more, but its lastSeenDeviceId is {last!r} again"
        reply = Reply(response.status_code, response.reason_phrase, response.headers, response.raw_body)
        raise ResponseError(text, request=response.request, reply=reply)
    return last


def segment(name: str, value: str) -> str:
    """A value as one segment of a path, or in a query: everything but letters, digits and `_.-~` is percent-encoded.

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


def query_string(**parameters: str | int | None) -> str:
    """The parameters that are not None as a query, with its question mark; empty if there are none."""
    given = {name: value for name, value in parameters.items() if value is not None}
    return f"?{urlencode(given, quote_via=quote)}" if given else ""


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


def read_summary(body: bytes) -> CallbackSummary | None:
    """The callback of an account; None for 200 or 204 without a body: nothing is registered."""
    return read_json(CallbackSummary)(body) if body.strip() else None

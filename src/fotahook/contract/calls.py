"""API calls as values: what to send, and how to read the response. No I/O."""

from codecs import BOM_UTF8
from collections.abc import Callable, Hashable, Iterable, Mapping
from datetime import datetime
from functools import cache
from typing import Any, Final, Generic, TypeAlias, TypeVar, cast, get_origin
from urllib.parse import quote, urlencode

import msgspec

from .errors import ApiException, FotaV2ResultException, ResponseError
from .exchange import ApiResponse, Masked, Reply, require
from .messages import parse_json
from .models import CallbackSummary, FotaV2CallbackRegistrationRequest, V2CampaignDevice
from .operator import BatchMessage, Published, Refused
from .servers import Server

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
JSON = "application/json"
FIRST_PAGE: Final = "0"
"""The `lastSeenDeviceId` of the first page of a campaign's devices."""
BATCH_MESSAGES = 5000
"""Messages in one batch. The service takes more, but its response must stay below the limit on a body."""
BATCH_BYTES = 16 * 1024 * 1024

Registration: TypeAlias = FotaV2CallbackRegistrationRequest | str
DEREGISTERED = "until another one is registered, ThingSpace drops the account's messages; a fotahook service keeps them"


class Call(Masked, Generic[T_co], frozen=True):
    """One API call. All calls can be repeated by contract: register replaces, and so do the others.

    `server` is None for fotahook's own API. `read` raises ValueError for a body that it cannot turn into the data.
    `secret`: bodies are never shown; `secrets` are those known beforehand. `session`: needs the session token too.
    `ends_session`: never starts a new session. `is_login`: a refusal counts towards the lock of the account, so an
    ambiguous one is never retried. `streamed`: the data is the open stream of the body.
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
    path, server = f"/callbacks/{segment('account', account)}", Server.SOFTWARE_MANAGEMENT_V2
    return Call(method, server, path, read, body, session=True, error_400=FotaV2ResultException)


def report_call(path: str, kind: type[T], **values: str | None) -> Call[T]:
    """A call that reads campaigns or devices; each `{name}` stands for a value. A query parameter may be None."""
    known = {name: segment(name, value) for name, value in values.items() if value is not None}
    path, _, query = path.partition("?")
    given = [pair for pair in query.split("&") if pair.rpartition("{")[2].removesuffix("}") in known]
    path = f"{path}?{'&'.join(given)}" if given else path
    read, error_400 = read_json(kind, strict=False), FotaV2ResultException
    # An empty body is no list, as it is no callback in `read_summary`.
    empty, server = b"[]" if get_origin(kind) is list else b"", Server.SOFTWARE_MANAGEMENT_V2
    path = path.format_map(known)
    return Call("GET", server, path, lambda body: read(body.strip() or empty), session=True, error_400=error_400)


def devices_call(account: str, campaign_id: str, last_seen_device_id: str | None) -> Call[V2CampaignDevice]:
    path = "/reports/{account}/campaigns/{campaign_id}/devices?lastSeenDeviceId={last_seen_device_id}"
    values = {"account": account, "campaign_id": campaign_id, "last_seen_device_id": last_seen_device_id}
    return report_call(path, V2CampaignDevice, **values)


def next_page(response: ApiResponse[V2CampaignDevice], last_seen_device_id: str | None) -> str | None:
    """The `lastSeenDeviceId` of the page after this one, None after the last page; ResponseError if it is this page."""
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
    """A value as one segment of a path, or in a query; TypeError or ValueError if it cannot be one."""
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
    if isinstance(body, str):
        body = FotaV2CallbackRegistrationRequest(body)
    require("body", body, FotaV2CallbackRegistrationRequest, "a FotaV2CallbackRegistrationRequest or a str")
    require("body.url", body.url, str)
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


def timestamp(name: str, value: datetime | None) -> str | None:
    if value is None:
        return None
    require(name, value, datetime, "a datetime")
    if value.tzinfo is None:
        raise ValueError(f"{name} needs a time zone, such as datetime.UTC")
    return value.isoformat()


def message_bytes(message: bytes | Mapping[str, object]) -> bytes:
    if isinstance(message, bytes):
        return message
    require("message", message, Mapping, "bytes or a mapping")
    return msgspec.json.encode(dict(message))


def publish_headers(idempotency_key: str, ordering_key: str | None) -> tuple[tuple[str, str], ...]:
    headers = [("Idempotency-Key", _key("idempotency_key", idempotency_key))]
    if ordering_key is not None:
        headers.append(("Ordering-Key", _key("ordering_key", ordering_key)))
    return tuple(headers)


def batch_body(messages: Iterable[BatchMessage], new_key: Callable[[], str]) -> tuple[bytes, int]:
    lines = [batch_line(message, new_key) for message in messages]
    if not 0 < len(lines) <= BATCH_MESSAGES:
        raise ValueError(f"a batch has 1 to {BATCH_MESSAGES} messages, not {len(lines)}")
    body = b"".join(lines)
    if len(body) > BATCH_BYTES:
        raise ValueError(f"a batch has at most {BATCH_BYTES} bytes, not {len(body)}")
    return body, len(lines)


def batch_line(message: BatchMessage, new_key: Callable[[], str]) -> bytes:
    if not isinstance(message, BatchMessage):
        raise TypeError(f"a batch is made of BatchMessage, not {type(message).__name__}")
    require("account", message.account, str)
    body = message_bytes(message.message)
    # Invalid JSON could add members to the line.
    parse_json(body)
    if b"\n" in body:
        raise ValueError("a message with a line feed cannot be part of a batch; publish it alone")
    key = new_key() if message.idempotency_key is None else message.idempotency_key
    line = {"account": message.account, "idempotencyKey": _key("idempotency_key", key)}
    if message.ordering_key is not None:
        line["orderingKey"] = _key("ordering_key", message.ordering_key)
    return msgspec.json.encode({**line, "message": msgspec.Raw(body)}) + b"\n"


def read_batch(count: int, body: bytes) -> list[Published | Refused]:
    decode = read_json(dict[str, str | bool])
    results = [decode(line) for line in body.split(b"\n") if line]
    if len(results) != count:
        raise ValueError(f"{len(results)} results for {count} messages")
    return [Published.from_dict(one) if "id" in one else Refused.from_dict(one) for one in results]


def _key(name: str, value: str) -> str:
    require(name, value, str)
    # The service's own limit.
    if not (0 < len(value) <= 128 and value.isascii() and value.isprintable() and " " not in value):
        raise ValueError(f"{name} must be 1 to 128 visible ASCII characters")
    return value

"""Queries, headers and bodies of the calls of fotahook's own API, `/v1/…`."""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime

import msgspec

from .calls import read_json
from .messages import parse_json
from .operator import BatchMessage, Published, Refused

BATCH_MESSAGES = 5000
"""Messages in one batch. The service takes more, but its response must stay below the limit on a body."""
BATCH_BYTES = 16 * 1024 * 1024


def timestamp(name: str, value: datetime | None) -> str | None:
    """A time in RFC 3339; ValueError without a time zone."""
    if value is None:
        return None
    if not isinstance(value, datetime):
        raise TypeError(f"{name} must be a datetime, not {type(value).__name__}")
    if value.tzinfo is None:
        raise ValueError(f"{name} needs a time zone, such as datetime.UTC")
    return value.isoformat()


def message_bytes(message: bytes | Mapping[str, object]) -> bytes:
    """The body of a message: bytes unchanged, a mapping as JSON."""
    if isinstance(message, bytes):
        return message
    if not isinstance(message, Mapping):
        raise TypeError(f"message must be bytes or a mapping, not {type(message).__name__}")
    return msgspec.json.encode(dict(message))


def publish_headers(idempotency_key: str, ordering_key: str | None) -> tuple[tuple[str, str], ...]:
    """The headers of a published message; ValueError for a key that cannot be one."""
    headers = [("Idempotency-Key", _key("idempotency_key", idempotency_key))]
    if ordering_key is not None:
        headers.append(("Ordering-Key", _key("ordering_key", ordering_key)))
    return tuple(headers)


def batch_body(messages: Iterable[BatchMessage], new_key: Callable[[], str]) -> tuple[bytes, int]:
    """The body of a batch, and the number of its messages; ValueError beyond the limits."""
    lines = [batch_line(message, new_key) for message in messages]
    if not 0 < len(lines) <= BATCH_MESSAGES:
        raise ValueError(f"a batch has 1 to {BATCH_MESSAGES} messages, not {len(lines)}")
    body = b"".join(lines)
    if len(body) > BATCH_BYTES:
        raise ValueError(f"a batch has at most {BATCH_BYTES} bytes, not {len(body)}")
    return body, len(lines)


def batch_line(message: BatchMessage, new_key: Callable[[], str]) -> bytes:
    """One message as a line of a batch; TypeError or ValueError if it is not valid."""
    if not isinstance(message, BatchMessage):
        raise TypeError(f"a batch is made of BatchMessage, not {type(message).__name__}")
    if not isinstance(message.account, str):
        raise TypeError(f"account must be a str, not {type(message.account).__name__}")
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
    """The results of a batch of `count` messages; ValueError if there are more or fewer."""
    decode = read_json(dict[str, str | bool])
    results = [decode(line) for line in body.split(b"\n") if line]
    if len(results) != count:
        raise ValueError(f"{len(results)} results for {count} messages")
    return [Published.from_dict(one) if "id" in one else Refused.from_dict(one) for one in results]


def _key(name: str, value: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, not {type(value).__name__}")
    # The service's own limit.
    if not (0 < len(value) <= 128 and value.isascii() and value.isprintable() and " " not in value):
        raise ValueError(f"{name} must be 1 to 128 visible ASCII characters")
    return value

"""The calls of fotahook's own API, `/v1/…`, as values. They need the OAuth token alone."""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import partial
from urllib.parse import urlencode

import msgspec

from .calls import Call, read_json, read_nothing, segment
from .messages import parse_json
from .operator import (
    AccountPage,
    AccountState,
    Attempt,
    Attempts,
    BatchMessage,
    MessagePage,
    MessageState,
    Published,
    Redelivered,
    Redeliveries,
    Refused,
    Stats,
    Why,
)

BATCH_MESSAGES = 5000
"""Messages in one batch: the service takes more, but what it answers must fit into what we read."""
BATCH_BYTES = 16 * 1024 * 1024


class _Answer(msgspec.Struct, frozen=True, rename="camel"):
    id: str | None = None
    duplicate: bool = False
    error_code: str = ""
    error_message: str = ""


_read_published = read_json(Published)
_read_account = read_json(AccountState)
_read_message = read_json(MessageState)
_decode_attempts = read_json(Attempts)
_decode_answer = read_json(_Answer)
_read_accounts = read_json(AccountPage)
_read_messages = read_json(MessagePage)
_read_why = read_json(Why)
_read_redelivered = read_json(Redelivered)
_decode_count = read_json(Redeliveries)
_read_stats = read_json(Stats)


def publish(
    account: str, message: bytes | Mapping[str, object], ordering_key: str | None, idempotency_key: str
) -> Call[Published]:
    """Hand a message over; bytes go as they are, a mapping as JSON."""
    headers = [("Idempotency-Key", _header("idempotency_key", idempotency_key))]
    if ordering_key is not None:
        headers.append(("Ordering-Key", _header("ordering_key", ordering_key)))
    path = f"/v1/accounts/{segment('account', account)}/messages"
    return Call("publish", "POST", None, path, _read_published, _bytes(message), headers=tuple(headers))


def publish_batch(messages: Iterable[BatchMessage], new_key: Callable[[], str]) -> Call[list[Published | Refused]]:
    """Hand many messages over at once; each is accepted or refused by itself, and has an idempotency key at least."""
    lines = [batch_line(message, new_key) for message in messages]
    if not 0 < len(lines) <= BATCH_MESSAGES:
        raise ValueError(f"a batch has 1 to {BATCH_MESSAGES} messages, not {len(lines)}")
    body = b"".join(lines)
    if len(body) > BATCH_BYTES:
        raise ValueError(f"a batch has at most {BATCH_BYTES} bytes, not {len(body)}")
    read = partial(_read_batch, len(lines))
    return Call("publish_batch", "POST", None, "/v1/messages", read, body, "application/x-ndjson")


def accounts(state: str | None, cursor: str | None, limit: int | None) -> Call[AccountPage]:
    """Some of the accounts, by name."""
    query = _query(state=state, cursor=cursor, limit=limit)
    return Call("accounts", "GET", None, f"/v1/accounts{query}", _read_accounts)


def messages(
    account: str,
    *,
    state: str | None,
    message_type: str | None,
    ordering_key: str | None,
    since: datetime | None,
    until: datetime | None,
    cursor: str | None,
    limit: int | None,
) -> Call[MessagePage]:
    """Some of an account's messages, newest first."""
    query = _query(
        state=state,
        type=message_type,
        key=ordering_key,
        since=_moment("since", since),
        until=_moment("until", until),
        cursor=cursor,
        limit=limit,
    )
    return Call("messages", "GET", None, f"/v1/accounts/{segment('account', account)}/messages{query}", _read_messages)


def why(message_id: str) -> Call[Why]:
    """Why a message stands where it stands."""
    return Call("why", "GET", None, f"/v1/messages/{segment('message_id', message_id)}/why", _read_why)


def redeliver(message_id: str, as_new: bool) -> Call[Redelivered]:
    """Send a settled message once more."""
    body = msgspec.json.encode({"asNew": as_new})
    path = f"/v1/messages/{segment('message_id', message_id)}/redeliver"
    return Call("redeliver", "POST", None, path, _read_redelivered, body)


def redeliver_all(account: str, state: str, since: datetime | None, until: datetime | None, dry_run: bool) -> Call[int]:
    """Send an account's settled messages of a state and a time once more."""
    span = {"since": _moment("since", since), "until": _moment("until", until)}
    body = msgspec.json.encode({"state": state, **span, "dryRun": dry_run})
    path = f"/v1/accounts/{segment('account', account)}/redeliver"
    return Call("redeliver_all", "POST", None, path, _read_count, body)


def pause(account: str) -> Call[AccountState]:
    """Send nothing to an account until it is resumed."""
    return Call("pause", "POST", None, f"/v1/accounts/{segment('account', account)}/pause", _read_account)


def resume(account: str) -> Call[AccountState]:
    """End a pause, or a wait for an endpoint in trouble."""
    return Call("resume", "POST", None, f"/v1/accounts/{segment('account', account)}/resume", _read_account)


def account(account: str) -> Call[AccountState]:
    """How an account, its callback and its lane are."""
    return Call("account", "GET", None, f"/v1/accounts/{segment('account', account)}", _read_account)


def message(message_id: str) -> Call[MessageState]:
    """What became of a message."""
    return Call("message", "GET", None, f"/v1/messages/{segment('message_id', message_id)}", _read_message)


def message_body(message_id: str) -> Call[bytes]:
    """The bytes of a message."""
    return Call("message_body", "GET", None, f"/v1/messages/{segment('message_id', message_id)}/body", bytes)


def attempts(message_id: str) -> Call[list[Attempt]]:
    """Every attempt at a message, the first one first."""
    return Call("attempts", "GET", None, f"/v1/messages/{segment('message_id', message_id)}/attempts", _read_attempts)


def stats(minutes: int | None) -> Call[Stats]:
    """How much happened in the last minutes."""
    return Call("stats", "GET", None, f"/v1/stats{_query(minutes=minutes)}", _read_stats)


def events(account: str | None, after: str | None) -> Call[None]:
    """What happens, as a stream that goes on."""
    query = _query(account=account, after=after)
    accept = (("accept", "text/event-stream"),)
    return Call("events", "GET", None, f"/v1/events{query}", read_nothing, headers=accept, streamed=True)


def _read_attempts(body: bytes) -> list[Attempt]:
    return _decode_attempts(body).attempts


def _read_count(body: bytes) -> int:
    return _decode_count(body).count


def _read_batch(count: int, body: bytes) -> list[Published | Refused]:
    answers = [_decode_answer(line) for line in body.split(b"\n") if line]
    if len(answers) != count:
        raise ValueError(f"{len(answers)} answers for {count} messages")
    return [
        Refused(answer.error_code, answer.error_message)
        if answer.id is None
        else Published(answer.id, answer.duplicate)
        for answer in answers
    ]


def batch_line(message: BatchMessage, new_key: Callable[[], str]) -> bytes:
    """One message as a line of a batch; TypeError or ValueError for what cannot be one."""
    if not isinstance(message, BatchMessage):
        raise TypeError(f"a batch is made of BatchMessage, not {type(message).__name__}")
    if not isinstance(message.account, str):
        raise TypeError(f"account must be a str, not {type(message.account).__name__}")
    body = _bytes(message.message)
    # What is no JSON could be taken for further members of the line.
    parse_json(body)
    if b"\n" in body:
        raise ValueError("a message with a line feed cannot be part of a batch; publish it alone")
    key = new_key() if message.idempotency_key is None else message.idempotency_key
    told = {"account": message.account, "idempotencyKey": _header("idempotency_key", key)}
    if message.ordering_key is not None:
        told["orderingKey"] = _header("ordering_key", message.ordering_key)
    return msgspec.json.encode({**told, "message": msgspec.Raw(body)}) + b"\n"


def _query(**parameters: str | int | None) -> str:
    told = {name: value for name, value in parameters.items() if value is not None}
    return f"?{urlencode(told)}" if told else ""


def _moment(name: str, value: datetime | None) -> str | None:
    if value is None:
        return None
    if not isinstance(value, datetime):
        raise TypeError(f"{name} must be a datetime, not {type(value).__name__}")
    if value.tzinfo is None:
        raise ValueError(f"{name} needs a time zone, such as datetime.UTC")
    return value.isoformat()


def _bytes(message: bytes | Mapping[str, object]) -> bytes:
    if isinstance(message, bytes):
        return message
    if not isinstance(message, Mapping):
        raise TypeError(f"message must be bytes or a mapping, not {type(message).__name__}")
    return msgspec.json.encode(dict(message))


def _header(name: str, value: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, not {type(value).__name__}")
    # The service's own bound: up to 128 visible ASCII characters.
    if not (0 < len(value) <= 128 and value.isascii() and value.isprintable() and " " not in value):
        raise ValueError(f"{name} must be 1 to 128 visible ASCII characters")
    return value

"""What to do with a request: headers and bytes in, a message for the inbox or a refusal out. Pure."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Final
from urllib.parse import unquote

from fotahook.contract.error_responses import one_line
from fotahook.contract.messages import CallbackMessage, MessageInvalid, parse_message
from fotahook.contract.urls import account_refusal
from fotahook.store.records import NewMessage

from .verification import Proof, Rejected

HANDLERS: Final = "handlers"
"""The consumer under which the inbox keeps what the handlers are to see."""
BODY_LIMIT: Final = 1024 * 1024
"""Bytes of a body that are accepted; ours, ThingSpace names no limit."""
DEDUPE_WINDOW: Final = 3600.0
"""Seconds in which equal bytes without a webhook-id count as one message; ours, ThingSpace publishes no message id."""
FORWARDED_FOR: Final = "x-forwarded-for"
CONTENT_ENCODING: Final = "content-encoding"
_LISTS: Final = (FORWARDED_FOR, CONTENT_ENCODING)
"""Headers that may come several times: together they are one list."""
HEADERS: Final = {
    name.encode(): name
    for name in (
        "webhook-id",
        "webhook-timestamp",
        "webhook-signature",
        "fotahook-account",
        "content-length",
        *_LISTS,
    )
}
"""The headers that are looked at, by their bytes."""
_KEY_LIMIT: Final = 256
_ENCODING_LIMIT: Final = 40

Choose = Callable[[str, CallbackMessage], tuple[str, ...]]
"""The consumers that are to have a message of an account."""


def single_headers(pairs: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """The headers that are looked at, out of an ASGI scope's; Rejected (400) if one of them came twice.

    Of two values a proxy may believe one and this listener the other, so neither is believed.
    """
    found: dict[str, str] = {}
    for raw_name, value in pairs:
        if (name := HEADERS.get(raw_name.lower())) is None:
            continue
        if name in _LISTS:
            found[name] = ",".join(filter(None, (found.get(name), value.decode("latin-1"))))
        elif name in found:
            raise Rejected(400, f"{name} came more than once")
        else:
            found[name] = value.decode("latin-1")
    return found


def _to_handlers(account: str, message: CallbackMessage) -> tuple[str, ...]:
    return (HANDLERS,)


def receive(
    headers: Mapping[str, str],
    body: bytes,
    *,
    proof: Proof,
    now: float,
    choose: Choose = _to_handlers,
    dedupe_window: float = DEDUPE_WINDOW,
) -> NewMessage:
    """The message to put into the inbox; Rejected (400, 401, 413 or 415) says why there is none.

    `headers` has lower-case names. Any JSON is taken, whatever its shape and its Content-Type: which shapes ThingSpace
    sends is only partly published, and a message refused may never come again.
    """
    if len(body) > BODY_LIMIT:
        raise Rejected(413, f"the body has more than {BODY_LIMIT} bytes")
    proof.check_signature(headers, body, now)
    try:
        message = parse_message(body)
    except MessageInvalid as error:
        raise _unreadable(body, headers.get(CONTENT_ENCODING, ""), error) from error
    proof.check_password(message)
    account = _account(headers, message)
    message_id = headers.get("webhook-id", "")
    return NewMessage(
        account=account,
        body=body,
        type=_storable(message.kind),
        ordering_key=_storable(_ordering_key(message)),
        # The prefix keeps an id from passing for the hash of another message's bytes, which stores may keep as a key.
        idempotency_key=f"id:{_storable(message_id)}" if message_id else None,
        idempotency_window=None if message_id or dedupe_window == 0 else dedupe_window,
        consumers=choose(account, message),
    )


def _unreadable(body: bytes, encoding: str, error: MessageInvalid) -> Rejected:
    """Why a body cannot be read. Its encoding is to blame only now: some senders name one, and then send plain JSON."""
    if not body.strip():
        return Rejected(400, "the body is empty")
    if all(each.strip().lower() in ("", "identity") for each in encoding.split(",")):
        return Rejected(400, str(error))
    named = one_line(encoding, _ENCODING_LIMIT)
    return Rejected(415, f"the body's Content-Encoding, {named}, is not read here; send it without one")


def _account(headers: Mapping[str, str], message: CallbackMessage) -> str:
    """Who the message belongs to; empty where neither it nor the header says so.

    The message's own word comes first: it is what a signature covers, the header is not.
    """
    own = message.account_name
    if own is not None and account_refusal(own) is None:
        return own
    named = unquote(headers.get("fotahook-account", ""))
    return named if account_refusal(named) is None else ""


def _ordering_key(message: CallbackMessage) -> str | None:
    """Messages about one device stay in order, and so do those about one campaign as a whole."""
    devices = {device.device_id for device in message.devices if device.device_id}
    return devices.pop() if len(devices) == 1 else message.campaign_id


def _storable(text: str | None) -> str | None:
    """A key as any inbox can keep it: by its hash if it is long, or has a NUL, which PostgreSQL takes in no text."""
    if text is None or (len(text) <= _KEY_LIMIT and "\0" not in text):
        return text
    return f"sha256:{_digest(text.encode())}"


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()

"""Decides about a request: headers and bytes in, a message for the inbox or a rejection out. Pure."""

import codecs
import hashlib
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import msgspec
from msgspec.structs import replace

from fotahook.contract.addresses import account_refusal
from fotahook.contract.errors import WebhookRejected, one_line
from fotahook.contract.messages import CallbackMessage, MessageInvalid, Upgrade, parse_message
from fotahook.store.ledger import reports_of, storable
from fotahook.store.records import NewMessage, Note

from .verification import FORWARDED_FOR, Basic, Verification, named_account

HANDLERS: Final = "handlers"
"""The consumer whose lanes hold the messages for handlers."""
BODY_LIMIT: Final = 1024 * 1024
"""Bytes of a body that are accepted. The limit is ours; ThingSpace publishes none."""
BODY_TOO_LONG: Final = f"the body has more than {BODY_LIMIT} bytes"
DEDUPE_WINDOW: Final = 3600.0
"""Seconds in which equal messages without a webhook-id are one. Ours: ThingSpace publishes no message id."""
CONTENT_ENCODING: Final = "content-encoding"
USER_AGENT: Final = "user-agent"
_LIST_HEADERS: Final = (FORWARDED_FOR, CONTENT_ENCODING, USER_AGENT)
"""Headers that may be repeated: their values form one list."""
_VARYING: Final = ("callbackCount", "maxCallbackThreshold", "username", "password")
"""Members that ThingSpace changes between its tries, or whose values a new registration changes."""
_CANONICAL: Final = msgspec.json.Encoder(order="deterministic")
_SINGLE_HEADERS: Final = ("webhook-id", "webhook-timestamp", "webhook-signature", "fotahook-account", "content-length")
_HEADERS: Final = {name.encode(): name for name in (*_SINGLE_HEADERS, *_LIST_HEADERS)}
_ENCODING_LIMIT: Final = 40

ChooseConsumers = Callable[[str, CallbackMessage], tuple[str, ...]]
"""Returns the consumers that get a message of an account."""


def read_headers(pairs: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """The headers that matter here, from those of an ASGI scope. WebhookRejected (400) if one of them is repeated.

    A proxy may trust one of two values and this listener the other, so a repeated header is not trusted at all.
    """
    found: dict[str, str] = {}
    for raw_name, value in pairs:
        if (name := _HEADERS.get(raw_name.lower())) is None:
            continue
        if name in _LIST_HEADERS:
            found[name] = ",".join(filter(None, (found.get(name), value.decode("latin-1"))))
        elif name in found:
            raise WebhookRejected(400, f"the header {name} is repeated")
        else:
            found[name] = value.decode("latin-1")
    return found


def receive(
    headers: Mapping[str, str],
    body: bytes,
    *,
    verification: Verification,
    now: float,
    choose: ChooseConsumers = lambda account, message: (HANDLERS,),
    dedupe_window: float = DEDUPE_WINDOW,
) -> NewMessage:
    """The message to store in the inbox. WebhookRejected (400, 401, 413 or 415) says why there is none.

    `headers` has lower-case names. Any JSON is accepted, whatever its shape and Content-Type: ThingSpace publishes its
    message formats only in part, and a rejected message may never be sent again.
    """
    account, message = verified(headers, body, verification, now)
    key = window = None
    if message_id := headers.get("webhook-id"):
        key = f"id:{storable(message_id)}"
    elif dedupe_window > 0:
        key, window = _content_key(body), dedupe_window
    devices = {device.device_id for device in message.devices if device.device_id}
    # Messages about one device stay in order, and so do those about one campaign as a whole.
    kind, ordering_key = message.kind, devices.pop() if len(devices) == 1 else message.campaign_id
    return NewMessage(
        account=account,
        body=body,
        type=kind and storable(kind),
        ordering_key=ordering_key and storable(ordering_key),
        idempotency_key=key,
        idempotency_window=window,
        consumers=choose(account, message),
        reports=reports_of(message, detailed=False),
    )


def verified(
    headers: Mapping[str, str], body: bytes, verification: Verification, now: float
) -> tuple[str, CallbackMessage]:
    """The account and the message in a body that passes every check; WebhookRejected (400, 401, 413 or 415) if not.

    The account is the message's own accountName, else that of the header if it is certain, else the empty string.
    """
    if len(body) > BODY_LIMIT:
        raise WebhookRejected(413, BODY_TOO_LONG)
    is_certain = verification.check_signature(headers, body, now)
    try:
        message = parse_message(body)
    except MessageInvalid as error:
        if not body.strip():
            raise WebhookRejected(400, "the body is empty") from error
        # It matters only here: some senders set it and send plain JSON.
        encoding = headers.get(CONTENT_ENCODING, "")
        if all(each.strip().lower() in ("", "identity") for each in encoding.split(",")):
            raise WebhookRejected(400, str(error)) from error
        shown = one_line(encoding, _ENCODING_LIMIT)
        text = f"Content-Encoding {shown} is not supported; send the body without one"
        raise WebhookRejected(415, text) from error
    verification.check_password(message)
    named, own = named_account(headers), message.account_name
    if own is None or account_refusal(own) is not None:
        return named if is_certain else "", message
    # A sender that may sign for one account must not speak for another.
    if named and own != named:
        raise WebhookRejected(400, "the message's accountName is not the account of its header Fotahook-Account")
    return own, message


def unwrap(
    body: bytes,
    headers: Mapping[str, str],
    *,
    secrets: Iterable[str] = (),
    public_keys: Iterable[str] = (),
    basic: Basic = None,
    sources: Iterable[str] | None = None,
    peer: str | None = None,
) -> CallbackMessage:
    """Verify and parse one request without a listener, as in a function on AWS Lambda; nothing is stored.

    The message must pass every check that is set up, as for ``Listener``. `peer` is the sender's address, which
    `sources` needs. Header names may be in any case. WebhookRejected has the status to answer; ValueError for an
    invalid key or network. A sender may repeat a message: recognize it by ``webhook-id``, or by its content.
    """
    verification = Verification.parse(secrets=secrets, public_keys=public_keys, sources=sources, basic=basic)
    found = read_headers((name.encode(), value.encode("latin-1", "replace")) for name, value in headers.items())
    verification.check_head(found, peer, now := time.time())
    _, message = verified(found, body, verification, now)
    return message


def _content_key(body: bytes) -> str:
    """Equal for bodies that have the same content, but for what ThingSpace changes between its tries.

    A body with numbers or characters that not every reader takes is compared by its bytes.
    """
    try:
        content = msgspec.json.decode(body.removeprefix(codecs.BOM_UTF8))
    except (msgspec.MsgspecError, UnicodeDecodeError):
        canonical = body
    else:
        for name in _VARYING if isinstance(content, dict) else ():
            content.pop(name, None)
        canonical = _CANONICAL.encode(content)
    return f"json:{hashlib.sha256(canonical).hexdigest()[:36]}"


def noted(message: CallbackMessage, note: Note | None) -> CallbackMessage:
    """A message with what the inbox noted of it: where it comes from, and what of it is stale."""
    if note is None:
        return message
    stale = frozenset(note.stale)
    parts: dict[str, Upgrade] = {}
    for name in ("upgrade_progress", "upgrade_scheduled", "campaign"):
        part: Upgrade | None = getattr(message, name)
        if part is not None and part.device_list:
            devices = [replace(one, stale=storable(one.device_id or "") in stale) for one in part.device_list]
            parts[name] = replace(part, device_list=tuple(devices))
    return replace(
        message,
        source="report" if note.by_report else "callback",
        stale=bool(stale) and all(report.device in stale for report in reports_of(message, detailed=False)),
        **parts,
    )

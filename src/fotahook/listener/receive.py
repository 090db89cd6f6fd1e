"""What to do with a request: headers and bytes in, a message for the inbox or a refusal out. Pure."""

import hashlib
from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote

import msgspec

from fotahook.contract.messages import CallbackMessage, MessageInvalid, parse_message
from fotahook.contract.signing import TOLERANCE, SignatureRefused, verify
from fotahook.contract.urls import account_refusal
from fotahook.store.base import NewMessage

HANDLERS: Final = "handlers"
"""The consumer under which the inbox keeps what the handlers are to see."""
BODY_LIMIT: Final = 1024 * 1024
"""Bytes of a body that are accepted; ours, ThingSpace names no limit."""
DEDUPE_WINDOW: Final = 3600
"""Seconds in which equal bytes without a webhook-id count as one message: ThingSpace publishes no message id."""
_ID_LIMIT: Final = 256


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """The keys of which one must have signed a message. With none of either kind nothing is asked for."""

    secrets: tuple[bytes, ...] = ()
    public_keys: tuple[bytes, ...] = ()
    tolerance: float = TOLERANCE

    @property
    def wanted(self) -> bool:
        """Whether messages must be signed."""
        return bool(self.secrets or self.public_keys)

    def __repr__(self) -> str:
        return f"<Proof by {len(self.secrets)} secrets or {len(self.public_keys)} public keys>"


class Rejected(Exception):
    """The request is refused with this HTTP status; the text says why."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def receive(headers: Mapping[str, str], body: bytes, *, proof: Proof, now: float) -> NewMessage:
    """The message to put into the inbox; Rejected (400, 401 or 413) says why there is none.

    `headers` has lower-case names. Any JSON is taken, whatever its shape and its Content-Type: which shapes ThingSpace
    sends is only partly published, and a message refused may never come again.
    """
    if len(body) > BODY_LIMIT:
        raise Rejected(413, f"the body has more than {BODY_LIMIT} bytes")
    if proof.wanted:
        try:
            verify(
                headers,
                body,
                secrets=proof.secrets,
                public_keys=proof.public_keys,
                now=now,
                tolerance=proof.tolerance,
            )
        except SignatureRefused as error:
            raise Rejected(401, str(error)) from error
    try:
        message = parse_message(body)
    except MessageInvalid as error:
        raise Rejected(400, str(error)) from error
    account = _account(headers, message)
    return NewMessage(
        account=account,
        body=body,
        type=_storable(message.kind),
        ordering_key=_storable(_ordering_key(message)),
        idempotency_key=_dedupe_key(headers, account, body, now),
        consumers=(HANDLERS,),
    )


def _account(headers: Mapping[str, str], message: CallbackMessage) -> str:
    """Who the message belongs to; empty where it does not say."""
    named = unquote(headers.get("fotahook-account", "")) or message.account_name or ""
    return "" if account_refusal(named) else named


def _ordering_key(message: CallbackMessage) -> str | None:
    """Messages about one device stay in order, and so do those about one campaign as a whole."""
    devices = {device.device_id for device in message.devices}
    return devices.pop() if len(devices) == 1 else message.campaign_id


def _dedupe_key(headers: Mapping[str, str], account: str, body: bytes, now: float) -> str:
    message_id = headers.get("webhook-id", "")
    if not message_id:
        digest = hashlib.sha256(account.encode() + b"\0" + body).hexdigest()
        return f"sha256:{digest}:{int(now) // DEDUPE_WINDOW}"
    if len(message_id) > _ID_LIMIT or not (message_id.isascii() and message_id.isprintable()):
        raise Rejected(400, f"webhook-id must be at most {_ID_LIMIT} printable ASCII characters")
    return message_id


def _storable(text: str | None) -> str | None:
    """A key of any length and any characters as the inbox can keep it: long ones by their hash."""
    if text is None or len(text) <= _ID_LIMIT:
        return text
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()

"""What to do with a request: headers and bytes in, a message for the inbox or a refusal out. Pure."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import unquote

import msgspec

from fotahook.contract.messages import CallbackMessage, MessageInvalid, parse_message
from fotahook.contract.signing import TOLERANCE, SignatureRefused, parse_public_key, parse_secret, verify
from fotahook.contract.urls import account_refusal
from fotahook.store.base import NewMessage

HANDLERS: Final = "handlers"
"""The consumer under which the inbox keeps what the handlers are to see."""
BODY_LIMIT: Final = 1024 * 1024
"""Bytes of a body that are accepted; ours, ThingSpace names no limit."""
DEDUPE_WINDOW: Final = 3600
"""Seconds in which equal bytes without a webhook-id count as one message: ThingSpace publishes no message id."""
HEADERS: Final = ("webhook-id", "webhook-timestamp", "webhook-signature", "fotahook-account")
"""The headers that are looked at."""
_KEY_LIMIT: Final = 256
_SEPARATOR: Final = b"\0"


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """The keys of which one must have signed a message. With none of either kind nothing is asked for."""

    secrets: tuple[bytes, ...] = ()
    public_keys: tuple[bytes, ...] = ()
    tolerance: float = TOLERANCE

    @classmethod
    def of(cls, secrets: Iterable[str], public_keys: Iterable[str]) -> "Proof":
        """The proof by keys as they are written down; ValueError for one that cannot be read."""
        if isinstance(secrets, str) or isinstance(public_keys, str):
            raise TypeError("secrets and public_keys are lists: write (key,) for a single one")
        return cls(
            secrets=tuple(parse_secret(text) for text in secrets),
            public_keys=tuple(parse_public_key(text) for text in public_keys),
        )

    @property
    def wanted(self) -> bool:
        """Whether messages must be signed."""
        return bool(self.secrets or self.public_keys)

    def __repr__(self) -> str:
        return f"<Proof by {len(self.secrets)} secrets or {len(self.public_keys)} public keys>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """As little for rich, which would show the keys otherwise."""
        return [("secrets", len(self.secrets)), ("public_keys", len(self.public_keys))]


class Rejected(Exception):
    """The request is refused with this HTTP status; the text says why."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def single_headers(pairs: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """The headers that are looked at, out of an ASGI scope's; Rejected (400) if one of them came twice.

    Of two values a proxy may believe one and this listener the other, so neither is believed.
    """
    found: dict[str, str] = {}
    for raw_name, value in pairs:
        name = raw_name.decode("latin-1").lower()
        if name in found:
            raise Rejected(400, f"{name} came more than once")
        if name in HEADERS:
            found[name] = value.decode("latin-1")
    return found


def receive(headers: Mapping[str, str], body: bytes, *, proof: Proof, now: float) -> NewMessage:
    """The message to put into the inbox; Rejected (400, 401 or 413) says why there is none.

    `headers` has lower-case names. Any JSON is taken, whatever its shape and its Content-Type: which shapes ThingSpace
    sends is only partly published, and a message refused may never come again.
    """
    if len(body) > BODY_LIMIT:
        raise Rejected(413, f"the body has more than {BODY_LIMIT} bytes")
    if proof.wanted:
        _prove(headers, body, proof, now)
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


def _prove(headers: Mapping[str, str], body: bytes, proof: Proof, now: float) -> None:
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


def _account(headers: Mapping[str, str], message: CallbackMessage) -> str:
    """Who the message belongs to; empty where neither it nor the header says so.

    The message's own word comes first: it is what a signature covers, the header is not.
    """
    candidates = (message.account_name or "", unquote(headers.get("fotahook-account", "")))
    return next((name for name in candidates if account_refusal(name) is None), "")


def _ordering_key(message: CallbackMessage) -> str | None:
    """Messages about one device stay in order, and so do those about one campaign as a whole."""
    devices = {device.device_id for device in message.devices if device.device_id}
    return devices.pop() if len(devices) == 1 else message.campaign_id


def _dedupe_key(headers: Mapping[str, str], account: str, body: bytes, now: float) -> str:
    message_id = headers.get("webhook-id", "")
    # The prefixes keep an id that looks like a digest from passing for one.
    if not message_id:
        return f"body:{_digest(account.encode() + _SEPARATOR + body)}:{int(now) // DEDUPE_WINDOW}"
    return f"id:{_storable(message_id)}"


def _storable(text: str | None) -> str | None:
    """A key as any inbox can keep it: by its hash if it is long, or has a NUL, which PostgreSQL takes in no text."""
    if text is None or (len(text) <= _KEY_LIMIT and "\0" not in text):
        return text
    return f"sha256:{_digest(text.encode())}"


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()

"""Decides about a request: headers and bytes in, a message for the inbox or a rejection out. Pure.

Each part of the verification is optional; a message must pass all parts that are set. ThingSpace does not sign
messages. It publishes the addresses it sends from and, in V1, repeats a user name and password in the body
(docs/thingspace.md, Messages). Signatures are fotahook's own.
"""

import hashlib
import hmac
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Final, TypeAlias, TypeVar, cast
from urllib.parse import unquote

import msgspec
from msgspec.structs import replace

from fotahook.contract import signing
from fotahook.contract.addresses import Network, account_refusal, is_within, parse_networks, sender_address
from fotahook.contract.errors import WebhookRejected, one_line
from fotahook.contract.exchange import Masked
from fotahook.contract.messages import CallbackMessage, MessageInvalid, Upgrade, parse_with_content
from fotahook.store.ledger import reports_of, storable
from fotahook.store.records import NewMessage, Note

from .validation import items, parse_each

T = TypeVar("T")

Basic: TypeAlias = Iterable[Sequence[str]] | Sequence[str] | None
"""Pairs of user name and password, or a single one."""

FORWARDED_FOR: Final = "x-forwarded-for"
THINGSPACE_SOURCES: Final = (
    "3.87.163.45/32",
    "3.91.119.203/32",
    "34.216.81.234/32",
    "35.165.205.14/32",
    "54.197.62.209/32",
    "54.200.43.232/32",
    "68.128.212.217/32",
    "137.117.33.109/32",
    "168.62.173.153/32",
)
"""The addresses that ThingSpace's pages listed when they were read (docs/thingspace.md, Messages)."""


class Verification(Masked, frozen=True, kw_only=True):
    """What a message must pass. With nothing set, every message passes."""

    shown = ("signed", "sources", "trusted_proxies")

    secrets: tuple[bytes, ...] = ()
    public_keys: tuple[bytes, ...] = ()
    """One of these or one of the secrets must have signed the message."""
    account_keys: Mapping[str, tuple[tuple[bytes, ...], tuple[bytes, ...]]] = {}
    """Secrets and public keys of single accounts, whose messages must be signed with one of these, and no other key."""
    sources: tuple[Network, ...] = ()
    trusted_proxies: tuple[Network, ...] = ()
    basic: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(
        cls,
        *,
        secrets: Iterable[str] = (),
        public_keys: Iterable[str] = (),
        sources: Iterable[str] | None = (),
        trusted_proxies: Iterable[str] = (),
        basic: Basic = (),
        names: Mapping[str, str] | None = None,
    ) -> "Verification":
        """Parse keys (``whsec_…``, ``whpk_…``) and networks (CIDR, or ``thingspace`` for ``THINGSPACE_SOURCES``).

        ``ACCOUNT=`` before a key makes it the key of that account alone. `names`: what errors call a parameter, where
        that is not its own name. ValueError for what cannot be parsed, TypeError for anything but a list of strings.
        """

        def parsed(name: str, values: Iterable[str], parse: Callable[[str], T]) -> tuple[T, ...]:
            return parse_each((names or {}).get(name, name), values, parse)

        def networks(text: str) -> tuple[Network, ...]:
            return parse_networks(THINGSPACE_SOURCES if text == "thingspace" else (text,))

        def keys(
            name: str, values: Iterable[str], prefix: str, parse: Callable[[str], bytes]
        ) -> dict[str, tuple[bytes, ...]]:
            def parse_key(text: str) -> tuple[str, bytes]:
                account, separator, key = text.strip().rpartition(f"={prefix}")
                if separator and (refusal := account_refusal(account)) is not None:
                    raise ValueError(refusal)
                return account, parse(key)

            found: dict[str, tuple[bytes, ...]] = {}
            for account, key in parsed(name, values, parse_key):
                found[account] = (*found.get(account, ()), key)
            return found

        given = items("basic", basic or ())
        pairs = (given,) if all(isinstance(part, str) for part in given) and given else given
        if not all(
            isinstance(pair, tuple | list) and len(pair) == 2 and all(isinstance(part, str) and part for part in pair)
            for pair in pairs
        ):
            raise ValueError("basic must be a user name and a password, neither of them empty, or several such pairs")
        hmac_keys = keys("secrets", secrets, signing.SECRET_PREFIX, signing.parse_secret)
        ed25519_keys = keys("public_keys", public_keys, signing.PUBLIC_PREFIX, signing.parse_public_key)
        return cls(
            secrets=hmac_keys.pop("", ()),
            public_keys=ed25519_keys.pop("", ()),
            account_keys={one: (hmac_keys.get(one, ()), ed25519_keys.get(one, ())) for one in hmac_keys | ed25519_keys},
            sources=tuple(chain.from_iterable(parsed("sources", sources or (), networks))),
            trusted_proxies=parsed("trusted_proxies", trusted_proxies, lambda text: parse_networks((text,))[0]),
            basic=cast("tuple[tuple[str, str], ...]", pairs),
        )

    def updated(self, other: "Verification") -> "Verification":
        """A copy with the parts that `other` sets. Secrets and public keys are one part."""
        keys = ("secrets", "public_keys", "account_keys") if other.signed else ()
        parts = (name for name in ("sources", "trusted_proxies", "basic") if getattr(other, name))
        return msgspec.structs.replace(self, **{name: getattr(other, name) for name in (*keys, *parts)})

    @property
    def signed(self) -> bool:
        return bool(self.secrets or self.public_keys or self.account_keys)

    @property
    def required(self) -> bool:
        return bool(self.signed or self.sources or self.basic)

    def check_head(self, headers: Mapping[str, str], peer: str | None, now: float) -> None:
        """WebhookRejected before the body is read: the sender's address is in no source (403), or the headers alone
        show that no known key signed the message (401)."""
        if self.sources:
            address = sender_address(peer, headers.get(FORWARDED_FOR, ""), self.trusted_proxies)
            if address is None:
                raise WebhookRejected(403, "the address of the sender is unknown")
            if not is_within(address, self.sources):
                text = f"the message came from {address}, which is in none of the allowed networks"
                raise WebhookRejected(403, text)
        if self.signed:
            try:
                signing.check_headers(headers, now=now)
            except signing.SignatureRefused as error:
                raise WebhookRejected(401, str(error)) from error

    def check_signature(self, headers: Mapping[str, str], body: bytes, now: float) -> bool:
        """Whether the message is from the account of its headers for sure: False if its key may sign for others too.

        WebhookRejected (401) if no key for that account signed these bytes within the tolerance of `now`.
        """
        if not self.signed:
            return True
        account = named_account(headers)
        # A secret is made for one account. A public key may be the service's, with which it signs for all.
        keys = [(self.secrets, (), True), ((), self.public_keys, False)]
        if (own := self.account_keys.get(account)) is not None:
            keys = [(*own, True)]
        refusal = f"no key is known for account {account or '(none named by Fotahook-Account)'}"
        for secrets, public_keys, certain in keys:
            if secrets or public_keys:
                try:
                    signing.verify(headers, body, secrets=secrets, public_keys=public_keys, now=now)
                    return certain
                except signing.SignatureRefused as error:
                    refusal = str(error)
        raise WebhookRejected(401, refusal)

    def check_password(self, message: CallbackMessage) -> None:
        if not self.basic:
            return
        given = _digest(message.username) + _digest(message.password)
        # Everything is always compared, so that the time until a rejection reveals nothing.
        matches = [hmac.compare_digest(given, _digest(user) + _digest(password)) for user, password in self.basic]
        if not any(matches):
            raise WebhookRejected(401, "the message does not contain a registered user name and password")


def named_account(headers: Mapping[str, str]) -> str:
    """The account that a sender names in its headers; the empty string if it names none."""
    if not (named := headers.get("fotahook-account")):
        return ""
    return named if account_refusal(named := unquote(named)) is None else ""


def _digest(text: str | None) -> bytes:
    return hashlib.sha256((text or "").encode("utf-8", "surrogatepass")).digest()


HANDLERS: Final = "handlers"
BODY_LIMIT: Final = 1024 * 1024
"""Bytes of a body that are accepted. The limit is ours; ThingSpace publishes none."""
SMALL_BODY: Final = 64 * 1024
"""Bytes that a server holds of a request anyway, before anybody reads it. Longer bodies are parsed in turns."""
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
    account, message, content = verified(headers, body, verification, now)
    key = window = None
    if message_id := headers.get("webhook-id"):
        key = f"id:{storable(message_id)}"
    elif dedupe_window > 0:
        # Equal but for what ThingSpace changes between its tries.
        if content is msgspec.UNSET:
            content = msgspec.json.decode(body)
        if isinstance(content, dict):
            for name in _VARYING:
                content.pop(name, None)
        text = content if isinstance(content, bytes) else _CANONICAL.encode(content)
        key, window = f"json:{hashlib.sha256(text).hexdigest()[:36]}", dedupe_window
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
) -> tuple[str, CallbackMessage, object]:
    """The account, the message and its content, as from `parse_with_content`, of a body that passes every check;
    WebhookRejected (400, 401, 413 or 415) if not.

    The account is the message's own accountName, else that of the header if it is certain, else the empty string.
    """
    if len(body) > BODY_LIMIT:
        raise WebhookRejected(413, BODY_TOO_LONG)
    is_certain = verification.check_signature(headers, body, now)
    try:
        message, content = parse_with_content(body)
    except MessageInvalid as error:
        if not body.strip():
            raise WebhookRejected(400, "the body is empty") from error
        # It matters only here: some senders set it and send plain JSON.
        encoding = headers.get(CONTENT_ENCODING, "")
        if all(each.strip().lower() in ("", "identity") for each in encoding.split(",")):
            raise WebhookRejected(400, str(error)) from error
        text = f"Content-Encoding {one_line(encoding, _ENCODING_LIMIT)} is not supported; send the body without one"
        raise WebhookRejected(415, text) from error
    verification.check_password(message)
    named, own = named_account(headers), message.account_name
    if own is None or account_refusal(own) is not None:
        return named if is_certain else "", message, content
    # A sender that may sign for one account must not speak for another.
    if named and own != named:
        raise WebhookRejected(400, "the message's accountName is not the account of its header Fotahook-Account")
    return own, message, content


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
    return verified(found, body, verification, now)[1]


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

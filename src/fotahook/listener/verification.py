"""Verification of senders. Each part is optional; a message must pass all parts that are set. Pure.

ThingSpace does not sign messages. It publishes the addresses it sends from and, in V1, repeats a user name and password
in the body (docs/thingspace.md, Messages). Signatures are fotahook's own.
"""

import hashlib
import hmac
from collections.abc import Callable, Iterable, Mapping, Sequence
from ipaddress import IPv6Address, ip_address
from itertools import chain
from typing import Any, Final, TypeVar

import msgspec

from fotahook.contract.addresses import Address, Network, parse_networks
from fotahook.contract.messages import CallbackMessage
from fotahook.contract.signing import TOLERANCE, SignatureRefused, check_headers, parse_public_key, parse_secret, verify

from .validation import parse_each

T = TypeVar("T")

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


class WebhookRejected(Exception):
    """The request is rejected with the HTTP status `status`; the text says why."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """What a message must pass. With nothing set, every message passes."""

    secrets: tuple[bytes, ...] = ()
    public_keys: tuple[bytes, ...] = ()
    """One of these or one of the secrets must have signed the message."""
    tolerance: float = TOLERANCE
    sources: tuple[Network, ...] = ()
    """The sender's address must be in one of these networks."""
    trusted_proxies: tuple[Network, ...] = ()
    """Networks of proxies whose X-Forwarded-For is trusted."""
    basic: tuple[str, str] | None = None
    """User name and password that a V1 message must contain."""

    @classmethod
    def parse(
        cls,
        *,
        secrets: Iterable[str] = (),
        public_keys: Iterable[str] = (),
        sources: Iterable[str] = (),
        trusted_proxies: Iterable[str] = (),
        basic: Sequence[str] | None = None,
        names: Mapping[str, str] | None = None,
    ) -> "Verification":
        """Parse keys (``whsec_…``, ``whpk_…``) and networks (CIDR, or ``thingspace`` for ``THINGSPACE_SOURCES``).

        `names`: what errors call a parameter, where that is not its own name.
        ValueError for a value that cannot be parsed, TypeError for anything but a list of strings.
        """

        def parsed(name: str, values: Iterable[str], parse: Callable[[str], T]) -> tuple[T, ...]:
            return parse_each((names or {}).get(name, name), values, parse)

        return cls(
            secrets=parsed("secrets", secrets, parse_secret),
            public_keys=parsed("public_keys", public_keys, parse_public_key),
            sources=tuple(chain.from_iterable(parsed("sources", sources, _parse_source))),
            trusted_proxies=parsed("trusted_proxies", trusted_proxies, _parse_network),
            basic=None if basic is None else _parse_basic(basic),
        )

    def updated(self, other: "Verification") -> "Verification":
        """A copy with the parts that `other` sets. Secrets and public keys are one part."""
        keys = ("secrets", "public_keys") if other.signed else ()
        parts = (name for name in ("sources", "trusted_proxies", "basic") if getattr(other, name))
        return msgspec.structs.replace(self, **{name: getattr(other, name) for name in (*keys, *parts)})

    @property
    def signed(self) -> bool:
        """Whether messages must be signed."""
        return bool(self.secrets or self.public_keys)

    @property
    def required(self) -> bool:
        """Whether anything is checked."""
        return bool(self.signed or self.sources or self.basic)

    def check_source(self, peer: str | None, forwarded: str) -> None:
        """WebhookRejected (403) if the sender's address is in no source. `forwarded` is the X-Forwarded-For header."""
        if not self.sources:
            return
        address = sender_address(peer, forwarded, self.trusted_proxies)
        if address is None:
            raise WebhookRejected(403, "the address of the sender is unknown")
        if not _within(address, self.sources):
            raise WebhookRejected(403, f"the message came from {address}, which is in none of the allowed networks")

    def check_signature_headers(self, headers: Mapping[str, str], now: float) -> None:
        """WebhookRejected (401) if the headers alone show that no known key signed the message."""
        if not self.signed:
            return
        try:
            check_headers(headers, now=now, tolerance=self.tolerance)
        except SignatureRefused as error:
            raise WebhookRejected(401, str(error)) from error

    def check_signature(self, headers: Mapping[str, str], body: bytes, now: float) -> None:
        """WebhookRejected (401) if no known key signed these bytes within the tolerance of `now`."""
        if not self.signed:
            return
        secrets, public_keys = self.secrets, self.public_keys
        try:
            verify(headers, body, secrets=secrets, public_keys=public_keys, now=now, tolerance=self.tolerance)
        except SignatureRefused as error:
            raise WebhookRejected(401, str(error)) from error

    def check_password(self, message: CallbackMessage) -> None:
        """WebhookRejected (401) if the message does not contain the registered user name and password."""
        if self.basic is None:
            return
        user, password = self.basic
        # `&` always compares both, so that the time until a rejection reveals nothing.
        if not _equal(message.username, user) & _equal(message.password, password):
            raise WebhookRejected(401, "the message does not contain the registered user name and password")

    def __repr__(self) -> str:
        return f"<Verification by {', '.join(f'{count} {what}' for what, count in self.__rich_repr__())}>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """The same for rich, whose default would show the keys."""
        return [
            ("secrets", len(self.secrets)),
            ("public keys", len(self.public_keys)),
            ("networks", len(self.sources)),
            ("passwords", int(self.basic is not None)),
        ]


def sender_address(peer: str | None, forwarded: str, trusted: Iterable[Network]) -> Address | None:
    """The sender's address: the peer's, or the one that a trusted proxy names. None if it cannot be parsed.

    Each proxy appends its peer's address to X-Forwarded-For. So the header is read from its end, for as long as the
    author of an entry is trusted; everything before that may be forged.
    """
    address = _parse_address(peer or "")
    for entry in reversed(forwarded.split(",") if forwarded else ()):
        if address is None or not _within(address, trusted):
            break
        address = _parse_address(entry)
    return address


def _parse_network(text: str) -> Network:
    return parse_networks((text,))[0]


def _parse_source(text: str) -> tuple[Network, ...]:
    return parse_networks(THINGSPACE_SOURCES if text == "thingspace" else (text,))


def _parse_basic(basic: Sequence[str]) -> tuple[str, str]:
    texts = isinstance(basic, tuple | list) and all(isinstance(part, str) and part for part in basic)
    if not texts or len(basic) != 2:
        raise ValueError("basic must be a user name and a password, neither of them empty")
    return basic[0], basic[1]


def _parse_address(text: str) -> Address | None:
    host = text.strip()
    # Some proxies add the port.
    if host.startswith("["):
        host = host[1:].partition("]")[0]
    elif host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        address = ip_address(host)
    except ValueError:
        return None
    # A dual-stack socket reports IPv4 peers as mapped IPv6 addresses.
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def _within(address: Address, networks: Iterable[Network]) -> bool:
    return any(address in network for network in networks)


def _equal(given: str | None, expected: str) -> bool:
    return hmac.compare_digest(_digest(given or ""), _digest(expected))


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()

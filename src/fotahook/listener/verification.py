"""What may be asked of a sender before its message is believed: all parts are optional, all that are set must hold.

Pure. ThingSpace signs nothing. What it offers is where it sends from and, in V1, a user name and a password in the body
(docs/thingspace.md, Messages); signatures are fotahook's own.
"""

import hashlib
import hmac
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv6Address, ip_address
from typing import Any, Final

import msgspec

from fotahook.contract.addresses import Address, Network, parse_networks
from fotahook.contract.messages import CallbackMessage
from fotahook.contract.signing import TOLERANCE, SignatureRefused, parse_public_key, parse_secret, verify

from . import validation

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
"""Where ThingSpace's pages said that it sends from, when they were read (docs/thingspace.md, Messages)."""


class Rejected(Exception):
    """The request is refused with this HTTP status; the text says why."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """What a message must show. With nothing set, nothing is asked for."""

    secrets: tuple[bytes, ...] = ()
    public_keys: tuple[bytes, ...] = ()
    """Of these and the secrets, one must have signed."""
    tolerance: float = TOLERANCE
    sources: tuple[Network, ...] = ()
    """Networks of which the sender's address must be in one."""
    trusted_proxies: tuple[Network, ...] = ()
    """Networks whose word on where a request came from is believed."""
    basic: tuple[str, str] | None = None
    """User name and password that a V1 message must hold."""

    @classmethod
    def of(
        cls,
        *,
        secrets: Iterable[str] = (),
        public_keys: Iterable[str] = (),
        sources: Iterable[str] = (),
        trusted_proxies: Iterable[str] = (),
        basic: Sequence[str] | None = None,
    ) -> "Proof":
        """The proof by keys and networks as they are written down.

        ValueError for one that cannot be read, TypeError for what is no list of texts.
        """
        return cls(
            secrets=tuple(parse_secret(text) for text in validation.texts("secrets", secrets)),
            public_keys=tuple(parse_public_key(text) for text in validation.texts("public_keys", public_keys)),
            sources=parse_networks(validation.texts("sources", sources)),
            trusted_proxies=parse_networks(validation.texts("trusted_proxies", trusted_proxies)),
            basic=None if basic is None else _pair(basic),
        )

    def replaced_by(self, other: "Proof") -> "Proof":
        """Each part of `other` that is set, and this one's for the rest; the keys of both kinds are one part."""
        keys = other if other.signed else self
        return Proof(
            secrets=keys.secrets,
            public_keys=keys.public_keys,
            tolerance=self.tolerance,
            sources=other.sources or self.sources,
            trusted_proxies=other.trusted_proxies or self.trusted_proxies,
            basic=other.basic or self.basic,
        )

    @property
    def signed(self) -> bool:
        """Whether messages must be signed."""
        return bool(self.secrets or self.public_keys)

    @property
    def wanted(self) -> bool:
        """Whether anything is asked for."""
        return bool(self.signed or self.sources or self.basic)

    def check_source(self, peer: str | None, forwarded: str) -> None:
        """Rejected (403) if the request comes from elsewhere. `forwarded`: what X-Forwarded-For says."""
        if not self.sources:
            return
        address = sender_address(peer, forwarded, self.trusted_proxies)
        if address is None:
            raise Rejected(403, "it cannot be told which address the message came from")
        if not _within(address, self.sources):
            raise Rejected(403, f"the message came from {address}, which is in none of the sources' networks")

    def check_signature(self, headers: Mapping[str, str], body: bytes, now: float) -> None:
        """Rejected (401) if no known key signed these bytes just now."""
        if not self.signed:
            return
        try:
            verify(
                headers,
                body,
                secrets=self.secrets,
                public_keys=self.public_keys,
                now=now,
                tolerance=self.tolerance,
            )
        except SignatureRefused as error:
            raise Rejected(401, str(error)) from error

    def check_password(self, message: CallbackMessage) -> None:
        """Rejected (401) if the message does not hold the user name and password that were registered."""
        if self.basic is None:
            return
        given = (message.username or "", message.password or "")
        # Both are compared, whatever came of the first: how long a refusal takes tells nothing.
        equal = [
            hmac.compare_digest(_digest(one), _digest(other)) for one, other in zip(given, self.basic, strict=True)
        ]
        if not all(equal):
            raise Rejected(401, "the user name and password in the message are not those that were registered")

    def __repr__(self) -> str:
        return f"<Proof by {', '.join(f'{count} {what}' for what, count in self.__rich_repr__())}>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """As little for rich, which would show the keys otherwise."""
        return [
            ("secrets", len(self.secrets)),
            ("public keys", len(self.public_keys)),
            ("networks", len(self.sources)),
            ("passwords", int(self.basic is not None)),
        ]


def sender_address(peer: str | None, forwarded: str, trusted: Iterable[Network]) -> Address | None:
    """Who sent a request: the peer, or whom a trusted proxy names; None if that is no address.

    Each proxy appends to X-Forwarded-For whom it heard from, so the header is read from its end, for as long as the
    one who wrote the entry is trusted. What stands before that may have been written by anybody.
    """
    address = _address(peer or "")
    for claim in reversed(forwarded.split(",") if forwarded else ()):
        if address is None or not _within(address, trusted):
            break
        address = _address(claim)
    return address


def _pair(basic: Sequence[str]) -> tuple[str, str]:
    texts = isinstance(basic, tuple | list) and all(isinstance(part, str) and part for part in basic)
    if not texts or len(basic) != 2:
        raise ValueError("basic is a user name and a password, neither of them empty")
    return basic[0], basic[1]


def _address(text: str) -> Address | None:
    host = text.strip()
    # Some proxies write the port as well.
    if host.startswith("["):
        host = host[1:].partition("]")[0]
    elif host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        address = ip_address(host)
    except ValueError:
        return None
    # A socket for both families names IPv4 peers like that.
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def _within(address: Address, networks: Iterable[Network]) -> bool:
    return any(address in network for network in networks)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()

"""Verification of senders. Each part is optional; a message must pass all parts that are set. Pure.

ThingSpace does not sign messages. It publishes the addresses it sends from and, in V1, repeats a user name and password
in the body (docs/thingspace.md, Messages). Signatures are fotahook's own.
"""

import hashlib
import hmac
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Final, TypeAlias, TypeVar, cast
from urllib.parse import unquote

import msgspec

from fotahook.contract.addresses import Network, account_refusal, is_within, parse_networks, sender_address
from fotahook.contract.errors import WebhookRejected
from fotahook.contract.exchange import Masked
from fotahook.contract.messages import CallbackMessage
from fotahook.contract.signing import (
    PUBLIC_PREFIX,
    SECRET_PREFIX,
    SignatureRefused,
    check_headers,
    parse_public_key,
    parse_secret,
    verify,
)

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
    """The sender's address must be in one of these networks."""
    trusted_proxies: tuple[Network, ...] = ()
    """Networks of proxies whose X-Forwarded-For is trusted."""
    basic: tuple[tuple[str, str], ...] = ()
    """Pairs of user name and password, of which a V1 message must contain one."""

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

        hmac_keys = keys("secrets", secrets, SECRET_PREFIX, parse_secret)
        ed25519_keys = keys("public_keys", public_keys, PUBLIC_PREFIX, parse_public_key)
        general = hmac_keys.pop("", ()), ed25519_keys.pop("", ())
        accounts = hmac_keys | ed25519_keys
        return cls(
            secrets=general[0],
            public_keys=general[1],
            account_keys={one: (hmac_keys.get(one, ()), ed25519_keys.get(one, ())) for one in accounts},
            sources=tuple(chain.from_iterable(parsed("sources", sources or (), networks))),
            trusted_proxies=parsed("trusted_proxies", trusted_proxies, lambda text: parse_networks((text,))[0]),
            basic=_parse_basic(basic),
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
        if not self.signed:
            return
        try:
            check_headers(headers, now=now)
        except SignatureRefused as error:
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
                    verify(headers, body, secrets=secrets, public_keys=public_keys, now=now)
                    return certain
                except SignatureRefused as error:
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
    named = unquote(headers.get("fotahook-account", ""))
    return named if named and account_refusal(named) is None else ""


def _parse_basic(basic: Basic) -> tuple[tuple[str, str], ...]:
    given = items("basic", basic or ())
    pairs = (given,) if all(isinstance(part, str) for part in given) and given else given
    if not all(
        isinstance(pair, tuple | list) and len(pair) == 2 and all(isinstance(part, str) and part for part in pair)
        for pair in pairs
    ):
        raise ValueError("basic must be a user name and a password, neither of them empty, or several such pairs")
    return cast("tuple[tuple[str, str], ...]", pairs)


def _digest(text: str | None) -> bytes:
    return hashlib.sha256((text or "").encode("utf-8", "surrogatepass")).digest()

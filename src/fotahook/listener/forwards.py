"""Forwards: other receivers of what came to the one registered URL, each with a lane of its own in the inbox."""

import contextlib
import hashlib
import time
from collections.abc import AsyncIterator, Callable, Iterable
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import msgspec

from fotahook.contract.addresses import EVERYWHERE, Network, parse_networks
from fotahook.contract.keys import parse_secret_key, signing_seed
from fotahook.contract.messages import CallbackMessage
from fotahook.contract.signing import format_public_key
from fotahook.contract.urls import url_refusal
from fotahook.delivery import Deliver, Outcome
from fotahook.store import sqlite_path
from fotahook.store.key_file import read_or_make_key
from fotahook.store.records import Delivery, Lease

from . import validation

if TYPE_CHECKING:
    from fotahook.delivery.sender import Sender

PREFIX: Final = "forward:"
_LOOPBACK: Final = parse_networks(("127.0.0.0/8", "::1/128"))
_DIGITS: Final = 16


class Forwarding(msgspec.Struct, frozen=True, kw_only=True):
    """How a listener's forwards are sent. ValueError for what cannot be read, TypeError for another type."""

    secret_key: str | None = None
    """What the signing key is derived from: URL-safe base64 of 32 bytes. None: made once, beside a SQLite inbox."""
    allow_networks: tuple[str, ...] = ()
    """Networks (CIDR) that forwards may lie in although they are not globally reachable."""
    ca_file: Path | None = None
    """Authorities (PEM) that the receivers' certificates may come from, besides the system's."""
    timeout: float = 15.0
    """Seconds for one attempt in all."""

    def __post_init__(self) -> None:
        networks = validation.texts("allow_networks", self.allow_networks)
        # What can be gone through once only has been now.
        msgspec.structs.force_setattr(self, "allow_networks", networks)
        parse_networks(networks)
        if self.secret_key is not None:
            parse_secret_key(validation.text("secret_key", self.secret_key))
        validation.seconds("timeout", self.timeout)

    def __repr__(self) -> str:
        return f"<Forwarding timeout={self.timeout:g}>"

    @property
    def networks(self) -> tuple[Network, ...]:
        """What is opened."""
        return parse_networks(self.allow_networks)

    def key(self, inbox: str) -> bytes:
        """The secret key for the forwards of an inbox. ValueError if there is none, and no place to keep one."""
        if self.secret_key is not None:
            return parse_secret_key(self.secret_key)
        if not inbox.startswith("sqlite:"):
            raise ValueError(
                "forwards out of an inbox on PostgreSQL need a secret key, the same in every process: "
                "set FOTAHOOK_SECRET_KEY or Forwarding(secret_key=…)"
            )
        return read_or_make_key(sqlite_path(inbox))


class Forward(msgspec.Struct, frozen=True, kw_only=True):
    """One receiver and what it is to have; None means all."""

    url: str
    types: frozenset[str] | None
    accounts: frozenset[str] | None

    @property
    def consumer(self) -> str:
        """The name of its lanes: the same for the same URL, so that what was not sent waits for it over restarts."""
        return PREFIX + hashlib.sha256(self.url.encode()).hexdigest()[:_DIGITS]

    @property
    def is_local(self) -> bool:
        """Whether the URL says that the receiver is on this machine."""
        host = urlsplit(self.url).hostname or ""
        try:
            return any(ip_address(host) in network for network in _LOOPBACK)
        except ValueError:
            return host == "localhost"

    def wants(self, account: str, message: CallbackMessage) -> bool:
        """Whether a message of an account is to be sent there."""
        return (self.types is None or message.kind in self.types) and (
            self.accounts is None or account in self.accounts
        )

    def networks(self, opened: tuple[Network, ...]) -> tuple[Network, ...]:
        """What may be connected to besides the global addresses: loopback only where the URL itself says so."""
        return opened + (_LOOPBACK if self.is_local else ())

    def check(self, opened: tuple[Network, ...]) -> None:
        """ValueError if nothing may be sent there with these networks opened."""
        if self.url.startswith("http://") and not (self.is_local or opened):
            raise ValueError(
                f"a forward to {self.url} needs https://; http:// is for this machine (localhost, 127.0.0.1), and for "
                "others once a network of theirs is opened with --allow-network or allow_networks"
            )
        if (why := url_refusal(self.url, allow_http=True, allowed=self.networks(opened))) is not None:
            raise ValueError(f"a forward to {self.url}: {why}")


class Forwards:
    """The forwards of one listener."""

    def __init__(self, forwarding: Forwarding) -> None:
        self.forwarding = forwarding
        self._forwards: list[Forward] = []
        self._instead: Deliver | None = None

    def __len__(self) -> int:
        return len(self._forwards)

    def add(self, url: str, types: Iterable[str] | None, accounts: Iterable[str] | None) -> None:
        """Add a forward; ValueError if its URL cannot be one. Two with one URL share their lanes."""
        if (why := url_refusal(validation.text("url", url), allow_http=True, allowed=EVERYWHERE)) is not None:
            raise ValueError(f"a forward to {url!r}: {why}")
        self._forwards.append(Forward(url=url, types=_set("types", types), accounts=_set("accounts", accounts)))

    def give_to(self, instead: Deliver | None) -> None:
        """Give what is to be forwarded to this deliverer, and open nothing to send with; None: send it. For tests."""
        self._instead = instead

    @property
    def urls(self) -> dict[str, str]:
        """Where the lanes lead, by their consumers."""
        return {forward.consumer: forward.url for forward in self._forwards}

    def wanting(self, account: str, message: CallbackMessage) -> tuple[str, ...]:
        """The consumers that want a message."""
        if not self._forwards:
            return ()
        return tuple(dict.fromkeys(one.consumer for one in self._forwards if one.wants(account, message)))

    def public_key(self, inbox: str) -> str | None:
        """The ``whpk_…`` with which receivers verify what is forwarded; None where nothing is."""
        return format_public_key(signing_seed(self.forwarding.key(inbox))) if self._forwards else None

    @contextlib.asynccontextmanager
    async def sending(self, inbox: str, clock: Callable[[], float]) -> AsyncIterator[Deliver]:
        """Delivers to the forward that a lane leads to. ValueError if one of them may not be sent to."""
        if self._instead is not None:
            yield self._instead
            return
        opened = self.forwarding.networks
        async with contextlib.AsyncExitStack() as stack:
            senders: dict[tuple[Network, ...], Sender] = {}
            ways: dict[str, tuple[str, Sender]] = {}
            for forward in self._forwards:
                forward.check(opened)
                networks = forward.networks(opened)
                if networks not in senders:
                    senders[networks] = await stack.enter_async_context(self._sender(inbox, networks, clock))
                ways[forward.consumer] = (forward.url, senders[networks])

            async def deliver(lease: Lease, delivery: Delivery) -> Outcome:
                if lease.consumer not in ways:
                    excerpt = f"this listener has no forward for the lane {lease.consumer}"
                    return Outcome(code="forward_missing", excerpt=excerpt)
                url, sender = ways[lease.consumer]
                outcome = await sender.deliver(msgspec.structs.replace(lease, url=url), delivery)
                # Nobody can register another URL here, nor resume the lane: it waits until the receiver is back.
                return msgspec.structs.replace(outcome, code="forward_gone") if outcome.status == 410 else outcome

            yield deliver

    def _sender(self, inbox: str, networks: tuple[Network, ...], clock: Callable[[], float]) -> "Sender":
        try:
            from fotahook.delivery.sender import Sender, SenderSettings
        except ModuleNotFoundError as error:
            raise ImportError(f"forwards need {error.name}: pip install 'fotahook[listener]'") from error
        settings = SenderSettings(
            secret_key=self.forwarding.key(inbox),
            timeout=self.forwarding.timeout,
            connect_timeout=min(SenderSettings(secret_key=b"").connect_timeout, self.forwarding.timeout),
            allowed_networks=networks,
            ca_file=self.forwarding.ca_file,
        )
        return Sender(settings, clock=clock, monotonic=time.monotonic)


def _set(name: str, values: Iterable[str] | None) -> frozenset[str] | None:
    return None if values is None else frozenset(validation.texts(name, values))

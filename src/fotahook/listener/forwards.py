"""Forwards: further receivers of the messages that arrive at the registered URL, each with its own lanes."""

import contextlib
import hashlib
import time
from collections.abc import AsyncIterator, Iterable
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

import msgspec

from fotahook.contract.addresses import EVERYWHERE, Network, parse_networks, url_refusal, without_password
from fotahook.contract.keys import account_signing_seed, signing_seed
from fotahook.contract.messages import CallbackMessage
from fotahook.contract.signing import format_public_key
from fotahook.delivery import Deliver, Outcome
from fotahook.store.records import Delivery, Lease

from . import validation
from .settings import Settings

_LOOPBACK: Final = parse_networks(("127.0.0.0/8", "::1/128"))


class Forward(msgspec.Struct, frozen=True):
    """One receiver and the messages it gets; None means all."""

    url: str
    consumer: str
    """The name of its lanes. It depends only on the URL, so that unsent messages wait for it across restarts."""
    types: frozenset[str] | None
    accounts: frozenset[str] | None

    def networks(self, allowed: tuple[Network, ...]) -> tuple[Network, ...]:
        """The networks it may be sent to: loopback only if the URL names this machine. ValueError if it is in none."""
        host = urlsplit(self.url).hostname or ""
        try:
            local = any(ip_address(host) in network for network in _LOOPBACK)
        except ValueError:
            local = host == "localhost"
        if self.url.startswith("http://") and not (local or allowed):
            raise ValueError(
                f"a forward to {without_password(self.url)} needs https://; http:// is only for this machine "
                "(localhost, 127.0.0.1) and for networks opened with --allow-network or allow_networks"
            )
        networks = allowed + (_LOOPBACK if local else ())
        if (why := url_refusal(self.url, allow_http=True, allowed=networks)) is not None:
            raise ValueError(f"a forward to {without_password(self.url)}: {why}")
        return networks


class Forwards:
    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._forwards: list[Forward] = []
        self.fake_deliver: Deliver | None = None

    def __len__(self) -> int:
        return len(self._forwards)

    def add(self, url: str, types: Iterable[str] | None, accounts: Iterable[str] | None) -> str:
        """Add a forward; its consumer. ValueError for an invalid URL. Forwards with the same URL share their lanes."""
        if (why := url_refusal(validation.text("url", url), allow_http=True, allowed=EVERYWHERE)) is not None:
            raise ValueError(f"a forward to {without_password(url)!r}: {why}")
        pairs = (("types", types), ("accounts", accounts))
        wanted = [None if given is None else frozenset(validation.texts(name, given)) for name, given in pairs]
        consumer = f"forward:{hashlib.sha256(url.encode()).hexdigest()[:16]}"
        self._forwards.append(Forward(url, consumer, *wanted))
        return consumer

    @property
    def urls(self) -> dict[str, str]:
        return {forward.consumer: forward.url for forward in self._forwards}

    def consumers(self, account: str, message: CallbackMessage) -> tuple[str, ...]:
        wanting = [
            forward.consumer
            for forward in self._forwards
            if (forward.types is None or message.kind in forward.types)
            and (forward.accounts is None or account in forward.accounts)
        ]
        return tuple(dict.fromkeys(wanting))

    def public_key(self, account: str | None) -> str | None:
        if not self._forwards:
            return None
        key = self.settings.forwarding.key(self.settings.inbox)
        return format_public_key(signing_seed(key) if account is None else account_signing_seed(key, account))

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[Deliver]:
        """Delivers to the forward of a lane. ValueError if a forward's address is not allowed."""
        if self.fake_deliver is not None:
            yield self.fake_deliver
            return
        try:
            from fotahook.delivery.sender import CONNECT_TIMEOUT, Sender, SenderSettings
        except ModuleNotFoundError as error:
            raise ImportError(f"forwards need {error.name}: pip install 'fotahook[listener]'") from error
        given, allowed = self.settings.forwarding, parse_networks(self.settings.forwarding.allow_networks)
        async with contextlib.AsyncExitStack() as stack:
            senders: dict[tuple[Network, ...], Sender] = {}
            targets: dict[str, tuple[str, Sender]] = {}
            for forward in self._forwards:
                networks = forward.networks(allowed)
                if networks not in senders:
                    settings = SenderSettings(
                        secret_key=given.key(self.settings.inbox),
                        timeout=given.timeout,
                        connect_timeout=min(CONNECT_TIMEOUT, given.timeout),
                        allowed_networks=networks,
                        ca_file=given.ca_file,
                    )
                    sender = Sender(settings, clock=self.settings.clock, monotonic=time.monotonic)
                    senders[networks] = await stack.enter_async_context(sender)
                targets[forward.consumer] = (forward.url, senders[networks])

            async def deliver(lease: Lease, delivery: Delivery) -> Outcome:
                if lease.consumer not in targets:
                    return Outcome(code="forward_missing", excerpt=f"no forward has the lane {lease.consumer}")
                url, sender = targets[lease.consumer]
                outcome = await sender.deliver(msgspec.structs.replace(lease, url=url), delivery)
                # 410 would pause the lane, and there is no way to resume it here. It waits and retries instead.
                return msgspec.structs.replace(outcome, code="forward_gone") if outcome.status == 410 else outcome

            yield deliver

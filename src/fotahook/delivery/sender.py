"""Makes attempts at deliveries over HTTPS. Every failure is an Outcome."""

import asyncio
import errno
import logging
import secrets
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final
from urllib.parse import quote

import msgspec

from fotahook.contract import signing
from fotahook.contract.addresses import Network
from fotahook.contract.errors import one_line
from fotahook.contract.exchange import Masked, retry_after
from fotahook.contract.keys import account_signing_key, account_signing_seed, signing_seed
from fotahook.contract.messages import CHALLENGE
from fotahook.contract.servers import parse_proxy
from fotahook.contract.version import VERSION
from fotahook.store.records import Delivery, Lease

from .connecting import Target, code_of_tls_error, encode_head, target_of, tls_context
from .http import HttpClient, Post
from .outcomes import DELIVERED, OUT_OF_FILES, Attempt, Outcome, code_of_status
from .resolver import BlockedAddress, Lookup, NameUnresolved, Resolver
from .response import ExchangeFailed, Response

log = logging.getLogger(__name__)

LANES: Final = 16_384
"""Lanes whose URL is parsed and vetted, and whose keys are derived, only once, as long as no more are in use."""
CONNECT_TIMEOUT: Final = 5.0
EXCERPT_LIMIT: Final = 1024
LOG_SECONDS: Final = 60.0
_FIXED_HEAD: Final = f"Content-Type: application/json\r\nUser-Agent: fotahook/{VERSION}\r\n"
_ERROR_CODES: Final = {
    BlockedAddress: "blocked_address",
    NameUnresolved: "dns_error",
    ConnectionRefusedError: "connection_refused",
    OSError: "connection_failed",
    ValueError: "url_invalid",
}
_TIMEOUT_CODES: Final = {
    "dns": "dns_error",
    "connect": "timeout_connect",
    "response": "timeout_response",
    "body": "response_too_slow",
}


class SenderSettings(Masked, frozen=True, kw_only=True):
    """What the sender needs to know. Durations are seconds."""

    shown = ("timeout", "connect_timeout")

    secret_key: bytes
    previous_key: bytes | None = None
    """The secret key before this one, which signs too while receivers change to the new keys."""
    service_signature: bool = True
    """Whether the service's own key signs besides the account's, for receivers that know only that one."""
    timeout: float = 15.0
    """For one attempt in all, the end of the response included."""
    connect_timeout: float = CONNECT_TIMEOUT
    """For a new connection in all: name look-up, every address and the TLS handshake."""
    allowed_networks: tuple[Network, ...] = ()
    allow_http: bool = True
    """Whether plain http:// URLs are used: not those that a service registered while it ran with ``--dev``."""
    ca_file: Path | None = None
    client_cert: Path | None = None
    egress_proxy: str | None = None
    """HTTP proxy (``http://[user:password@]host:port``) for all deliveries. It resolves the names, unvetted."""
    lookup: Lookup | None = None
    """Resolves names in place of the system's configuration."""


class Sender:
    """Delivers to registered callbacks. An asynchronous context manager that owns its connections."""

    def __init__(self, settings: SenderSettings, *, clock: Callable[[], float], monotonic: Callable[[], float]) -> None:
        self._settings = settings
        self._clock = clock
        self._monotonic = monotonic
        self._log_again_at = float("-inf")
        self._tls = tls_context(settings.ca_file, settings.client_cert)

    async def __aenter__(self) -> "Sender":
        settings = self._settings
        self._resolver = Resolver(settings.allowed_networks, lookup=settings.lookup, monotonic=self._monotonic)
        self._client = HttpClient(
            self._resolver,
            self._tls,
            self._outcome,
            clock=self._monotonic,
            timeout=settings.timeout,
            connect_timeout=settings.connect_timeout,
            proxy=parse_proxy(settings.egress_proxy) if settings.egress_proxy else None,
        )
        # Only allowed URLs are cached, and the settings that allow them do not change.
        self._lane = lru_cache(LANES)(self._make_lane)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._client.close()
        self._resolver.close()
        # A transport that is aborted closes its socket one turn of the loop later, one with TLS two.
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    def _target(self, url: str) -> Target:
        if not self._settings.allow_http and url.startswith("http://"):
            raise ValueError("http:// is only for services with --dev; register an https:// URL")
        return target_of(url, self._settings.allowed_networks)

    def _make_lane(self, url: str, account: str, key_ids: tuple[str, ...]) -> tuple[Target, str, signing.Sign]:
        settings, target = self._settings, self._target(url)
        secret_keys = [key for key in (settings.secret_key, settings.previous_key) if key]
        seeds = [account_signing_seed(each, account) for each in secret_keys]
        if settings.service_signature:
            seeds += [signing_seed(each) for each in secret_keys]
        keys = [account_signing_key(each, key_id) for each in secret_keys for key_id in key_ids]
        # Headers must be ASCII; account names need not be.
        head = f"{target.head}{_FIXED_HEAD}Fotahook-Account: {quote(account, safe='')}\r\n"
        return target, head, signing.signer(seeds=seeds, secrets=keys)

    def deliver(self, lease: Lease, delivery: Delivery) -> Attempt:
        """Send the message's bytes to the lane's callback, with one POST."""
        attempt, keys = delivery.attempts + delivery.strikes + 1, lease.signing_keys
        return self.send_signed(lease.url or "", delivery.account, keys, delivery.message, delivery.body, attempt)

    def send_signed(
        self, url: str, account: str, key_ids: tuple[str, ...], message_id: str, body: bytes, attempt: int = 1
    ) -> Attempt:
        """Send these bytes as a message for an account, signed by its keys, with one POST."""
        try:
            target, head, sign = self._lane(url, account, key_ids)
            timestamp = int(self._clock())
            head = (
                f"{head}Fotahook-Attempt: {attempt}\r\nwebhook-id: {message_id}\r\nwebhook-timestamp: {timestamp}\r\n"
                f"webhook-signature: {sign(message_id, timestamp, body)}\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            return self._client.post(target, head.encode("ascii"), body)
        except Exception as error:
            return _refused(url, error)

    def send(self, url: str, headers: Mapping[str, str], body: bytes) -> Attempt:
        """Send these bytes with one POST, with only these headers."""
        try:
            target = self._target(url)
            return self._client.post(target, encode_head(target.head, headers, len(body)), body)
        except Exception as error:
            return _refused(url, error)

    def _outcome(self, post: Post, found: Response | Exception) -> Outcome:
        url, phases, resent = post.target.url, post.phases, post.resent
        if post.first_byte is not None:
            phases["firstByte"] = round((post.first_byte - post.sent) * 1000, 3)
        post.note("total", post.start)
        if isinstance(found, Exception):
            code = _code_of_error(found, post.stage)
            if code == OUT_OF_FILES and self._monotonic() >= self._log_again_at:
                self._log_again_at = self._monotonic() + LOG_SECONDS
                log.error("no delivery can connect: %s. Raise the limit on open files (LimitNOFILE= of systemd)", found)
            excerpt = one_line(str(found), EXCERPT_LIMIT)
            return Outcome(code=code, url=url, phases=phases, excerpt=excerpt, resent=resent)
        code = code_of_status(found.status)
        return Outcome(
            code=code,
            status=found.status,
            url=url,
            retry_after=None if found.retry_after is None else retry_after(found.retry_after, self._clock()),
            phases=phases,
            excerpt=_excerpt(f"Location: {found.location or '(none)'}".encode() if code == "redirect" else found.body),
            resent=resent,
        )


async def challenge_receiver(
    url: str, account: str, key_ids: Sequence[str] = (), *, sender: SenderSettings
) -> str | None:
    """Why a receiver did not show that it wants the account's messages; None if it did. `key_ids`: the account's
    signing keys, which sign the challenge besides the account's ed25519 key."""
    value, message_id = secrets.token_urlsafe(24), f"challenge-{secrets.token_hex(8)}"
    body = msgspec.json.encode({"type": CHALLENGE, "accountName": account, "challenge": value})
    async with Sender(sender, clock=time.time, monotonic=time.monotonic) as challenger:
        outcome = await challenger.send_signed(url, account, tuple(key_ids), message_id, body)
    if outcome.code != DELIVERED:
        return f"it answered {outcome.status}" if outcome.status else f"the request failed: {outcome.code}"
    return None if value in outcome.excerpt else "its answer does not contain the challenge"


@lru_cache(64)
def _excerpt(body: bytes) -> str:
    return one_line(body.decode("utf-8", "replace"), EXCERPT_LIMIT)


def _refused(url: str, error: Exception) -> Attempt:
    refused, why = Attempt(), one_line(str(error), EXCERPT_LIMIT)
    refused.end(Outcome(code=_code_of_error(error), url=url, phases={"total": 0.0}, excerpt=why))
    return refused


def _code_of_error(error: Exception, stage: str = "connect") -> str:
    """The error code for an exchange without a response, which ended at this stage."""
    match error:
        case ExchangeFailed():
            return error.code
        case ssl.SSLError():
            return code_of_tls_error(error)
        case OSError(errno=errno.EMFILE | errno.ENFILE):
            return OUT_OF_FILES
        case TimeoutError(errno=None):
            return _TIMEOUT_CODES[stage]
    for kind, code in _ERROR_CODES.items():
        if isinstance(error, kind):
            return code
    log.error("a delivery failed in fotahook itself", exc_info=error)
    return "internal_error"

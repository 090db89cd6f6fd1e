"""Makes one attempt at one delivery over HTTPS. It never raises: every failure is an Outcome."""

import asyncio
import errno
import logging
import ssl
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Final
from urllib.parse import quote

from fotahook.contract import signing
from fotahook.contract.addresses import Network
from fotahook.contract.error_responses import one_line
from fotahook.contract.exchange import Masked, retry_after
from fotahook.contract.keys import account_signing_key, account_signing_seed, signing_seed
from fotahook.contract.proxy import parse_proxy
from fotahook.contract.version import VERSION
from fotahook.store.records import Delivery, Lease

from .connection import ExchangeFailed, Response
from .deadline import Deadline
from .http import HttpClient, Target, target_of
from .outcomes import OUT_OF_FILES, Outcome, code_of_status
from .resolver import BlockedAddress, Lookup, NameUnresolved, Resolver
from .timing import Timing
from .tls import code_of_tls_error, tls_context

log = logging.getLogger(__name__)

TARGETS: Final = 4096
"""URLs that are parsed and vetted only once, as long as no more than these are in use."""
CONNECT_TIMEOUT: Final = 5.0
EXCERPT_LIMIT: Final = 1024
"""Characters of a response that history keeps."""
LOG_SECONDS: Final = 60.0
"""Between two log lines about this process's own trouble."""
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
    """Authorities trusted besides the system's."""
    client_cert: Path | None = None
    """Certificate and key (PEM, one file) shown to receivers that ask for one."""
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
        self._keys = lru_cache(TARGETS)(lambda account, key_ids: _keys(settings, account, key_ids))
        self._deadline = Deadline(settings.timeout)
        self._log_again_at = float("-inf")
        self._tls = tls_context(settings.ca_file, settings.client_cert)

    async def __aenter__(self) -> "Sender":
        settings = self._settings
        self._resolver = Resolver(settings.allowed_networks, lookup=settings.lookup, monotonic=self._monotonic)
        self._client = HttpClient(
            self._resolver,
            self._tls,
            connect_timeout=settings.connect_timeout,
            proxy=parse_proxy(settings.egress_proxy) if settings.egress_proxy else None,
        )
        # Only allowed URLs are cached, and the settings that allow them do not change.
        self._target = lru_cache(TARGETS)(self._vetted)
        return self

    def _vetted(self, url: str) -> Target:
        if not self._settings.allow_http and url.startswith("http://"):
            raise ValueError("http:// is only for services with --dev; register an https:// URL")
        return target_of(url, self._settings.allowed_networks)

    async def __aexit__(self, *_: object) -> None:
        self._client.close()
        self._resolver.close()
        # A transport that is aborted closes its socket one turn of the loop later, one with TLS two.
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    async def deliver(self, lease: Lease, delivery: Delivery) -> Outcome:
        """Send the message's bytes to the lane's callback, with one POST."""
        attempt = delivery.attempts + delivery.strikes + 1
        headers = self.headers(delivery.message, delivery.account, delivery.body, lease.signing_keys, attempt)
        # Attempts that start together are all signed before the first is sent, which is faster than alternating.
        await asyncio.sleep(0)
        return await self.send(lease.url or "", headers, delivery.body)

    async def send(self, url: str, headers: dict[str, str], body: bytes) -> Outcome:
        """Send these bytes with one POST, with only these headers."""
        timing = Timing(self._monotonic)
        response: Response | None = None
        try:
            with self._deadline:
                response = await self._client.post(self._target(url), headers, body, timing)
        except (ExchangeFailed, OSError, ValueError, TimeoutError) as error:
            code, excerpt = _code_of_error(error, timing), str(error)
            if code == OUT_OF_FILES:
                self._log_exhaustion(str(error))
        else:
            code = code_of_status(response.status)
            redirected = f"Location: {response.location or '(none)'}"
            excerpt = redirected if code == "redirect" else response.body.decode("utf-8", "replace")
        return Outcome(
            code=code,
            status=response.status if response else None,
            url=url,
            retry_after=retry_after(response.retry_after, self._clock()) if response else None,
            phases=timing.phases(),
            excerpt=one_line(excerpt, EXCERPT_LIMIT),
            resent=timing.resent,
        )

    def _log_exhaustion(self, reason: str) -> None:
        now = self._monotonic()
        if now >= self._log_again_at:
            self._log_again_at = now + LOG_SECONDS
            log.error("no delivery can connect: %s. Raise the limit on open files (LimitNOFILE= of systemd)", reason)

    def headers(
        self, message_id: str, account: str, body: bytes, key_ids: tuple[str, ...], attempt: int = 1
    ) -> dict[str, str]:
        """The headers of a message for an account, with signatures by the account's keys."""
        timestamp = int(self._clock())
        signed = (message_id, timestamp, body)
        seeds, keys = self._keys(account, key_ids)
        signatures = [
            *(signing.sign_ed25519(seed, *signed) for seed in seeds),
            *(signing.sign_hmac(key, *signed) for key in keys),
        ]
        return {
            "Content-Type": "application/json",
            "User-Agent": f"fotahook/{VERSION}",
            # Headers must be ASCII; account names need not be.
            "Fotahook-Account": quote(account, safe=""),
            "Fotahook-Attempt": str(attempt),
            **signing.headers(message_id, timestamp, signatures),
        }


def _keys(settings: SenderSettings, account: str, key_ids: tuple[str, ...]) -> tuple[list[bytes], list[bytes]]:
    """The ed25519 seeds and the HMAC keys that sign the deliveries of an account."""
    secret_keys = [settings.secret_key, *([settings.previous_key] if settings.previous_key else [])]
    seeds = [account_signing_seed(each, account) for each in secret_keys]
    if settings.service_signature:
        seeds += [signing_seed(each) for each in secret_keys]
    return seeds, [account_signing_key(each, key_id) for each in secret_keys for key_id in key_ids]


def _code_of_error(error: Exception, timing: Timing) -> str:
    """The error code for an exchange without a response."""
    match error:
        case ExchangeFailed():
            return error.code
        case BlockedAddress():
            return "blocked_address"
        case NameUnresolved():
            return "dns_error"
        case ssl.SSLError():
            return code_of_tls_error(error)
        case ConnectionRefusedError():
            return "connection_refused"
        case OSError(errno=errno.EMFILE | errno.ENFILE):
            return OUT_OF_FILES
        case TimeoutError() if error.errno is None:
            return _TIMEOUT_CODES[timing.phase]
        case OSError():
            return "connection_failed"
    return "url_invalid"

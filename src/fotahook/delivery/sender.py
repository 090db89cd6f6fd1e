"""Makes attempts at deliveries over HTTPS. Every failure is an Outcome."""

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
from fotahook.contract.errors import one_line
from fotahook.contract.exchange import Masked, retry_after
from fotahook.contract.keys import account_signing_key, account_signing_seed, signing_seed
from fotahook.contract.servers import parse_proxy
from fotahook.contract.version import VERSION
from fotahook.store.records import Delivery, Lease

from .http import HttpClient, Post, Target, encode_head, target_of
from .outcomes import OUT_OF_FILES, Outcome, code_of_status
from .resolver import BlockedAddress, Lookup, NameUnresolved, Resolver
from .response import ExchangeFailed, Response
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
        self._log_again_at = float("-inf")
        self._tls = tls_context(settings.ca_file, settings.client_cert)

    async def __aenter__(self) -> "Sender":
        settings = self._settings
        self._resolver = Resolver(settings.allowed_networks, lookup=settings.lookup, monotonic=self._monotonic)
        self._client = HttpClient(
            self._resolver,
            self._tls,
            clock=self._monotonic,
            timeout=settings.timeout,
            connect_timeout=settings.connect_timeout,
            proxy=parse_proxy(settings.egress_proxy) if settings.egress_proxy else None,
        )
        # Only allowed URLs are cached, and the settings that allow them do not change.
        self._target = lru_cache(TARGETS)(self._vetted)
        self._fixed_head = lru_cache(TARGETS)(self._make_fixed_head)
        return self

    def _vetted(self, url: str) -> Target:
        if not self._settings.allow_http and url.startswith("http://"):
            raise ValueError("http:// is only for services with --dev; register an https:// URL")
        return target_of(url, self._settings.allowed_networks)

    def _make_fixed_head(self, url: str, account: str) -> str:
        lines = [f"{name}: {value}\r\n" for name, value in _fixed_headers(account).items()]
        return "".join([self._target(url).head, *lines])

    async def __aexit__(self, *_: object) -> None:
        self._client.close()
        self._resolver.close()
        # A transport that is aborted closes its socket one turn of the loop later, one with TLS two.
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    def deliver(self, lease: Lease, delivery: Delivery) -> asyncio.Future[Outcome]:
        """Send the message's bytes to the lane's callback, with one POST."""
        url, message_id, body = lease.url or "", delivery.message, delivery.body
        try:
            fixed = self._fixed_head(url, delivery.account)
            timestamp = int(self._clock())
            signature = self._sign(delivery.account, lease.signing_keys, message_id, timestamp, body)
            head = (
                f"{fixed}Fotahook-Attempt: {delivery.attempts + delivery.strikes + 1}\r\nwebhook-id: {message_id}\r\n"
                f"webhook-timestamp: {timestamp}\r\nwebhook-signature: {signature}\r\n"
                f"Content-Length: {len(body)}\r\n\r\n"
            )
            return self._client.post(self._target(url), head.encode("ascii"), body, self._outcome)
        except (OSError, ValueError) as error:
            return self._refused(url, error)

    def send(self, url: str, headers: dict[str, str], body: bytes) -> asyncio.Future[Outcome]:
        """Send these bytes with one POST, with only these headers."""
        try:
            target = self._target(url)
            return self._client.post(target, encode_head(target.head, headers, len(body)), body, self._outcome)
        except (OSError, ValueError) as error:
            return self._refused(url, error)

    def _refused(self, url: str, error: OSError | ValueError) -> asyncio.Future[Outcome]:
        done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        done.set_result(self._failure(url, error, Timing(self._monotonic)))
        return done

    def _outcome(self, post: Post, found: Response | Exception) -> Outcome:
        if isinstance(found, Exception):
            return self._failure(post.target.url, found, post.timing)
        code, location = code_of_status(found.status), found.location
        return Outcome(
            code=code,
            status=found.status,
            url=post.target.url,
            retry_after=None if found.retry_after is None else retry_after(found.retry_after, self._clock()),
            phases=post.timing.phases(),
            excerpt=_excerpt(f"Location: {location or '(none)'}".encode() if code == "redirect" else found.body),
            resent=post.timing.resent,
        )

    def _failure(self, url: str, error: Exception, timing: Timing) -> Outcome:
        code = _code_of_error(error, timing)
        if code == OUT_OF_FILES:
            self._log_exhaustion(str(error))
        excerpt = one_line(str(error), EXCERPT_LIMIT)
        return Outcome(code=code, url=url, phases=timing.phases(), excerpt=excerpt, resent=timing.resent)

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
        signature = self._sign(account, key_ids, message_id, timestamp, body)
        signed = signing.headers(message_id, timestamp, [signature])
        return {**_fixed_headers(account), "Fotahook-Attempt": str(attempt), **signed}

    def _sign(self, account: str, key_ids: tuple[str, ...], message_id: str, timestamp: int, body: bytes) -> str:
        seeds, keys = self._keys(account, key_ids)
        return signing.sign(message_id, timestamp, body, seeds=seeds, secrets=keys)


def _fixed_headers(account: str) -> dict[str, str]:
    return {
        "Content-Type": "application/json",
        "User-Agent": f"fotahook/{VERSION}",
        # Headers must be ASCII; account names need not be.
        "Fotahook-Account": quote(account, safe=""),
    }


@lru_cache(64)
def _excerpt(body: bytes) -> str:
    return one_line(body.decode("utf-8", "replace"), EXCERPT_LIMIT)


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

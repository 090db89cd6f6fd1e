"""One attempt at a delivery over HTTPS. It never raises: every failure is an Outcome."""

import asyncio
import math
import ssl
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from functools import lru_cache
from pathlib import Path
from typing import Final
from urllib.parse import quote

import aiohttp
import msgspec
from aiohttp.http import HttpProcessingError

from fotahook.contract import signing
from fotahook.contract.addresses import Network
from fotahook.contract.error_responses import one_line
from fotahook.contract.keys import account_signing_key, signing_seed
from fotahook.contract.version import VERSION
from fotahook.store.records import Delivery, Lease

from . import timing
from .deadline import Deadline
from .exchange import post, target_of
from .outcomes import Outcome, code_of_status
from .resolver import BlockedAddress, VettingResolver

TARGETS: Final = 4096
"""URLs, and keys, that are cached."""
CONNECT_TIMEOUT: Final = 5.0
EXCERPT_LIMIT: Final = 1024
"""Characters of a response that are kept in the history."""


class SenderSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of a sender. Durations are in seconds."""

    secret_key: bytes
    timeout: float = 15.0
    """For one whole attempt, up to the end of the response."""
    connect_timeout: float = CONNECT_TIMEOUT
    """For connecting, with the TLS handshake."""
    allowed_networks: tuple[Network, ...] = ()
    ca_file: Path | None = None
    """Certificate authorities that are trusted besides the system's."""
    client_cert: Path | None = None
    """Client certificate and key (PEM, one file) for receivers that request one."""

    def __repr__(self) -> str:
        return f"<SenderSettings timeout={self.timeout} connect_timeout={self.connect_timeout}>"


class Sender:
    """Delivers to registered callbacks. An async context manager that owns its connections."""

    def __init__(self, settings: SenderSettings, *, clock: Callable[[], float], monotonic: Callable[[], float]) -> None:
        self._settings = settings
        self._clock = clock
        self._monotonic = monotonic
        self._seed = signing_seed(settings.secret_key)
        self._account_key = lru_cache(TARGETS)(lambda key_id: account_signing_key(settings.secret_key, key_id))
        self._deadline = Deadline(settings.timeout)
        self._tls = tls_context(settings.ca_file, settings.client_cert)
        self._connecting = aiohttp.ClientTimeout(total=None, sock_connect=settings.connect_timeout)

    async def __aenter__(self) -> "Sender":
        self._connector = timing.TimedConnector(
            resolver=VettingResolver(self._settings.allowed_networks),
            ssl=self._tls,
            # The dispatcher limits concurrency, for all lanes and for each.
            limit=0,
        )
        loop = asyncio.get_running_loop()
        # Only allowed URLs are cached, and the settings that allow them do not change.
        self._target = lru_cache(TARGETS)(lambda url: target_of(url, self._settings.allowed_networks, loop))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._connector.close()

    async def deliver(self, lease: Lease, delivery: Delivery) -> Outcome:
        """Send the message's bytes to the lane's callback, with one POST."""
        headers = self._headers(lease, delivery)
        # Attempts that start together are all signed before the first is sent, which is faster than alternating.
        await asyncio.sleep(0)
        return await self.send(lease.url or "", headers, delivery.body)

    async def send(self, url: str, headers: dict[str, str], body: bytes) -> Outcome:
        """Send these bytes with one POST, with only these headers."""
        exchange = timing.Timing(self._monotonic)
        timing.current.set(exchange)
        try:
            with self._deadline:
                outcome = await self._post_with_resend(url, headers, body, exchange)
        except (aiohttp.ClientError, HttpProcessingError, OSError, ValueError, TimeoutError) as error:
            # The connector's error says little; the operating system's says what happened.
            cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
            excerpt = one_line(str(cause), EXCERPT_LIMIT)
            outcome = Outcome(code=_code_of_error(error, exchange), excerpt=excerpt)
        return msgspec.structs.replace(outcome, url=url, phases=exchange.phases(), resent=exchange.resent)

    async def _post_with_resend(
        self, url: str, headers: dict[str, str], body: bytes, exchange: timing.Timing
    ) -> Outcome:
        try:
            return await self._post(url, headers, body, exchange)
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
            # The receiver may have closed a reused connection while the request was in transit, which is no failure.
            # So the request is sent again: once, and only before the first byte of a response.
            if (
                not exchange.reused
                or exchange.happened("first_byte")
                or isinstance(error, aiohttp.ClientConnectorError)
            ):
                raise
            exchange.resend()
            return await self._post(url, headers, body, exchange)

    async def _post(self, url: str, headers: dict[str, str], body: bytes, exchange: timing.Timing) -> Outcome:
        response = await post(self._connector, self._target(url), headers, body, self._connecting, exchange)
        code = code_of_status(response.status)
        excerpt = response.body.decode("utf-8", "replace")
        if code == "redirect":
            excerpt = f"Location: {response.headers.get('Location', '(none)')}"
        return Outcome(
            code=code,
            status=response.status,
            retry_after=_retry_after(response.headers.get("Retry-After"), self._clock()),
            excerpt=one_line(excerpt, EXCERPT_LIMIT),
        )

    def _headers(self, lease: Lease, delivery: Delivery) -> dict[str, str]:
        timestamp = int(self._clock())
        signed = (delivery.message, timestamp, delivery.body)
        signatures = [
            signing.sign_ed25519(self._seed, *signed),
            *(signing.sign_hmac(self._account_key(key_id), *signed) for key_id in lease.signing_keys),
        ]
        return {
            "Content-Type": "application/json",
            "User-Agent": f"fotahook/{VERSION}",
            # Headers must be ASCII; account names need not be.
            "Fotahook-Account": quote(delivery.account, safe=""),
            "Fotahook-Attempt": str(delivery.attempts + delivery.strikes + 1),
            **signing.headers(delivery.message, timestamp, signatures),
        }


def _code_of_error(error: Exception, exchange: timing.Timing) -> str:
    """The error code of an exception, the most specific first."""
    match error:
        case aiohttp.ClientConnectorDNSError(os_error=BlockedAddress()) | BlockedAddress():
            return "blocked_address"
        case aiohttp.ClientConnectorDNSError():
            return "dns_error"
        case aiohttp.ClientConnectorCertificateError():
            return _code_of_certificate(error.certificate_error)
        case aiohttp.ClientConnectorSSLError():
            return "tls_failed"
        case aiohttp.ClientConnectorError(os_error=ConnectionRefusedError()):
            return "connection_refused"
        case aiohttp.ClientConnectorError():
            return "connection_failed"
        case TimeoutError():
            return _code_of_timeout(exchange)
        case aiohttp.ClientPayloadError():
            return "response_cut_off"
        case HttpProcessingError():
            return "response_invalid"
        case ValueError():
            return "url_invalid"
    return "connection_lost"


def _code_of_timeout(exchange: timing.Timing) -> str:
    if exchange.happened("first_byte"):
        return "response_too_slow"
    connected = exchange.happened("connected") or exchange.reused
    return "timeout_response" if connected else "timeout_connect"


def _code_of_certificate(error: Exception) -> str:
    # OpenSSL's X509_V_ERR_* numbers.
    code = getattr(error, "verify_code", None)
    return {10: "tls_expired", 62: "tls_wrong_host", 64: "tls_wrong_host"}.get(code or 0, "tls_untrusted")


def _retry_after(text: str | None, now: float) -> float | None:
    """The seconds of a Retry-After header, which has a number or a date. None if it is missing or invalid."""
    if text is None:
        return None
    try:
        seconds = float(text) if text.isdigit() else parsedate_to_datetime(text).timestamp() - now
    except (ValueError, OverflowError):
        return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def tls_context(ca_file: Path | None, client_cert: Path | None) -> ssl.SSLContext:
    """TLS 1.2 or above, trusting the system's authorities and those of a file."""
    context = timing.TimedContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_default_certs()
    if ca_file is not None:
        context.load_verify_locations(ca_file)
    if client_cert is not None:
        context.load_cert_chain(client_cert)
    return context

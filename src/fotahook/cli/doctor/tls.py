"""What `fotahook doctor` sees of TLS: trust, dates and host name each by itself, so that one fault hides no other.

A sender's handshake stops at the first thing that is wrong. Here there are several: one that verifies nothing shows the
certificates, and each of the others has only one thing to verify, by OpenSSL as in earnest.
"""

import _ssl
import asyncio
import ssl
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from fotahook.delivery.outcomes import FIXES
from fotahook.delivery.sender import SenderSettings, tls_context

from .findings import Check, Place, failed, passed, warned

DAYS_LEFT: Final = 21
"""A certificate that renews itself has more left than this: those of 90 days are renewed at 30, or a third of them."""
_DAY: Final = 86400.0
_MOST_NAMES: Final = 5

_NO_CHECK_TIME: Final = 0x200000
"""OpenSSL's X509_V_FLAG_NO_CHECK_TIME: dates are read from the certificates instead."""
_SELF_SIGNED: Final = 18
_UNKNOWN_ISSUER: Final = frozenset({2, 20, 21})
"""OpenSSL's X509_V_ERR_* numbers, when there is no certificate of the next issuer."""


class Shown(msgspec.Struct, frozen=True):
    """What a handshake showed. `verified` are the certificates up to the trusted one, where trust was verified."""

    protocol: str
    sent: tuple[x509.Certificate, ...]
    verified: tuple[x509.Certificate, ...] = ()


class Trust(msgspec.Struct, frozen=True):
    """Whether a chain leads to a trusted authority, and by which certificates."""

    check: Check
    chain: tuple[x509.Certificate, ...]


async def check_tls(place: Place, address: str, settings: SenderSettings, *, now: float) -> list[Check]:
    """Protocol, trust, dates and host name of the receiver at an address."""
    shaking = Handshakes(place, address, settings)
    try:
        shown = await shaking.look()
        trust = await _check_trust(shaking, shown, settings.ca_file)
        return [
            passed("tls", shown.protocol),
            trust.check,
            _check_dates(trust.chain, now),
            await _check_host(shaking, shown, place),
        ]
    except TimeoutError:
        found = f"no TLS connection within {settings.connect_timeout:g} s"
        return [failed("tls", found, "Check that the port speaks TLS, and the load of the receiver.")]
    except OSError as error:
        return [failed("tls", f"no TLS connection: {_reason(error)}", FIXES["tls_failed"])]
    except ValueError as error:
        return [failed("tls", f"the certificate cannot be read: {error}", "Install one that follows the standard.")]


class Handshakes:
    """TLS handshakes with one receiver, each verifying something else."""

    def __init__(self, place: Place, address: str, settings: SenderSettings) -> None:
        self._place = place
        self._address = address
        self._settings = settings

    async def look(self) -> Shown:
        """Verify nothing."""
        context = tls_context(None, self._settings.client_cert)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return await self._shake(context)

    async def trust(self, ca_file: Path | None) -> Shown:
        """Verify that the chain leads to an authority of the system's or of a file."""
        context = tls_context(ca_file, self._settings.client_cert)
        context.check_hostname = False
        context.verify_flags |= ssl.VerifyFlags(_NO_CHECK_TIME)
        return await self._shake(context)

    async def host(self, certificate: x509.Certificate) -> Shown:
        """Verify that this certificate is for the host: it is trusted for that."""
        context = tls_context(None, self._settings.client_cert)
        context.load_verify_locations(cadata=certificate.public_bytes(Encoding.DER))
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VerifyFlags(_NO_CHECK_TIME)
        return await self._shake(context)

    async def _shake(self, context: ssl.SSLContext) -> Shown:
        async with asyncio.timeout(self._settings.connect_timeout):
            _, writer = await asyncio.open_connection(
                self._address, self._place.port, ssl=context, server_hostname=self._place.host
            )
        try:
            made: ssl.SSLObject = writer.get_extra_info("ssl_object")
            verified = _certificates(made, verified=True) if context.verify_mode is ssl.CERT_REQUIRED else ()
            return Shown(made.version() or "", _certificates(made, verified=False), verified)
        finally:
            writer.transport.abort()


async def _check_trust(shaking: Handshakes, shown: Shown, ca_file: Path | None) -> Trust:
    leaf = shown.sent[0]
    sent = f"{len(shown.sent)} certificate{'s' if len(shown.sent) > 1 else ''} sent"
    try:
        chain = (await shaking.trust(None)).verified
        return Trust(passed("trust", f"{sent}, up to {_name(chain[-1].subject)}"), chain)
    except ssl.SSLCertVerificationError as error:
        refused = error
    if ca_file is not None:
        try:
            chain = (await shaking.trust(ca_file)).verified
            found = f"{sent}, up to {_name(chain[-1].subject)}, which is trusted through --ca-file alone"
            fix = "A service of your own with the same --ca-file accepts it; ThingSpace asks for a public authority."
            return Trust(warned("trust", found, fix), chain)
        except ssl.SSLCertVerificationError as error:
            refused = error
    return Trust(_distrusted(refused.verify_code, refused.verify_message, shown.sent, sent), (leaf,))


def _distrusted(code: int, message: str, chain: tuple[x509.Certificate, ...], sent: str) -> Check:
    last = chain[-1]
    if code == _SELF_SIGNED:
        return failed(
            "trust",
            f"the certificate is self-signed, by {_name(last.subject)}",
            "Install one of a public authority: ThingSpace takes no self-signed one. A service of your own can be "
            "told to trust it with --ca-file.",
        )
    if code in _UNKNOWN_ISSUER and last.issuer != last.subject:
        return failed(
            "trust",
            f"the chain is incomplete: {sent}, and {_name(last.issuer)}, which issued the last, is neither sent nor "
            "trusted",
            "Install the certificate with its intermediates, often a file called fullchain.pem. If the authority is "
            "your own, give it with --ca-file.",
        )
    return failed("trust", f"{message}; {sent}, up to {_name(last.issuer)}", FIXES["tls_untrusted"])


def _check_dates(chain: Iterable[x509.Certificate], now: float) -> Check:
    """Of the certificate that ends first."""
    first = min(chain, key=lambda certificate: certificate.not_valid_after_utc)
    begins, ends = first.not_valid_before_utc, first.not_valid_after_utc
    left = (ends.timestamp() - now) / _DAY
    whose = f"{_name(first.subject)}, issued by {_name(first.issuer)}"
    if left <= 0:
        return failed("validity", f"expired on {_day(ends)}: {whose}", FIXES["tls_expired"])
    if now < begins.timestamp():
        fix = "Wait until then, or install one that is valid now; check the clocks of both sides."
        return failed("validity", f"not valid before {begins:%Y-%m-%d %H:%M} UTC: {whose}", fix)
    found = f"{int(left)} days left, until {_day(ends)}"
    if left < DAYS_LEFT:
        fix = "Renew it now, and see why that was not done by itself: from that day on nothing is delivered."
        return warned("validity", f"{found}: {whose}", fix)
    return passed("validity", found)


async def _check_host(shaking: Handshakes, shown: Shown, place: Place) -> Check:
    leaf = shown.sent[0]
    try:
        await shaking.host(leaf)
    except ssl.SSLCertVerificationError:
        return failed("host", f"the certificate is for {_names(leaf)}, not for {place.host}", FIXES["tls_wrong_host"])
    return passed("host", f"the certificate is for {place.host}")


def _names(certificate: x509.Certificate) -> str:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return "no host name at all"
    names = [str(getattr(name, "value", name)) for name in found]
    return ", ".join(names[:_MOST_NAMES]) + (" …" if len(names) > _MOST_NAMES else "")


def _name(name: x509.Name) -> str:
    """The common name, or all of it where there is none."""
    common = name.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(common[0].value) if common else name.rfc4514_string() or "(no name)"


def _day(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d}"


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.replace("_", " ").lower()
    return error.strerror or str(error) or type(error).__name__


def _certificates(made: ssl.SSLObject, *, verified: bool) -> tuple[x509.Certificate, ...]:
    chain: Iterable[bytes]
    if sys.version_info >= (3, 13):
        chain = made.get_verified_chain() if verified else made.get_unverified_chain()
    else:
        # The same, before it was made public.
        inner = made._sslobj  # type: ignore[attr-defined]  # that is how it is called there
        found = inner.get_verified_chain() if verified else inner.get_unverified_chain()
        chain = (certificate.public_bytes(_ssl.ENCODING_DER) for certificate in found)
    return tuple(x509.load_der_x509_certificate(certificate) for certificate in chain)

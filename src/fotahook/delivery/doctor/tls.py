"""TLS checks. Trust, dates and host name are verified separately, so no fault hides another.

A sender's handshake stops at the first fault. Here one handshake verifies nothing and reads the certificates; each of
the others verifies one thing, by OpenSSL as in a delivery.
"""

import _ssl
import asyncio
import ssl
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final, TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from fotahook.contract.operator import Check
from fotahook.delivery.outcomes import FIXES
from fotahook.delivery.tls import tls_context

from .checks import Target, failed, passed, warned

MIN_DAYS_LEFT: Final = 21
"""Automatic renewal comes earlier: certificates of 90 days are renewed at 30, or at a third of their lifetime."""
_DAY: Final = 86400.0
_MAX_NAMES: Final = 5

_NO_CHECK_TIME: Final = ssl.VerifyFlags(0x200000)
"""OpenSSL's X509_V_FLAG_NO_CHECK_TIME: dates are read from the certificates instead."""
_SELF_SIGNED: Final = 18
_UNKNOWN_ISSUER: Final = frozenset({2, 20, 21})
"""OpenSSL's X509_V_ERR_* codes for a missing issuer certificate."""

Chain: TypeAlias = tuple[x509.Certificate, ...]


async def check_tls(target: Target, address: str, *, now: float) -> list[Check]:
    """Protocol, trust, dates and host name of the receiver at an address."""
    try:
        context = _context(target, check_hostname=False)
        context.verify_mode = ssl.CERT_NONE
        protocol, sent = await _shake_hands(target, address, context)
        chain, trust = await _check_trust(target, address, sent)
        host = await _check_host(target, address, sent[0])
        return [passed("tls", protocol), trust, _check_dates(chain, now), host]
    except TimeoutError:
        found = f"no TLS connection within {target.sender.connect_timeout:g} s"
        return [failed("tls", found, "Check that the port speaks TLS, and the load of the receiver.")]
    except OSError as error:
        return [failed("tls", f"no TLS connection: {_reason(error)}", FIXES["tls_failed"])]
    except ValueError as error:
        fix = "Install a certificate that follows the standard."
        return [failed("tls", f"the certificate cannot be read: {error}", fix)]


def _context(target: Target, *, ca_file: Path | None = None, check_hostname: bool) -> ssl.SSLContext:
    context = tls_context(ca_file, target.sender.client_cert)
    context.check_hostname = check_hostname
    context.verify_flags |= _NO_CHECK_TIME
    return context


async def _shake_hands(target: Target, address: str, context: ssl.SSLContext) -> tuple[str, Chain]:
    """The protocol, and the certificates: those that lead to a trusted one if the context verifies, else what came."""
    async with asyncio.timeout(target.sender.connect_timeout):
        _, writer = await asyncio.open_connection(address, target.origin.port, ssl=context, server_hostname=target.host)
    try:
        connection: ssl.SSLObject = writer.get_extra_info("ssl_object")
        return connection.version() or "", _certificates(connection, context.verify_mode is ssl.CERT_REQUIRED)
    finally:
        writer.transport.abort()


async def _check_trust(target: Target, address: str, sent: Chain) -> tuple[Chain, Check]:
    """The chain to check the dates of, and whether it leads to an authority of the system's or of --ca-file."""
    count = f"{len(sent)} certificate{'s' if len(sent) > 1 else ''} sent"
    chain = await _verified_chain(target, address, ca_file=None)
    if isinstance(chain, tuple):
        return chain, passed("trust", f"{count}, up to {_name(chain[-1].subject)}")
    if target.sender.ca_file is not None:
        chain = await _verified_chain(target, address, ca_file=target.sender.ca_file)
    if isinstance(chain, tuple):
        found = f"{count}, up to {_name(chain[-1].subject)}, which is trusted through --ca-file alone"
        fix = "Your own service accepts it with the same --ca-file; ThingSpace requires a public authority."
        return chain, warned("trust", found, fix)
    return sent[:1], _untrusted(chain.verify_code, chain.verify_message, sent[-1], count)


async def _verified_chain(
    target: Target, address: str, *, ca_file: Path | None
) -> Chain | ssl.SSLCertVerificationError:
    try:
        return (await _shake_hands(target, address, _context(target, ca_file=ca_file, check_hostname=False)))[1]
    except ssl.SSLCertVerificationError as error:
        return error


def _untrusted(code: int, message: str, last: x509.Certificate, count: str) -> Check:
    found, fix = f"{message}; {count}, up to {_name(last.issuer)}", FIXES["tls_untrusted"]
    if code == _SELF_SIGNED:
        found = f"the certificate is self-signed, by {_name(last.subject)}"
        fix = "Install one from a public authority: ThingSpace accepts no self-signed ones. Your own service trusts it "
        fix += "with --ca-file."
    elif code in _UNKNOWN_ISSUER and last.issuer != last.subject:
        found = f"the chain is incomplete: {count}, and {_name(last.issuer)}, which issued the last, is neither sent "
        found += "nor trusted"
        fix = "Install the certificate with its intermediates, often a file called fullchain.pem. If the authority is "
        fix += "your own, give it with --ca-file."
    return failed("trust", found, fix)


def _check_dates(chain: Chain, now: float) -> Check:
    first = min(chain, key=lambda certificate: certificate.not_valid_after_utc)
    begins, ends = first.not_valid_before_utc, first.not_valid_after_utc
    days_left = (ends.timestamp() - now) / _DAY
    whose = f"{_name(first.subject)}, issued by {_name(first.issuer)}"
    if days_left <= 0:
        return failed("validity", f"expired on {ends:%Y-%m-%d}: {whose}", FIXES["tls_expired"])
    if now < begins.timestamp():
        fix = "Wait until then, or install one that is valid now; check the clocks of both sides."
        return failed("validity", f"not valid before {begins:%Y-%m-%d %H:%M} UTC: {whose}", fix)
    found = f"{int(days_left)} days left, until {ends:%Y-%m-%d}"
    if days_left < MIN_DAYS_LEFT:
        fix = "Renew it now, and find out why it was not renewed automatically: after that day nothing is delivered."
        return warned("validity", f"{found}: {whose}", fix)
    return passed("validity", found)


async def _check_host(target: Target, address: str, leaf: x509.Certificate) -> Check:
    """Whether the certificate, trusted for this handshake, is for the host."""
    context = _context(target, check_hostname=True)
    context.load_verify_locations(cadata=leaf.public_bytes(Encoding.DER))
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        await _shake_hands(target, address, context)
    except ssl.SSLCertVerificationError:
        return failed("host", f"the certificate is for {_names(leaf)}, not for {target.host}", FIXES["tls_wrong_host"])
    return passed("host", f"the certificate is for {target.host}")


def _names(certificate: x509.Certificate) -> str:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return "no host name at all"
    texts = [str(getattr(name, "value", name)) for name in names]
    return ", ".join(texts[:_MAX_NAMES]) + (" …" if len(texts) > _MAX_NAMES else "")


def _name(name: x509.Name) -> str:
    """The common name, or the whole name if it has none."""
    common = name.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(common[0].value) if common else name.rfc4514_string() or "(no name)"


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.replace("_", " ").lower()
    return error.strerror or str(error) or type(error).__name__


def _certificates(connection: ssl.SSLObject, verified: bool) -> Chain:
    chain: Iterable[bytes]
    if sys.version_info >= (3, 13):
        chain = connection.get_verified_chain() if verified else connection.get_unverified_chain()
    else:
        # The same methods, before they were public.
        inner = connection._sslobj  # type: ignore[attr-defined]  # private before 3.13
        found = inner.get_verified_chain() if verified else inner.get_unverified_chain()
        chain = (certificate.public_bytes(_ssl.ENCODING_DER) for certificate in found)
    return tuple(x509.load_der_x509_certificate(certificate) for certificate in chain)

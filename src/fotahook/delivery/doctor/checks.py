"""The checks of a receiver that need no message: its URL, port, addresses, their connections and TLS.

A sender's handshake stops at the first fault. Here one handshake verifies nothing and reads the certificates; each of
the others verifies one thing, by OpenSSL as in a delivery: so no fault hides another.
"""

import _ssl
import asyncio
import ssl
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from fotahook.contract.addresses import EVERYWHERE, port_warning, refusal, url_refusal, without_password
from fotahook.contract.errors import one_line
from fotahook.contract.exchange import Masked
from fotahook.contract.operator import Check
from fotahook.delivery.connecting import Origin, connect_socket, target_of, tls_context
from fotahook.delivery.outcomes import FIXES
from fotahook.delivery.resolver import Resolver
from fotahook.delivery.sender import SenderSettings

from ..policy import DAY

MAX_ADDRESSES: Final = 8
"""Addresses of one name that are tried; a name can have hundreds."""
MIN_DAYS_LEFT: Final = 21
"""Automatic renewal comes earlier: certificates of 90 days are renewed at 30, or at a third of their lifetime."""
_MAX_NAMES: Final = 5

_NO_CHECK_TIME: Final = ssl.VerifyFlags(0x200000)
"""OpenSSL's X509_V_FLAG_NO_CHECK_TIME: dates are read from the certificates instead."""
_SELF_SIGNED: Final = 18
_UNKNOWN_ISSUER: Final = frozenset({2, 20, 21})
"""OpenSSL's X509_V_ERR_* codes for a missing issuer certificate."""

Chain: TypeAlias = tuple[x509.Certificate, ...]


def passed(check: str, found: str) -> Check:
    return Check(check, "pass", one_line(found))


def warned(check: str, found: str, fix: str) -> Check:
    """Messages arrive, but not from every sender or not for long."""
    return Check(check, "warn", one_line(found), fix)


def failed(check: str, found: str, fix: str) -> Check:
    return Check(check, "fail", one_line(found), fix)


class Target(Masked, frozen=True, kw_only=True):
    """A callback URL and the settings to check it with. `run_id` is part of every test message's id."""

    shown = ("url", "account", "run_id")

    url: str
    run_id: str
    account: str
    secret: bytes | None = None
    allow_http: bool = False
    sender: SenderSettings

    @property
    def origin(self) -> Origin:
        return target_of(self.url, EVERYWHERE).origin

    @property
    def host(self) -> str:
        return self.origin.host.rstrip(".")


def check_url(target: Target) -> Check:
    shown, allowed = without_password(target.url), target.sender.allowed_networks
    if (why := url_refusal(target.url, allow_http=target.allow_http, allowed=allowed)) is not None:
        return failed("url", f"{shown}: {why}", "Register a URL that follows this rule.")
    if target.origin.tls:
        return passed("url", shown)
    fix = "ThingSpace, and fotahook serve without --dev, accept https:// only: put TLS in front of the receiver."
    return warned("url", f"{shown}: nothing is encrypted", fix)


def check_port(target: Target) -> Check:
    """Against ThingSpace's list, which it documents for another API."""
    if (found := port_warning(target.url)) is None:
        return passed("port", str(target.origin.port))
    if target.host in ("localhost", "::1") or target.host.startswith("127."):
        return passed("port", f"{target.origin.port}; ThingSpace's ports do not matter on this machine")
    return warned("port", found, "To be sure, choose one of them.")


async def check_addresses(target: Target) -> tuple[list[str], Check]:
    """The addresses of the host, and whether all of them may be delivered to."""
    host, allowed, timeout = target.host, target.sender.allowed_networks, target.sender.timeout
    try:
        async with asyncio.timeout(timeout):
            addresses = list(await Resolver(EVERYWHERE).resolve(host))
    except TimeoutError:
        return [], failed("addresses", f"{host}: no answer within {timeout:g} s", FIXES["dns_error"])
    except OSError as error:
        return [], failed("addresses", f"{host} does not resolve: {error}", FIXES["dns_error"])
    if blocked := [why for address in addresses if (why := refusal(address, allowed)) is not None]:
        among = "" if len(addresses) == 1 else f"; one such among {len(addresses)} addresses blocks the whole name"
        return addresses, failed("addresses", blocked[0] + among, FIXES["blocked_address"])
    listed = _listed(addresses)
    if private := [address for address in addresses if refusal(address) is not None]:
        fix = "Only your own service, with --dev or --allow-network, delivers there; ThingSpace needs a public address."
        return addresses, warned("addresses", f"{listed}: {private[0]} is not globally reachable", fix)
    return addresses, passed("addresses", listed)


async def check_connection(target: Target, addresses: Sequence[str]) -> tuple[str, Check]:
    """The first address, of those that accept a connection if any does; all should, since a sender may use any."""
    tried, port = addresses[:MAX_ADDRESSES], target.origin.port
    found = dict(zip(tried, await asyncio.gather(*(_connect(address, target) for address in tried)), strict=True))
    broken = [(address, *problem) for address, problem in found.items() if problem is not None]
    if not broken:
        return tried[0], passed("connection", f"port {port} of {_listed(tried)} accepts connections")
    address, reason, fix = broken[0]
    if len(broken) == len(found):
        return address, failed("connection", f"{address}, port {port}: {reason}", fix)
    what = f"{len(broken)} of {len(tried)} addresses cannot be reached from here: {address}: {reason}"
    fix = "A sender may use any of them: make each accept connections, or remove it from the DNS."
    return next(one for one in tried if found[one] is None), warned("connection", what, fix)


async def _connect(address: str, target: Target) -> tuple[str, str] | None:
    """Why an address accepts no connection, and what to do about it; None if it does."""
    timeout = target.sender.connect_timeout
    try:
        async with asyncio.timeout(timeout):
            (await connect_socket(address, target.origin.port)).close()
    except TimeoutError:
        return f"no answer within {timeout:g} s", FIXES["timeout_connect"]
    except ConnectionRefusedError:
        return "connection refused", FIXES["connection_refused"]
    except OSError as error:
        return str(error.strerror or error).lower(), FIXES["connection_failed"]
    return None


def _listed(addresses: Sequence[str]) -> str:
    more = len(addresses) - MAX_ADDRESSES
    return ", ".join(addresses[:MAX_ADDRESSES]) + (f" and {more} more" if more > 0 else "")


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
        named = error.reason.replace("_", " ").lower() if isinstance(error, ssl.SSLError) and error.reason else ""
        why = named or error.strerror or str(error) or type(error).__name__
        return [failed("tls", f"no TLS connection: {why}", FIXES["tls_failed"])]
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
    last, code = sent[-1], chain.verify_code
    found, fix = f"{chain.verify_message}; {count}, up to {_name(last.issuer)}", FIXES["tls_untrusted"]
    if code == _SELF_SIGNED:
        found = f"the certificate is self-signed, by {_name(last.subject)}"
        fix = "Install one from a public authority: ThingSpace accepts no self-signed ones. Your own service trusts it "
        fix += "with --ca-file."
    elif code in _UNKNOWN_ISSUER and last.issuer != last.subject:
        found = f"the chain is incomplete: {count}, and {_name(last.issuer)}, which issued the last, is neither sent "
        found += "nor trusted"
        fix = "Install the certificate with its intermediates, often a file called fullchain.pem. If the authority is "
        fix += "your own, give it with --ca-file."
    return sent[:1], failed("trust", found, fix)


async def _verified_chain(
    target: Target, address: str, *, ca_file: Path | None
) -> Chain | ssl.SSLCertVerificationError:
    try:
        return (await _shake_hands(target, address, _context(target, ca_file=ca_file, check_hostname=False)))[1]
    except ssl.SSLCertVerificationError as error:
        return error


def _check_dates(chain: Chain, now: float) -> Check:
    first = min(chain, key=lambda certificate: certificate.not_valid_after_utc)
    begins, ends = first.not_valid_before_utc, first.not_valid_after_utc
    days_left = (ends.timestamp() - now) / DAY
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

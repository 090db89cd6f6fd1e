"""TLS towards receivers: whom it trusts, and what a failed handshake means."""

import contextlib
import ssl
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Final

_DEMANDS: Final = ("CERTIFICATE_REQUIRED", "ALERT_BAD_CERTIFICATE", "ALERT_UNKNOWN_CA", "ALERT_CERTIFICATE_UNKNOWN")
"""OpenSSL's names of the alerts by which a receiver asks for another client certificate, or for one at all."""

_handshakes: ContextVar[list[ssl.SSLObject]] = ContextVar("fotahook_handshakes")


class ClientCertificateDemanded(ssl.SSLError):
    """The receiver ended the handshake because of the client certificate, or its absence."""


class _ClientContext(ssl.SSLContext):
    """Keeps the handshake's object for ``reported_handshake``."""

    def wrap_bio(self, *args: Any, **options: Any) -> ssl.SSLObject:
        handshake = super().wrap_bio(*args, **options)
        _handshakes.get([]).append(handshake)
        return handshake


def tls_context(ca_file: Path | None, client_cert: Path | None) -> ssl.SSLContext:
    """Trusts the system's authorities and those of a file; TLS 1.2 or above."""
    context = _ClientContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_default_certs()
    if ca_file is not None:
        context.load_verify_locations(ca_file)
    if client_cert is not None:
        context.load_cert_chain(client_cert)
    return context


@contextlib.contextmanager
def reported_handshake() -> Iterator[None]:
    """Within it, a TLS 1.2 handshake that fails for want of a client certificate raises ClientCertificateDemanded.

    Its alert is the one for "no common cipher"; but once a cipher is chosen, only the certificate can be missing.
    """
    handshakes: list[ssl.SSLObject] = []
    token = _handshakes.set(handshakes)
    try:
        yield
    except ssl.SSLError as error:
        if error.reason == "SSLV3_ALERT_HANDSHAKE_FAILURE" and any(one.cipher() for one in handshakes):
            raise ClientCertificateDemanded(*error.args) from error
        raise
    finally:
        _handshakes.reset(token)


def code_of_tls_error(error: ssl.SSLError) -> str:
    """The error code for a TLS connection that failed."""
    if isinstance(error, ssl.SSLCertVerificationError):
        # OpenSSL's X509_V_ERR_* numbers.
        known = {10: "tls_expired", 62: "tls_wrong_host", 64: "tls_wrong_host"}
        return known.get(error.verify_code, "tls_untrusted")
    demanded = isinstance(error, ClientCertificateDemanded) or any(word in (error.reason or "") for word in _DEMANDS)
    return "tls_client_certificate" if demanded else "tls_failed"

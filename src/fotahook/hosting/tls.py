"""Certificates and keys given by flags."""

import contextlib
import ssl
from collections.abc import Iterator
from pathlib import Path

from . import BadOption, HostingError


def server_tls_context(certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """The context to serve with; None without a certificate. HostingError if the files cannot be loaded."""
    if certificate is None:
        if key is not None:
            raise BadOption("--tls-key needs --tls-cert")
        return None
    flags = f"--tls-cert {certificate}" + (f" --tls-key {key}" if key else "")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _load_certificate(context, flags, certificate, key)
    return context


def check_pem_files(*, ca_file: Path | None = None, client_cert: Path | None = None) -> None:
    """HostingError if a file given by --ca-file or --client-cert cannot be loaded."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if ca_file is not None:
        with _pem_errors(f"--ca-file {ca_file}"):
            context.load_verify_locations(ca_file)
    if client_cert is not None:
        _load_certificate(context, f"--client-cert {client_cert}", client_cert)


def _load_certificate(context: ssl.SSLContext, flags: str, certificate: Path, key: Path | None = None) -> None:
    def refuse_passphrase() -> str:
        flag = flags if key is None else f"--tls-key {key}"
        raise HostingError(
            f"{flag}: the private key is encrypted, and fotahook does not ask for a passphrase; give a key without "
            f"one, as openssl pkey -in {key or certificate} prints it, in a file that only its owner can read"
        )

    with _pem_errors(flags):
        context.load_cert_chain(certificate, key, refuse_passphrase)


@contextlib.contextmanager
def _pem_errors(flags: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        rule = "they must be PEM files that belong together" if "--tls-key" in flags else "it must be a PEM file"
        raise HostingError(f"{flags}: {error.strerror or error}; {rule}") from error

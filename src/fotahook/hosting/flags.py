"""What flags name: certificates and keys, and objects as MODULE:NAME."""

import importlib
import os
import ssl
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from . import BadOption, HostingError

T = TypeVar("T")


def load_object(place: str, kind: type[T]) -> T:
    """The object at MODULE:NAME, with the working directory first on the path. HostingError says what is wrong."""
    module_name, _, name = place.partition(":")
    if not module_name or not name:
        raise BadOption(f"{place}: name the module and the {kind.__name__.lower()} in it as MODULE:NAME")
    sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            text = f"{module_name} needs the module {error.name}, which is not installed ({location(error)})"
            raise HostingError(text) from error
        raise BadOption(f"there is no module {module_name} in {os.getcwd()} or among the installed ones") from error
    except (Exception, SystemExit) as error:
        text = f"{module_name} cannot be imported: {type(error).__name__}: {error} ({location(error)})"
        raise HostingError(text) from error
    found = getattr(module, name, None)
    if not isinstance(found, kind):
        what = "has no such name" if found is None else f"holds something of type {type(found).__name__}"
        raise BadOption(f"{place}: the module {what} there; write {name} = fotahook.{kind.__name__}(…) in it")
    return found


def location(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    if isinstance(error, SyntaxError) or not frames:
        return f"{getattr(error, 'filename', None)}, line {getattr(error, 'lineno', None)}"
    return f"{frames[-1].filename}, line {frames[-1].lineno}"


def server_tls_context(certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """The context to serve with; None without a certificate. HostingError if the files cannot be loaded."""
    if certificate is None:
        if key is not None:
            raise BadOption("--tls-key needs --tls-cert")
        return None
    flags = f"--tls-cert {certificate}" + (f" --tls-key {key}" if key else "")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _load(flags, context.load_cert_chain, certificate, key)
    return context


def check_pem_files(*, ca_file: Path | None = None, client_cert: Path | None = None) -> None:
    """HostingError if a file given by --ca-file or --client-cert cannot be loaded."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if ca_file is not None:
        _load(f"--ca-file {ca_file}", lambda file, *_: context.load_verify_locations(file), ca_file)
    if client_cert is not None:
        _load(f"--client-cert {client_cert}", context.load_cert_chain, client_cert)


def _load(flags: str, load: Callable[..., None], file: Path, key: Path | None = None) -> None:
    def refuse_passphrase() -> str:
        raise HostingError(
            f"{f'--tls-key {key}' if key else flags}: the private key is encrypted, and fotahook does not ask for a "
            f"passphrase; give a key without one, as openssl pkey -in {key or file} prints it, in a file that "
            "only its owner can read"
        )

    try:
        load(file, key, refuse_passphrase)
    except OSError as error:
        rule = "they must be PEM files that belong together" if "--tls-key" in flags else "it must be a PEM file"
        raise HostingError(f"{flags}: {error.strerror or error}; {rule}") from error

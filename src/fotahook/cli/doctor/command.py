"""`fotahook doctor`: whether a callback URL is fit to be registered, and what to mend."""

import asyncio
import contextlib
import secrets
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from cyclopts import Parameter

from fotahook.contract.addresses import EVERYWHERE, parse_networks
from fotahook.contract.keys import SECRET_KEY_BYTES, signing_seed
from fotahook.contract.signing import format_public_key, parse_secret
from fotahook.contract.urls import account_refusal
from fotahook.delivery.sender import SenderSettings

from ...hosting.tls import check_pem_files
from ..shared.errors import FAILED, UsageError
from ..shared.secret_key import secret_key_from_environment
from .checks import examine
from .findings import Check, Examination
from .report import report

ACCOUNT: Final = "fotahook-doctor"
LONGEST_SECONDS: Final = 300.0


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class DoctorOptions:
    """What `fotahook doctor` can be told."""

    secret: str | None = None
    "Secret (whsec_…) that the receiver verifies signatures with."
    account: str = ACCOUNT
    "Account that the test messages name."
    dev: bool = False
    "For receivers on this machine: http:// and private or loopback addresses too, as serve --dev takes them."
    allow_network: tuple[str, ...] = ()
    "Network (CIDR) that may be sent to although it is not globally reachable; may be given more than once."
    ca_file: Path | None = None
    "Authorities (PEM) that the certificate may come from, besides the system's."
    client_cert: Path | None = None
    "Certificate and key (PEM, one file) for a receiver that asks for one."
    timeout: float = 15.0
    "Seconds for one message, its answer included."
    connect_timeout: float = 5.0
    "Seconds for a connection, and for TLS."
    as_json: Annotated[bool, Parameter(name="--json")] = False
    "Print JSON."


def doctor(url: str, /, *, options: DoctorOptions = DoctorOptions()) -> int:
    """Check a callback URL before it is registered: each thing passes, is warned of or fails, with what to do about it.

    Sends up to four test messages, of type fotahookDoctor: a signed one, the same again, a changed and an unsigned one.
    Exit code 1 if something failed. Signs with FOTAHOOK_SECRET_KEY if that is set, else with a key made for this run.

    Example: fotahook doctor https://fota.example.com/messages

    Parameters
    ----------
    url
        The URL that is to be registered.
    """
    examination = _examination(url, options)
    key = format_public_key(signing_seed(examination.sender.secret_key))
    if not options.as_json:
        print(f"fotahook: the test messages are signed by {key}", file=sys.stderr)
    checks = asyncio.run(_checks(examination))
    report(url, checks, key, as_json=options.as_json)
    return FAILED if any(check.result == "fail" for check in checks) else 0


async def _checks(examination: Examination) -> list[Check]:
    with _busy():
        return [check async for check in examine(examination, clock=time.time, monotonic=time.monotonic)]


@contextlib.contextmanager
def _busy() -> Iterator[None]:
    """Something that moves, where a person waits."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status("examining"):
        yield


def _examination(url: str, options: DoctorOptions) -> Examination:
    """What is to be done; UsageError for what cannot be meant."""
    if (refusal := account_refusal(options.account)) is not None:
        raise UsageError(f"--account {options.account!r}: {refusal}")
    for flag, seconds in (("--timeout", options.timeout), ("--connect-timeout", options.connect_timeout)):
        if not 0 < seconds <= LONGEST_SECONDS:
            raise UsageError(f"{flag} {seconds:g}: choose seconds above 0, up to {LONGEST_SECONDS:g}")
    check_pem_files(ca_file=options.ca_file, client_cert=options.client_cert)
    try:
        secret = None if options.secret is None else parse_secret(options.secret)
        networks = EVERYWHERE if options.dev else parse_networks(options.allow_network)
    except ValueError as error:
        raise UsageError(f"--secret or --allow-network: {error}") from error
    return Examination(
        url=url,
        run=secrets.token_hex(8),
        account=options.account,
        secret=secret,
        allow_http=options.dev,
        sender=SenderSettings(
            secret_key=secret_key_from_environment() or secrets.token_bytes(SECRET_KEY_BYTES),
            timeout=options.timeout,
            connect_timeout=options.connect_timeout,
            allowed_networks=networks,
            ca_file=options.ca_file,
            client_cert=options.client_cert,
        ),
    )

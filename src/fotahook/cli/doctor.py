"""`fotahook doctor`: checks a callback URL before it is registered."""

import asyncio
import secrets
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, TypeAlias

import msgspec
from cyclopts import App, Parameter
from cyclopts.validators import Number
from rich.console import Console

from fotahook.contract.addresses import EVERYWHERE, parse_networks
from fotahook.contract.keys import SECRET_KEY_BYTES, account_signing_seed
from fotahook.contract.operator import Checks
from fotahook.contract.signing import format_public_key, parse_secret
from fotahook.contract.urls import account_refusal
from fotahook.delivery.doctor import check_receiver
from fotahook.delivery.sender import SenderSettings

from ..hosting.flags import check_pem_files
from .shared.arguments import Texts
from .shared.configuration import read_secret_files
from .shared.errors import FAILED, UsageError, flag_named
from .shared.output import Json, note, on_terminal, print_json, print_table
from .shared.stores import secret_key_from_environment

ACCOUNT: Final = "fotahook-doctor"

Seconds: TypeAlias = Annotated[float, Parameter(validator=Number(gt=0, lte=300))]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class DoctorOptions:
    """Options of `fotahook doctor`."""

    secret: str | None = None
    "Secret (whsec_…) that the receiver verifies signatures with."
    secret_file: Path | None = None
    "File with the secret, which it keeps out of the list of processes."
    account: str = ACCOUNT
    "Account that the test messages name."
    dev: bool = False
    "For receivers on this machine: accept http:// and private or loopback addresses, as serve --dev does."
    allow_network: Texts = ()
    "Networks (CIDR) that may be sent to although they are not globally reachable."
    ca_file: Path | None = None
    "Authorities (PEM) that the certificate may come from, besides the system's."
    client_cert: Path | None = None
    "Certificate and key (PEM, one file) for a receiver that requires one."
    timeout: Seconds = 15.0
    "Seconds for one message, its answer included."
    connect_timeout: Seconds = 5.0
    "Seconds for a connection, and for TLS."
    as_json: Json = False


app = App(name="doctor", config=read_secret_files)


@app.default
def doctor(url: str, /, *, options: DoctorOptions = DoctorOptions()) -> int:
    """Check a callback URL before it is registered: each check passes, warns or fails, and says what to do.

    Sends up to four test messages, of type fotahookDoctor: a signed one, the same again, a changed and an unsigned one.
    Exit code 1 if something failed. Signs with FOTAHOOK_SECRET_KEY if that is set, else with a key made for this run.

    Example: fotahook doctor https://fota.example.com/messages

    Args:
        url: The URL to check.
    """
    secret, sender = _settings(options)
    key = format_public_key(account_signing_seed(sender.secret_key, options.account))
    if not options.as_json:
        note(f"the test messages are signed by {key}")
    with Console(stderr=True).status("checking"):
        checks = asyncio.run(check_receiver(url, options.account, sender=sender, secret=secret, allow_http=options.dev))
    _print_report(checks, key, as_json=options.as_json)
    return FAILED if checks.result == "fail" else 0


def _settings(options: DoctorOptions) -> tuple[bytes | None, SenderSettings]:
    """The receiver's secret, and how to send."""
    if (refusal := account_refusal(options.account)) is not None:
        raise UsageError(f"--account {options.account!r}: {refusal}")
    check_pem_files(ca_file=options.ca_file, client_cert=options.client_cert)
    with flag_named("--secret"):
        secret = None if options.secret is None else parse_secret(options.secret)
    with flag_named("--allow-network"):
        networks = EVERYWHERE if options.dev else parse_networks(options.allow_network)
    return secret, SenderSettings(
        secret_key=secret_key_from_environment() or secrets.token_bytes(SECRET_KEY_BYTES),
        timeout=options.timeout,
        connect_timeout=options.connect_timeout,
        allowed_networks=networks,
        ca_file=options.ca_file,
        client_cert=options.client_cert,
    )


def _print_report(found: Checks, public_key: str, *, as_json: bool) -> None:
    """A table at a terminal, tab-separated rows when piped, or one JSON object."""
    if as_json:
        print_json({**msgspec.to_builtins(found), "publicKey": public_key})
    elif not on_terminal():
        rows = [(check.check, check.result, check.found, check.fix) for check in found.checks]
        print_table(("check", "result", "found", "fix"), rows)
    else:
        lines = [(check.check, check.result, tuple(filter(None, (check.found, check.fix)))) for check in found.checks]
        print_table(("check", "result", "found, and what to do"), lines)
        counts = Counter(check.result for check in found.checks)
        untested = "; the checks that depend on a failed one were not made" if counts["fail"] else ""
        print(f"{counts['pass']} pass, {counts['warn']} warn, {counts['fail']} fail{untested}")

"""`fotahook doctor`: checks a callback URL before it is registered."""

import asyncio
import secrets
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
from cyclopts import App, Parameter
from rich.console import Console

from fotahook.contract.addresses import account_refusal
from fotahook.contract.keys import SECRET_KEY_BYTES, account_signing_seed
from fotahook.contract.operator import Checks
from fotahook.contract.signing import format_public_key, parse_secret
from fotahook.delivery.doctor import check_receiver

from ..hosting.flags import check_pem_files
from .shared.arguments import SenderFlags, read_secret_files
from .shared.errors import FAILED, UsageError, flag_named
from .shared.output import Json, fields, note, on_terminal, print_json, print_records, print_table
from .shared.stores import secret_key_from_environment

ACCOUNT: Final = "fotahook-doctor"


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class DoctorOptions(SenderFlags):
    """Options of `fotahook doctor`."""

    secret: str | None = None
    "Secret (whsec_…) that the receiver verifies signatures with."
    secret_file: Path | None = None
    "File with the secret, which it keeps out of the list of processes."
    account: str = ACCOUNT
    "Account that the test messages name."
    dev: bool = False
    "For receivers on this machine: accept http:// and private or loopback addresses, as serve --dev does."
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
    if (refusal := account_refusal(options.account)) is not None:
        raise UsageError(f"--account {options.account!r}: {refusal}")
    check_pem_files(ca_file=options.ca_file, client_cert=options.client_cert)
    with flag_named("--secret"):
        secret = None if options.secret is None else parse_secret(options.secret)
    sender = options.sender_settings(secret_key_from_environment() or secrets.token_bytes(SECRET_KEY_BYTES))
    key = format_public_key(account_signing_seed(sender.secret_key, options.account))
    if not options.as_json:
        note(f"the test messages are signed by {key}")
    with Console(stderr=True).status("checking"):
        checks = asyncio.run(check_receiver(url, options.account, sender=sender, secret=secret, allow_http=options.dev))
    _print_report(checks, key, as_json=options.as_json)
    return FAILED if checks.result == "fail" else 0


def _print_report(found: Checks, public_key: str, *, as_json: bool) -> None:
    """A table at a terminal, tab-separated rows when piped, or one JSON object."""
    if as_json:
        print_json({**msgspec.to_builtins(found), "publicKey": public_key})
    elif not on_terminal():
        print_records(fields("check result found fix"), found.checks)
    else:
        lines = [(check.check, check.result, tuple(filter(None, (check.found, check.fix)))) for check in found.checks]
        print_table(("check", "result", "found, and what to do"), lines)
        counts = Counter(check.result for check in found.checks)
        untested = "; the checks that depend on a failed one were not made" if counts["fail"] else ""
        print(f"{counts['pass']} pass, {counts['warn']} warn, {counts['fail']} fail{untested}")

"""`fotahook doctor`: checks a callback URL before it is registered."""

import asyncio
import secrets
import sys
from collections import Counter
from pathlib import Path
from typing import Annotated, Final, TypeAlias, TypeVar

import msgspec
from cyclopts import App, Group, Parameter
from cyclopts.validators import Number
from rich.console import Console

from fotahook.contract.addresses import EVERYWHERE, account_refusal, parse_networks
from fotahook.contract.keys import SECRET_KEY_BYTES, account_signing_seed
from fotahook.contract.signing import format_public_key, parse_secret
from fotahook.delivery.doctor import check_receiver
from fotahook.delivery.sender import SenderSettings

from ..hosting.flags import check_pem_files
from .shared.arguments import Texts, flag_class, read_secret_files
from .shared.errors import FAILED, UsageError, flag_named
from .shared.output import Json, fields, note, print_json, print_records, print_table
from .shared.sources import secret_key_from_environment

ACCOUNT: Final = "fotahook-doctor"
T = TypeVar("T")
InDelivery = Annotated[T, Parameter(group=Group("Delivery", sort_key=3))]
Timeout: TypeAlias = Annotated[float, Parameter(validator=Number(gt=0, lte=300))]


@flag_class
class SenderFlags:
    dev: bool = False
    allow_network: InDelivery[Texts] = ()
    "Networks (CIDR) that receivers may lie in although they are not globally reachable."
    ca_file: InDelivery[Path | None] = None
    "Authorities (PEM) that receivers' certificates may come from, besides the system's."
    client_cert: InDelivery[Path | None] = None
    "Certificate and key (PEM, one file) to show to receivers that ask for one."
    timeout: InDelivery[Timeout] = 15.0
    "Seconds for one attempt, from the name lookup to the end of the response."
    connect_timeout: InDelivery[Timeout] = 5.0
    "Seconds for the connection of an attempt: name lookup, every address and TLS."

    def sender_settings(self, key: bytes) -> SenderSettings:
        with flag_named("--allow-network"):
            networks = EVERYWHERE if self.dev else parse_networks(self.allow_network)
        return SenderSettings(
            secret_key=key,
            allow_http=self.dev,
            timeout=self.timeout,
            connect_timeout=self.connect_timeout,
            allowed_networks=networks,
            ca_file=self.ca_file,
            client_cert=self.client_cert,
        )


@flag_class
class DoctorOptions(SenderFlags):
    secret: str | None = None
    "Secret (whsec_…) that the receiver verifies signatures with."
    secret_file: Path | None = None
    "File with the secret, which it keeps out of the list of processes."
    account: str = ACCOUNT
    "Account that the test messages name."
    dev: bool = False
    "For receivers on this machine: accept http:// and private or loopback addresses, as serve --dev does."
    as_json: Json = False


app = App(name="doctor", config=read_secret_files, help_epilogue="Example: fotahook doctor https://fota.example.com/")


@app.default
def doctor(url: Annotated[str, Parameter(help="URL to test.")], /, *, options: DoctorOptions = DoctorOptions()) -> int:
    """Check a callback URL before it is registered: each check passes, warns or fails, and says what to do.

    Sends up to four test messages, of type fotahookDoctor: a signed one, the same again, a changed and an unsigned one.
    Exit code 1 if something failed. Signs with FOTAHOOK_SECRET_KEY if that is set, else with a key made for this run.
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
        found = asyncio.run(check_receiver(url, options.account, sender=sender, secret=secret, allow_http=options.dev))
    if options.as_json:
        print_json({**msgspec.to_builtins(found), "publicKey": key})
    elif not sys.stdout.isatty():
        print_records(fields("check result found fix"), found.checks)
    else:
        lines = [(check.check, check.result, tuple(filter(None, (check.found, check.fix)))) for check in found.checks]
        print_table(("check", "result", "found, and what to do"), lines)
        counts = Counter(check.result for check in found.checks)
        untested = "; the checks that depend on a failed one were not made" if counts["fail"] else ""
        print(f"{counts['pass']} pass, {counts['warn']} warn, {counts['fail']} fail{untested}")
    return FAILED if found.result == "fail" else 0

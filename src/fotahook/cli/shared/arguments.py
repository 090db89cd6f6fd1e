"""Arguments that several commands have: accounts, limits, points in time, secrets in files, how to send."""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeAlias, TypeVar

from cyclopts import App, Group, Parameter, Token
from cyclopts.argument import ArgumentCollection
from cyclopts.validators import Number

from fotahook.contract.addresses import EVERYWHERE, Network, account_refusal, account_warning, parse_networks
from fotahook.contract.operator import AccountState

from .errors import UsageError, flag_named
from .output import note

if TYPE_CHECKING:
    from fotahook.delivery.sender import SenderSettings

T = TypeVar("T")
InDelivery = Annotated[T, Parameter(group=Group("Delivery", sort_key=3))]

_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_AGO: Final = re.compile(r"(\d{1,9})([smhd])")


def warn_of_account(_: object, account: str | None) -> None:
    """Say on stderr that an account's name is unusual: it may be misspelt. The service refuses impossible names."""
    warning = None if account is None or account_refusal(account) else account_warning(account)
    if warning is not None:
        note(f"account {account!r}: {warning}")


def warn_if_unknown(account: AccountState) -> None:
    """Say on stderr that an account was never used: its name may be misspelt."""
    if not account.known:
        note(f"account {account.account!r} is unknown: it never had a callback or a message; check the name")


Account: TypeAlias = Annotated[
    str, Parameter(help="Account name, such as 0000123456-00001.", validator=warn_of_account)
]
OptionalAccount: TypeAlias = Annotated[str | None, Parameter(validator=warn_of_account)]
MessageId: TypeAlias = Annotated[str, Parameter(name="ID", help="Message id.")]
Limit: TypeAlias = Annotated[int, Parameter(help="Most items to list; 0 for all.", validator=Number(gte=0))]


def parse_time(flag: str, text: str, now: float) -> datetime:
    """The point in time that a flag names; UsageError if it is invalid."""
    try:
        if ago := _AGO.fullmatch(text):
            return datetime.fromtimestamp(now, UTC) - _span(ago)
        moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError) as error:
        raise UsageError(
            f"{flag} {text}: give 2026-11-25, 2026-11-25T08:30:00Z, or how long ago, such as 90s, 15m, 2h or 7d"
        ) from error
    # A time without a zone is UTC, as in everything that is printed.
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _span(found: re.Match[str]) -> timedelta:
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def _to_time(_: object, tokens: Sequence[Token]) -> datetime:
    return parse_time(tokens[0].keyword or "", tokens[0].value, time.time())


def _to_seconds(_: object, tokens: Sequence[Token]) -> float:
    if not (found := _AGO.fullmatch(tokens[0].value)):
        raise UsageError(f"{tokens[0].keyword} {tokens[0].value}: give a number with its unit, such as 90s, 20m or 2h")
    return _span(found).total_seconds()


Time: TypeAlias = Annotated[datetime | None, Parameter(converter=_to_time)]
Duration: TypeAlias = Annotated[float, Parameter(converter=_to_seconds)]
OptionalDuration: TypeAlias = Annotated[float | None, Parameter(converter=_to_seconds)]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Span:
    """When messages were accepted."""

    since: Time = None
    "Only messages accepted then or later: a date, a time by RFC 3339, or how long ago, such as 2h or 7d."
    until: Time = None
    "Only messages accepted before then."


EVER: Final = Span()


def split_at_commas(_: object, tokens: Sequence[Token]) -> tuple[str, ...]:
    """The values of a list flag, which may be given as A,B too."""
    values = [value.strip() for token in tokens for value in token.value.split(",")]
    if not all(values):
        raise UsageError(f"{tokens[0].keyword}: an item of the list is empty")
    return tuple(values)


Texts: TypeAlias = Annotated[tuple[str, ...], Parameter(consume_multiple=(1, None), converter=split_at_commas)]
"""A flag that may be given as `--flag A,B`, `--flag A B` and `--flag A --flag B`."""


def read_secret_files(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Add to --secret and --basic what the files of --secret-file and --basic-file say: one value a line.

    The arguments of a process are visible to every user of the machine.
    """
    for argument in arguments:
        if argument.name not in ("--secret-file", "--basic-file") or not argument.tokens:
            continue
        path, flag = Path(argument.tokens[0].value), argument.name.removesuffix("-file")
        values = list(filter(None, map(str.strip, path.read_text("utf-8", errors="replace").splitlines())))
        if not values:
            raise UsageError(f"{argument.name} {path} is empty: write one value on each line")
        target = arguments[flag]
        _, takes_many = target.token_count()
        for value in values:
            if target.tokens and not takes_many:
                raise UsageError(f"{argument.name} {path}: {flag} takes one value, and there are more")
            target.append(Token(keyword=argument.name, value=value, source=str(path), index=len(target.tokens)))


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class SenderFlags:
    """How to send to receivers: flags of `serve` and `doctor`."""

    dev: bool = False
    allow_network: InDelivery[Texts] = ()
    "Networks (CIDR) that receivers may lie in although they are not globally reachable."
    ca_file: InDelivery[Path | None] = None
    "Authorities (PEM) that receivers' certificates may come from, besides the system's."
    client_cert: InDelivery[Path | None] = None
    "Certificate and key (PEM, one file) to show to receivers that ask for one."
    timeout: InDelivery[Annotated[float, Parameter(validator=Number(gt=0, lte=300))]] = 15.0
    "Seconds for one attempt, from the name lookup to the end of the response."
    connect_timeout: InDelivery[Annotated[float, Parameter(validator=Number(gt=0, lte=300))]] = 5.0
    "Seconds for the connection of an attempt: name lookup, every address and TLS."

    @property
    def networks(self) -> tuple[Network, ...]:
        """The networks that may be sent to. A usage error if one is invalid."""
        with flag_named("--allow-network"):
            return EVERYWHERE if self.dev else parse_networks(self.allow_network)

    def sender_settings(self, key: bytes) -> "SenderSettings":
        """The same for the sender."""
        from fotahook.delivery.sender import SenderSettings

        return SenderSettings(
            secret_key=key,
            allow_http=self.dev,
            timeout=self.timeout,
            connect_timeout=self.connect_timeout,
            allowed_networks=self.networks,
            ca_file=self.ca_file,
            client_cert=self.client_cert,
        )

"""Arguments that several commands have: accounts, limits, points in time, secrets in files, how to send."""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Final, TypeAlias, TypeVar, dataclass_transform

from cyclopts import App, Parameter, Token
from cyclopts.argument import ArgumentCollection
from cyclopts.validators import Number

from fotahook.contract.addresses import account_refusal, account_warning

from .errors import UsageError
from .output import note

T = TypeVar("T")


@dataclass_transform(frozen_default=True, kw_only_default=True)
def flag_class(fields: type[T]) -> type[T]:
    """Make a class of flags, which commands take as one argument."""
    return Parameter(name="*")(dataclass(frozen=True, kw_only=True)(fields))


_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_AGO: Final = re.compile(r"(\d{1,9})([smhd])")


def warn(_: object, account: str | None) -> None:
    """Say on stderr that an account's name is unusual: it may be misspelt. The service refuses impossible names."""
    if account is not None and not account_refusal(account) and (warning := account_warning(account)):
        note(f"account {account!r}: {warning}")


Account: TypeAlias = Annotated[str, Parameter(help="Account name, such as 0000123456-00001.", validator=warn)]
OptionalAccount: TypeAlias = Annotated[str | None, Parameter(validator=warn)]
MessageId: TypeAlias = Annotated[str, Parameter(name="ID", help="Message id.")]
Limit: TypeAlias = Annotated[int, Parameter(help="Most items to list; 0 for all.", validator=Number(gte=0))]


def _span(text: str) -> timedelta | None:
    return timedelta(**{_UNITS[found[2]]: int(found[1])}) if (found := _AGO.fullmatch(text)) else None


def parse_time(flag: str, text: str, now: float) -> datetime:
    try:
        span = _span(text)
        moment = datetime.fromisoformat(text) if span is None else datetime.fromtimestamp(now, UTC) - span
    except (ValueError, OverflowError) as error:
        raise UsageError(
            f"{flag} {text}: give 2026-11-25, 2026-11-25T08:30:00Z, or how long ago, such as 90s, 15m, 2h or 7d"
        ) from error
    # A time without a zone is UTC, as in everything that is printed.
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _to_time(_: object, tokens: Sequence[Token]) -> datetime:
    return parse_time(tokens[0].keyword or "", tokens[0].value, time.time())


def _to_seconds(_: object, tokens: Sequence[Token]) -> float:
    if (span := _span(tokens[0].value)) is None:
        raise UsageError(f"{tokens[0].keyword} {tokens[0].value}: give a number with its unit, such as 90s, 20m or 2h")
    return span.total_seconds()


Time: TypeAlias = Annotated[datetime | None, Parameter(converter=_to_time)]
Duration: TypeAlias = Annotated[
    float, Parameter(converter=_to_seconds, metavar="DURATION", show_default=lambda it: it and f"{it / 60:g}m")
]


@flag_class
class Span:
    since: Time = None
    "Only messages accepted then or later: a date, a time by RFC 3339, or how long ago, such as 2h or 7d."
    until: Time = None
    "Only messages accepted before then."


def split_at_commas(_: object, tokens: Sequence[Token]) -> tuple[str, ...]:
    values = [value.strip() for token in tokens for value in token.value.split(",")]
    if not all(values):
        raise UsageError(f"{tokens[0].keyword}: an item of the list is empty")
    return tuple(values)


Texts: TypeAlias = Annotated[tuple[str, ...], Parameter(consume_multiple=(1, None), converter=split_at_commas)]
"""`--flag A,B`, `--flag A B` and `--flag A --flag B`."""


def read_secret_files(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Add to --secret and --basic what the files of --secret-file and --basic-file say: one value a line."""
    for argument in arguments:
        if argument.name not in ("--secret-file", "--basic-file") or not argument.tokens:
            continue
        path, target = Path(argument.tokens[0].value), arguments[argument.name.removesuffix("-file")]
        values = list(filter(None, map(str.strip, path.read_text("utf-8", errors="replace").splitlines())))
        if not values:
            raise UsageError(f"{argument.name} {path} is empty: write one value on each line")
        if not target.token_count()[1] and len(target.tokens) + len(values) > 1:
            raise UsageError(f"{argument.name} {path}: {target.name} takes one value, and there are more")
        for value in values:
            target.append(Token(keyword=argument.name, value=value, source=str(path), index=len(target.tokens)))

"""Arguments that several commands have: accounts, message ids, limits and points in time."""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final, TypeAlias

from cyclopts import Parameter, Token
from cyclopts.validators import Number

from fotahook.contract.operator import AccountState
from fotahook.contract.urls import account_refusal, account_warning

from .errors import UsageError
from .output import note

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
            return datetime.fromtimestamp(now, UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError) as error:
        raise UsageError(
            f"{flag} {text}: give 2026-11-25, 2026-11-25T08:30:00Z, or how long ago, such as 90s, 15m, 2h or 7d"
        ) from error
    # A time without a zone is UTC, as in everything that is printed.
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _to_time(_: object, tokens: Sequence[Token]) -> datetime:
    return parse_time(tokens[0].keyword or "", tokens[0].value, time.time())


Time: TypeAlias = Annotated[datetime | None, Parameter(converter=_to_time)]


def _to_seconds(_: object, tokens: Sequence[Token]) -> float:
    if not (found := _AGO.fullmatch(tokens[0].value)):
        raise UsageError(f"{tokens[0].keyword} {tokens[0].value}: give a number with its unit, such as 90s, 20m or 2h")
    return timedelta(**{_UNITS[found[2]]: int(found[1])}).total_seconds()


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

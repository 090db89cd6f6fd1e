"""Points in time as flags: a date, a time by RFC 3339, or how long ago."""

import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from cyclopts import Parameter

from .errors import UsageError

_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_AGO = re.compile(r"(\d{1,9})([smhd])")


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Span:
    """When the messages that are meant were accepted."""

    since: str | None = None
    "Only messages accepted then or later: a date, a time by RFC 3339, or how long ago, such as 2h or 7d."
    until: str | None = None
    "Only messages accepted before then."

    def ends(self) -> tuple[datetime | None, datetime | None]:
        """`since` and `until` as times; UsageError for a text that names none."""
        now = time.time()
        return moment("--since", self.since, now), moment("--until", self.until, now)


EVER: Final = Span()


def moment(flag: str, text: str | None, now: float) -> datetime | None:
    """The point in time that a flag names, None for None; UsageError for a text that names none."""
    if text is None:
        return None
    try:
        if ago := _AGO.fullmatch(text):
            return datetime.fromtimestamp(now, UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        named = datetime.fromisoformat(text)
    except (ValueError, OverflowError) as error:
        raise UsageError(
            f"{flag} {text}: give 2026-11-25, 2026-11-25T08:30:00Z, or how long ago, such as 90s, 15m, 2h or 7d"
        ) from error
    # One machine's local time is not another's: what names no zone is meant as everything here is shown, in UTC.
    return named if named.tzinfo is not None else named.replace(tzinfo=UTC)


def shown_moment(value: datetime | None) -> str:
    """A point in time as tables show it; empty for None."""
    return "" if value is None else f"{value.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"

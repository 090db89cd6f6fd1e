"""Whether to try again, and when: pure."""

from datetime import UTC
from email.utils import parsedate_to_datetime

from ..contract.errors import ApiException, ConnectionFailed, FotahookError

FIRST_WAIT = 0.5
LONGEST_WAIT = 8.0
LONGEST_RETRY_AFTER = 60.0


def wait_before_retry(failure: FotahookError, tries: int, *, now: float, chance: float) -> float | None:
    """The seconds to wait before the next try, None if there is to be none.

    `tries` counts those made, `now` is a Unix time, `chance` lies between 0 and 1. Worth another try are a
    connection that failed and the answers 408, 429 and 5xx. `Retry-After` is honoured up to a minute.
    """
    if isinstance(failure, ApiException):
        if failure.status_code not in (408, 429) and failure.status_code < 500:
            return None
        asked = retry_after(failure.headers.get("retry-after"), now)
        if asked is not None:
            return min(asked, LONGEST_RETRY_AFTER)
    elif not isinstance(failure, ConnectionFailed):
        return None
    # Half of the wait is left to chance, or all clients of an outage would come back in the same moment.
    ceiling = min(FIRST_WAIT * 2.0 ** min(tries - 1, 10), LONGEST_WAIT)
    return ceiling * (1 + chance) / 2


def retry_after(value: str | None, now: float) -> float | None:
    """The seconds that a `Retry-After` asks for, given as a number or as a date (RFC 9110, section 10.2.3)."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        date = parsedate_to_datetime(value)
        # One form of a date names no zone; all mean UTC (RFC 9110, section 5.6.7).
        return max(date.replace(tzinfo=date.tzinfo or UTC).timestamp() - now, 0.0)
    except (ValueError, OverflowError):
        return None

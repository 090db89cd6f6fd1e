"""Whether to retry a request, and when. Pure."""

from ..contract.errors import ApiException, ConnectionFailed, FotahookError
from ..contract.exchange import retry_after

FIRST_BACKOFF = 0.5
MAX_BACKOFF = 8.0
MAX_RETRY_AFTER = 60.0


def retry_delay(failure: FotahookError, attempts: int, *, now: float, jitter: float) -> float | None:
    """Seconds to wait before the next attempt; None if the failure is final.

    Failed connections and the statuses 408, 429 and 5xx are retried. `attempts` counts those made, `now` is a Unix
    time, `jitter` lies between 0 and 1. `Retry-After` is honoured up to a minute.
    """
    if isinstance(failure, ApiException):
        if failure.status_code not in (408, 429) and failure.status_code < 500:
            return None
        requested = retry_after(failure.headers.get("retry-after"), now)
        if requested is not None:
            return min(requested, MAX_RETRY_AFTER)
    elif not isinstance(failure, ConnectionFailed):
        return None
    # Half of the backoff is random, so that clients do not all return in the same moment after an outage.
    backoff = min(FIRST_BACKOFF * 2.0 ** min(attempts - 1, 10), MAX_BACKOFF)
    return backoff * (1 + jitter) / 2

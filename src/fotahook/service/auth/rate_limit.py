"""Requests of each client, counted, so that no client takes all of a service.

Kept in the memory of this process: each process counts for itself. Only who proved to be a client is counted, so
there are no more counts than clients; who proved nothing costs next to nothing.
"""

import math
from typing import Final

from .. import errors

SPAN: Final = 60.0
"""Seconds whose requests may come all at once."""
_KNOWN_LIMIT: Final = 4096


class Rates:
    """A bucket for each client that holds a minute's requests, and fills up evenly; 0 for no limit."""

    def __init__(self, per_minute: int) -> None:
        self._step = SPAN / per_minute if per_minute else 0.0
        self._paid: dict[str, float] = {}
        """Until when the requests of a client would last if they had come evenly."""

    def count(self, client: str, now: float) -> None:
        """Count one request; a Problem if the client's bucket is empty."""
        paid = self._paid.get(client, now)
        if not now <= paid <= now + SPAN:
            # It is full again, or the clock was set back.
            paid = now
        paid += self._step
        if paid > now + SPAN:
            raise errors.too_many_requests(math.ceil(paid - now - SPAN))
        if len(self._paid) >= _KNOWN_LIMIT:
            self._paid.clear()
        self._paid[client] = paid

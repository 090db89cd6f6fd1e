"""The flags that bound what a client may take of a server: those that `serve` and `listen` have in common."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from cyclopts import Parameter

from ...hosting.connection_limits import ConnectionLimiter, ConnectionLimits
from .errors import UsageError

SMALLEST_HEADER: Final = 4096
LARGEST_HEADER: Final = 1024 * 1024
LONGEST_WAIT: Final = 3600.0


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class LimitOptions:
    """Limits that nobody meets who means well; `fotahook serve` and `fotahook listen` both have them.

    Each has a --body-timeout of its own besides, since a module's Listener may say what that is.
    """

    header_bytes: int = ConnectionLimits.header_bytes
    "Bytes in the head of a request."
    header_timeout: float = ConnectionLimits.header_seconds
    "Seconds for the head of a request to arrive."
    idle_timeout: float = ConnectionLimits.idle_seconds
    "Seconds that a connection is kept without a request."
    connections_per_address: int = ConnectionLimits.per_address
    "Connections at once from one address; a proxy needs as many as it opens."

    def check(self) -> None:
        """A usage error for limits that cannot be meant."""
        if not SMALLEST_HEADER <= self.header_bytes <= LARGEST_HEADER:
            raise UsageError(f"--header-bytes {self.header_bytes}: choose {SMALLEST_HEADER} to {LARGEST_HEADER}")
        check_wait("--header-timeout", self.header_timeout)
        check_wait("--idle-timeout", self.idle_timeout)
        if self.connections_per_address < 1:
            raise UsageError(f"--connections-per-address {self.connections_per_address}: choose 1 or more")

    def limiter(self, open_paths: Collection[str], *, body_timeout: float) -> ConnectionLimiter:
        """The limiter of one server; `open_paths` stay available to an address at its limit."""
        limits = ConnectionLimits(
            header_bytes=self.header_bytes,
            header_seconds=self.header_timeout,
            body_seconds=body_timeout,
            idle_seconds=self.idle_timeout,
            per_address=self.connections_per_address,
        )
        return ConnectionLimiter(limits, open_paths)


def check_wait(flag: str, seconds: float) -> None:
    """A usage error for a time that nobody can be given."""
    if not 0 < seconds <= LONGEST_WAIT:
        raise UsageError(f"{flag} {seconds:g}: choose more than 0 and at most {LONGEST_WAIT:g} seconds")

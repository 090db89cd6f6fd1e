"""Fault points of `serve` and `listen`: FOTAHOOK_FAULT, in development alone."""

from typing import TYPE_CHECKING, Protocol

from .errors import UsageError

if TYPE_CHECKING:
    from fotahook.testing.sandbox.fault_points import FaultPoints


class HasFault(Protocol):
    """The flags that both commands have."""

    @property
    def fault(self) -> str | None: ...
    @property
    def dev(self) -> bool: ...


def fault_points(options: HasFault) -> "FaultPoints | None":
    """The fault points that were asked for. A usage error for what is none, and without --dev."""
    if options.fault is None:
        return None
    if not options.dev:
        raise UsageError(f"FOTAHOOK_FAULT {options.fault}: fault points kill the process; they need --dev")
    # The extra that the rest of its room needs is not for those who only run.
    from fotahook.testing.sandbox.fault_points import FaultPoints

    try:
        return FaultPoints(options.fault)
    except ValueError as error:
        raise UsageError(f"FOTAHOOK_FAULT: {error}") from error

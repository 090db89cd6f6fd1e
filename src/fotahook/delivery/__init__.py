"""Sends it on: policy decides, the sender makes one attempt, the dispatcher drives the lanes.

``Sender`` is in a module of its own, since only it needs an HTTP client: ``fotahook.delivery.sender``.
"""

from .deadline import Deadline, DeadlineExceeded
from .dispatcher import Dispatcher
from .lane import Deliver, Timings
from .maintenance import run_maintenance
from .outcomes import Outcome
from .policy import Rules

__all__ = [
    "Deadline",
    "DeadlineExceeded",
    "Deliver",
    "Dispatcher",
    "Outcome",
    "Rules",
    "Timings",
    "run_maintenance",
]

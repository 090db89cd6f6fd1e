"""Delivers messages: the policy decides, a sender makes attempts, the dispatcher serves the lanes.

Import ``Sender`` from ``fotahook.delivery.sender``: only that module needs an HTTP client.
"""

from .deadline import Deadline, DeadlineExceeded
from .dispatcher import Dispatcher
from .outcomes import Outcome
from .policy import Rules
from .runtime import Deliver, Timings, run_maintenance

__all__ = ["Deadline", "DeadlineExceeded", "Deliver", "Dispatcher", "Outcome", "Rules", "Timings", "run_maintenance"]

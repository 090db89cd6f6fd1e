"""Sends it on: policy decides, the sender makes one attempt, the dispatcher drives the lanes.

``Sender`` is in a module of its own, since only it needs an HTTP client: ``fotahook.delivery.sender``.
"""

from .deadline import Deadline
from .dispatcher import Dispatcher
from .lane import Deliver, Timings
from .maintenance import keep_house
from .outcomes import Outcome
from .policy import Rules

__all__ = ["Deadline", "Deliver", "Dispatcher", "Outcome", "Rules", "Timings", "keep_house"]

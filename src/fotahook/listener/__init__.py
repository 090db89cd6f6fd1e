"""Receives it: a message answered with 2xx is on disk; handlers and forwards run from there."""

from .app import Listener
from .dead_letters import Quarantined
from .forwards import Forwarding
from .handlers import Context, Handler
from .intake import receive
from .verification import THINGSPACE_SOURCES, Proof, Rejected

__all__ = [
    "THINGSPACE_SOURCES",
    "Context",
    "Forwarding",
    "Handler",
    "Listener",
    "Proof",
    "Quarantined",
    "Rejected",
    "receive",
]

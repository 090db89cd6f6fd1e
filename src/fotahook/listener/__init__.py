"""Receives it: a message answered with 2xx is on disk; handlers and forwards run from there."""

from .app import Listener
from .forward import Forwarding
from .handlers import Context, Handler
from .proof import THINGSPACE_SOURCES, Proof, Rejected
from .quarantine import Quarantined
from .receive import receive

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

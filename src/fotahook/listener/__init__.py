"""Receives it: a message answered with 2xx is on disk; handlers run from there."""

from .app import Listener
from .handlers import Context, Handler
from .receive import Proof, Rejected, receive

__all__ = ["Context", "Handler", "Listener", "Proof", "Rejected", "receive"]

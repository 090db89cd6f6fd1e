"""Receives messages: one answered with 200 is on disk, and handlers and forwards get it from there."""

from fotahook.contract.errors import WebhookRejected

from .app import Listener
from .dead_letters import DeadLetter
from .forwards import ForwardSettings
from .handlers import Context, Handler
from .intake import receive, unwrap
from .verification import THINGSPACE_SOURCES, Verification

__all__ = [
    "THINGSPACE_SOURCES",
    "Context",
    "DeadLetter",
    "ForwardSettings",
    "Handler",
    "Listener",
    "Verification",
    "WebhookRejected",
    "receive",
    "unwrap",
]

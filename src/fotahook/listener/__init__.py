"""Receives messages: one answered with 200 is on disk, and handlers and forwards get it from there."""

try:
    from .app import Listener
except ModuleNotFoundError as error:
    raise ImportError(f"fotahook.listener needs {error.name}: pip install 'fotahook[listener]'") from error

from .dead_letters import DeadLetter
from .forwards import ForwardSettings
from .handlers import Context, Handler
from .intake import receive
from .verification import THINGSPACE_SOURCES, Verification, WebhookRejected

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
]

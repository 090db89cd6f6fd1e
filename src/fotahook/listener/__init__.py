"""Receives messages: one answered with 200 is on disk, and handlers and forwards get it from there."""

from fotahook.contract.errors import WebhookRejected
from fotahook.store.ledger import LedgerDevice

from .app import Listener
from .handlers import Context, Handler
from .inbox import DeadLetter
from .intake import THINGSPACE_SOURCES, Verification, receive, unwrap
from .ledger import Ledger
from .settings import ForwardSettings, Settings

__all__ = [
    "THINGSPACE_SOURCES",
    "Context",
    "DeadLetter",
    "ForwardSettings",
    "Handler",
    "Ledger",
    "LedgerDevice",
    "Listener",
    "Settings",
    "Verification",
    "WebhookRejected",
    "receive",
    "unwrap",
]

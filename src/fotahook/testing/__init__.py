"""Lends it: what tests of fotahook's users need, and the demo shows."""

from .campaigns import CampaignMessage, campaign
from .certificates import Certificates, make_certificates
from .listener import Answered, ListenerClient, listener_client
from .messages import firmware_available, upgrade_progress, upgrade_scheduled
from .sandbox import Delivered, Sandbox

__all__ = [
    "Answered",
    "CampaignMessage",
    "Certificates",
    "Delivered",
    "ListenerClient",
    "Sandbox",
    "campaign",
    "firmware_available",
    "listener_client",
    "make_certificates",
    "upgrade_progress",
    "upgrade_scheduled",
]

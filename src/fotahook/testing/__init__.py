"""Lends it: what tests of fotahook's users need, and the demo shows."""

from .campaigns import CampaignMessage, campaign
from .certificates import Certificates, make_certificates
from .sandbox import Delivered, Sandbox

__all__ = ["CampaignMessage", "Certificates", "Delivered", "Sandbox", "campaign", "make_certificates"]

"""Lends it: what tests of fotahook's users need, and the demo shows."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .campaigns import CampaignMessage, campaign
    from .certificates import Certificates, make_certificates
    from .engine import Delivered
    from .listener import Answered, Forwarded, ListenerClient, listener_client
    from .messages import firmware_available, upgrade_progress, upgrade_scheduled
    from .receiver import Received, Receiver
    from .rehearsal import Rehearsed
    from .sandbox import Sandbox
    from .script import FaultScript, ScriptInvalid, parse_fault_script, read_fault_script
    from .simulation import Simulation
    from .troubles import Faults

__all__ = [
    "Answered",
    "CampaignMessage",
    "Certificates",
    "Delivered",
    "FaultScript",
    "Faults",
    "Forwarded",
    "ListenerClient",
    "Received",
    "Receiver",
    "Rehearsed",
    "Sandbox",
    "ScriptInvalid",
    "Simulation",
    "campaign",
    "firmware_available",
    "listener_client",
    "make_certificates",
    "parse_fault_script",
    "read_fault_script",
    "upgrade_progress",
    "upgrade_scheduled",
]

# Loaded when asked for: pytest loads the plugin of this package in every run, whether a test uses it or not.
_MODULES = {
    "campaigns": ("CampaignMessage", "campaign"),
    "certificates": ("Certificates", "make_certificates"),
    "engine": ("Delivered",),
    "listener": ("Answered", "Forwarded", "ListenerClient", "listener_client"),
    "messages": ("firmware_available", "upgrade_progress", "upgrade_scheduled"),
    "receiver": ("Received", "Receiver"),
    "rehearsal": ("Rehearsed",),
    "sandbox": ("Sandbox",),
    "script": ("FaultScript", "ScriptInvalid", "parse_fault_script", "read_fault_script"),
    "simulation": ("Simulation",),
    "troubles": ("Faults",),
}
_LAZY = {name: module for module, names in _MODULES.items() for name in names}


# Hidden from type checkers, which would else take any misspelt name for one of these.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in _LAZY:
            raise AttributeError(f"module 'fotahook.testing' has no attribute {name!r}")
        try:
            return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
        except ModuleNotFoundError as error:
            if (error.name or "").startswith("fotahook"):
                raise
            extras = "pip install 'fotahook[service,listener,testing]'"
            raise ImportError(f"fotahook.testing.{name} needs {error.name}: {extras}") from error


def __dir__() -> list[str]:
    return __all__

"""What tests of applications need: a sandbox, a client for listeners, simulated campaigns."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .certificates import Certificates, make_certificates
    from .listener import Answered, Forwarded, ListenerClient, listener_client
    from .sandbox.fault_injection import Faults
    from .sandbox.receiver import Received, Receiver
    from .sandbox.sandbox import Sandbox, ScriptResult
    from .sandbox.service import Delivered
    from .simulator.campaign import CampaignMessage, Simulation, campaign
    from .simulator.fault_script import FaultScript, ScriptInvalid, parse_fault_script, read_fault_script
    from .simulator.messages import firmware_available, upgrade_progress, upgrade_scheduled

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
    "Sandbox",
    "ScriptInvalid",
    "ScriptResult",
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

# Imported on first use: pytest loads the plugin of this package in every run, whether a test uses it or not.
_MODULES = {
    "certificates": ("Certificates", "make_certificates"),
    "listener": ("Answered", "Forwarded", "ListenerClient", "listener_client"),
    "sandbox.fault_injection": ("Faults",),
    "sandbox.receiver": ("Received", "Receiver"),
    "sandbox.sandbox": ("Sandbox", "ScriptResult"),
    "sandbox.service": ("Delivered",),
    "simulator.campaign": ("CampaignMessage", "Simulation", "campaign"),
    "simulator.fault_script": ("FaultScript", "ScriptInvalid", "parse_fault_script", "read_fault_script"),
    "simulator.messages": ("firmware_available", "upgrade_progress", "upgrade_scheduled"),
}
_LAZY = {name: module for module, names in _MODULES.items() for name in names}


# Hidden from type checkers: they would accept any misspelt name.
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

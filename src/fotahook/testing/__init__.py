"""What tests of applications need: a sandbox, a client for listeners, simulated campaigns."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .certificates import Certificates as Certificates
    from .certificates import make_certificates as make_certificates
    from .listener import Answered as Answered
    from .listener import Forwarded as Forwarded
    from .listener import ListenerClient as ListenerClient
    from .listener import listener_client as listener_client
    from .sandbox.sandbox import Sandbox as Sandbox
    from .sandbox.sandbox import ScriptResult as ScriptResult
    from .sandbox.servers import Received as Received
    from .sandbox.servers import Receiver as Receiver
    from .sandbox.service import Delivered as Delivered
    from .simulator.campaign import CampaignMessage as CampaignMessage
    from .simulator.campaign import Simulation as Simulation
    from .simulator.campaign import campaign as campaign
    from .simulator.campaign import firmware_available as firmware_available
    from .simulator.campaign import upgrade_progress as upgrade_progress
    from .simulator.campaign import upgrade_scheduled as upgrade_scheduled
    from .simulator.faults import Faults as Faults
    from .simulator.faults import FaultScript as FaultScript
    from .simulator.faults import ScriptInvalid as ScriptInvalid
    from .simulator.faults import parse_fault_script as parse_fault_script
    from .simulator.faults import read_fault_script as read_fault_script

# Imported on first use: pytest loads the plugin of this package in every run, whether a test uses it or not.
_MODULES = {
    name: module
    for module, names in {
        "certificates": "Certificates make_certificates",
        "listener": "Answered Forwarded ListenerClient listener_client",
        "sandbox.servers": "Received Receiver",
        "sandbox.sandbox": "Sandbox ScriptResult",
        "sandbox.service": "Delivered",
        "simulator.campaign": (
            "CampaignMessage Simulation campaign firmware_available upgrade_progress upgrade_scheduled"
        ),
        "simulator.faults": "Faults FaultScript ScriptInvalid parse_fault_script read_fault_script",
    }.items()
    for name in names.split()
}
__all__ = sorted(_MODULES)


# Hidden from type checkers: they would accept any misspelt name.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(f"module 'fotahook.testing' has no attribute {name!r}")
        try:
            return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
        except ModuleNotFoundError as error:
            if (error.name or "").startswith("fotahook"):
                raise
            extras = "pip install 'fotahook[service,listener,testing]'"
            raise ImportError(f"fotahook.testing.{name} needs {error.name}: {extras}") from error


def __dir__() -> list[str]:
    return __all__

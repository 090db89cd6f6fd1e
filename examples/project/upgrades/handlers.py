"""The listener: one handler for successful upgrades, one for failed ones."""

from pathlib import Path

import fotahook

from .ledger import Ledger


def make_listener(ledger: Ledger, inbox: str = "sqlite:///inbox.db") -> fotahook.Listener:
    """A listener that writes to a ledger."""
    listener = fotahook.Listener(inbox=inbox)

    @listener.on("upgradeProgress", status="UpgradeSuccess")
    def upgraded(message: fotahook.CallbackMessage) -> None:
        for device in message.devices:
            ledger.note(device.device_id or "", upgraded=True, reason=device.result_reason or "")

    @listener.on("upgradeProgress", status="UpgradedFailed")
    def failed(message: fotahook.CallbackMessage) -> None:
        for device in message.devices:
            ledger.note(device.device_id or "", upgraded=False, reason=device.result_reason or "")

    return listener


def __getattr__(name: str) -> fotahook.Listener:
    # For `fotahook listen upgrades.handlers:listener`; the tests create listeners with their own ledgers.
    if name == "listener":
        return make_listener(Ledger(Path("upgrades.db")))
    raise AttributeError(name)

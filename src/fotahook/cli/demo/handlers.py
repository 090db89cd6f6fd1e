"""The handlers of `fotahook demo`: what an application would write, with a ledger in place of its own business."""

import json
from pathlib import Path
from typing import Final

from fotahook.contract.messages import CallbackMessage
from fotahook.listener import Context, Listener

LEDGER: Final = Path("handled.jsonl")
"""In the listener's working directory: a line for each message handled, as the handlers saw it."""

listener = Listener()


@listener.on("upgradeScheduled")
@listener.on("upgradeProgress")
def note(message: CallbackMessage, context: Context) -> None:
    """Write down which device reported what."""
    (device,) = message.devices
    entry = {"id": context.id, "device": device.device_id, "status": device.status}
    with LEDGER.open("a") as ledger:
        ledger.write(json.dumps(entry) + "\n")

"""A listener with handlers. Run it with ``fotahook listen listener:listener`` or ``uvicorn listener:listener``."""

import fotahook
from fotahook.listener import Context

# With public_keys=("ACCOUNT=whpk_…",) the listener accepts only messages signed for that account; `fotahook serve` has
# the key at /v1/accounts/{account}/signing-key. ThingSpace signs nothing.
listener = fotahook.Listener(inbox="sqlite:///inbox.db")


@listener.on("upgradeProgress", status="UpgradeSuccess")
async def upgraded(message: fotahook.CallbackMessage) -> None:
    for device in message.devices:
        print(f"{device.device_id} of campaign {message.campaign_id}: {device.status}")


@listener.on("firmwareList")
def available(message: fotahook.CallbackMessage) -> None:
    for firmware in message.firmware_list:
        print(f"new firmware {firmware.firmware_name} for {firmware.make} {firmware.model}")


@listener.on_any
def record(message: fotahook.CallbackMessage, context: Context) -> None:
    # If a handler raises, it is called again later, with the same id: use the id to avoid doing the work twice.
    print(f"{context.id} attempt {context.attempt}: {message.kind}, {len(message.raw)} bytes")

"""Hands messages to tables of your own, exactly once: the writes commit with the message, or not at all.

    export INBOX=postgresql://user@host/database
    fotahook listen queue_postgres:listener

The inbox and your tables are in one database.
"""

import os

from fotahook import CallbackMessage, Listener
from fotahook.listener import Context

listener = Listener(os.environ["INBOX"])


@listener.on("upgradeProgress")
async def record(message: CallbackMessage, context: Context) -> None:
    """Write a row for each device, and a job for a worker that takes it from the table `jobs`."""
    for device in message.devices:
        await context.transaction.execute(
            "insert into upgrades (imei, status, message) values ($1, $2, $3)"
            " on conflict (imei) do update set status = excluded.status, message = excluded.message",
            device.device_id,
            device.status,
            context.id,
        )
    await context.transaction.execute("insert into jobs (body) values ($1)", message.raw)

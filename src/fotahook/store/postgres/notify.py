"""Notifications between the processes of one PostgreSQL store that a lane may have become due. They may be lost.

Their connection also notices that the server hangs: it asks for a sign of life, and connects anew without one.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from ..records import StoreError
from .connection import translated
from .servers import Connection

log = logging.getLogger("fotahook.store")

INTERVAL_SECONDS: Final = 0.01
"""Minimum time between two notifications; those sent meanwhile become one."""
RECONNECT_SECONDS: Final = 1.0
SILENCE_SECONDS: Final = 1.0
"""After so long without a notification the server is asked for a sign of life, and it has as long to give one."""


class Notifier:
    """Notifies other processes of work, and sets `work` when they notify this one; has a connection of its own."""

    def __init__(self, connect: Callable[[], Awaitable[Connection]], work: asyncio.Event) -> None:
        self._connect = connect
        self._work = work
        self._pending = asyncio.Event()
        self._task = asyncio.create_task(self._keep_connected())

    def notify(self) -> None:
        """Wake dispatchers that wait for work: here at once, elsewhere soon. Call it after the commit."""
        self._work.set()
        self._pending.set()

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _keep_connected(self) -> None:
        while True:
            try:
                await self._exchange()
            except StoreError as error:
                log.info("no notifications from other processes at the moment: %s", error)
            await asyncio.sleep(RECONNECT_SECONDS)

    async def _exchange(self) -> None:
        """Receive and send notifications until the connection is lost."""
        connection = await self._connect()
        try:
            with translated():
                channel = await connection.fetchval("select 'fotahook_' || current_schema()::regnamespace::oid")
                connection.add_termination_listener(lambda _: self._pending.set())
                own = connection.get_server_pid()

                def receive(_: object, pid: int, channel: str, payload: object) -> None:
                    if pid != own:
                        self._work.set()

                await connection.add_listener(channel, receive)
                # Notifications sent before this moment are lost.
                self._work.set()
                while True:
                    statement = "select pg_notify($1, '')" if await self._is_pending() else "select $1::text"
                    await connection.execute(statement, channel, timeout=SILENCE_SECONDS)
                    await asyncio.sleep(INTERVAL_SECONDS)
        finally:
            connection.terminate()

    async def _is_pending(self) -> bool:
        """Whether there is something to notify of, within SILENCE_SECONDS."""
        try:
            async with asyncio.timeout(SILENCE_SECONDS):
                await self._pending.wait()
        except TimeoutError:
            return False
        self._pending.clear()
        return True

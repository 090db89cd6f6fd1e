"""The service is killed, again and again, while messages come in: whatever it said 202 to is handled, once."""

import asyncio
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from fotahook.client import AsyncOperatorClient, Client
from fotahook.contract.auth import SessionCredentials, ThingspaceOauthCredentials
from fotahook.contract.errors import ServerError, TransportError
from fotahook.contract.models import FotaV2CallbackRegistrationRequest
from fotahook.store import open_store
from tests.cli.processes import Running, end, running, start
from tests.deadlines import DEADLINE
from tests.ports import unused_port

ACCOUNT: Final = "0000123456-00001"
MESSAGES: Final = 1_000
KILLS: Final = 3
PUBLISHERS: Final = 16

HANDLERS: Final = """
import json
from fotahook import Listener

listener = Listener()

@listener.on_any
def note(message, context):
    with open("handled.jsonl", "a") as ledger:
        ledger.write(json.dumps([message.extra["number"], context.id]) + "\\n")
"""


class Service:
    """A service at one port and one file, as often as it has to be started."""

    def __init__(self, folder: Path) -> None:
        self._port = unused_port()
        self._folder = folder
        self.url = f"http://127.0.0.1:{self._port}"
        self.begin()

    def begin(self) -> None:
        self._running = start("serve", "--dev", "--port", str(self._port), cwd=self._folder)

    def kill(self) -> None:
        """SIGKILL: nothing is flushed, nobody is told."""
        end(self._running.process)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    service = Service(tmp_path)
    try:
        yield service
    finally:
        service.kill()


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Running]:
    (tmp_path / "handlers.py").write_text(HANDLERS)
    with running("listen", "handlers:listener", "--port", "0", cwd=tmp_path) as listener:
        yield listener


class Publisher:
    """Publishes messages by number until each was accepted, under the same key however often it takes."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._numbers = iter(range(MESSAGES))
        self.accepted: dict[int, str] = {}
        self.progress = asyncio.Condition()

    async def run(self) -> None:
        async with (
            AsyncOperatorClient(self._url, "dev", "dev-secret", proxy="") as client,
            asyncio.TaskGroup() as tasks,
        ):
            for _ in range(PUBLISHERS):
                tasks.create_task(self._publish_some(client))

    async def wait_accepted(self, least: int) -> None:
        async with asyncio.timeout(3 * DEADLINE), self.progress:
            await self.progress.wait_for(lambda: len(self.accepted) >= least)

    async def _publish_some(self, client: AsyncOperatorClient) -> None:
        for number in self._numbers:
            message_id = await self._publish(client, number)
            async with self.progress:
                self.accepted[number] = message_id
                self.progress.notify_all()

    async def _publish(self, client: AsyncOperatorClient, number: int) -> str:
        body = b'{"accountName": "%b", "number": %d}' % (ACCOUNT.encode(), number)
        while True:
            try:
                return (await client.publish(ACCOUNT, body, idempotency_key=f"n{number}")).id
            except (TransportError, ServerError):
                # Whether it was accepted is not known: that is what the key is for. The SDK has waited already.
                continue


def read_ledger(folder: Path) -> list[tuple[int, str]]:
    """Number and inbox id of each message handled so far, in that order."""
    ledger = folder / "handled.jsonl"
    return [tuple(json.loads(line)) for line in ledger.read_text().splitlines()] if ledger.exists() else []


async def wait_for(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(3 * DEADLINE):
        while not condition():  # noqa: ASYNC110 what is waited for happens in other processes
            await asyncio.sleep(0.05)


def register(service: Service, url: str) -> None:
    with Client(
        base_url=service.url,
        thingspace_oauth_credentials=ThingspaceOauthCredentials("dev", "dev-secret"),
        vz_m2m_token_credentials=SessionCredentials("dev", "dev-password"),
        proxy="",
    ) as client:
        body = FotaV2CallbackRegistrationRequest(url)
        client.software_management_callbacks_v2.register_callback(ACCOUNT, body)


async def test_a_service_that_is_killed_loses_nothing_it_accepted(
    service: Service, listener: Running, tmp_path: Path
) -> None:
    await asyncio.to_thread(register, service, listener.url)
    publisher = Publisher(service.url)
    publishing = asyncio.create_task(publisher.run())
    for accepted in sorted(random.Random(20260101).sample(range(MESSAGES // 10, MESSAGES * 9 // 10), KILLS)):
        await publisher.wait_accepted(accepted)
        await asyncio.to_thread(service.kill)
        await asyncio.to_thread(service.begin)
    await publishing
    await wait_for(lambda: len(read_ledger(tmp_path)) >= MESSAGES)

    handled = read_ledger(tmp_path)
    assert sorted(number for number, _ in handled) == list(range(MESSAGES)), "each was handled, and once"
    assert len(set(publisher.accepted.values())) == MESSAGES, "one id for each, however often it was published"
    print(f"{await duplicates(tmp_path, handled)} duplicates were dropped by the listener")
    assert listener.stop() == 0


async def duplicates(folder: Path, handled: list[tuple[int, str]]) -> int:
    """How often a message came again to the listener, and was dropped."""
    inbox = await open_store(f"sqlite:///{folder / 'inbox.db'}")
    try:
        messages = [await inbox.message(message_id) for _, message_id in handled]
    finally:
        await inbox.close()
    return sum(message.duplicates for message in messages if message is not None)

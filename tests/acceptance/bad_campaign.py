"""A campaign on which everything happens that ThingSpace was seen to do, against a receiver that is killed meanwhile.

The receiver is a process of its own on a fixed port. The sender is a sandbox with the profile of ThingSpace, whose
virtual clock makes its waits short; only outages of the receiver's database and slow answers take real time.
"""

import asyncio
import contextlib
import multiprocessing
import os
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from random import Random
from typing import Any, Final

import msgspec

from fotahook import BatchMessage, CallbackMessage, Listener
from fotahook.listener import Context
from fotahook.store import open_store
from fotahook.testing import Sandbox, Simulation
from fotahook.testing.sandbox.servers import serving
from tests.deadlines import DEADLINE
from tests.ports import unused_port

ACCOUNT: Final = "0000123456-00001"
GROUP: Final = 4
"""Devices in one message."""
KILLS: Final = 5
MOVES: Final = 2
OUTAGE_SECONDS: Final = 2.0
SLOW_SECONDS: Final = 4.2
"""Longer than the sender waits before it sends the second copy."""

Serve = Callable[[Path, int, str, str | None, Connection], None]
"""Runs a receiver in its folder, at a port and at a path that replaces another; tells the pipe when it is ready."""

_CONTEXT: Final = multiprocessing.get_context("forkserver")
# With everything loaded, a receiver that was killed is back in a moment.
_CONTEXT.set_forkserver_preload([__name__, "fotahook.store.sqlite.store", "fotahook.client._sync"])


@dataclass
class Receiver:
    """A process that receives at a fixed port, whatever becomes of it."""

    folder: Path
    serve: Serve
    port: int
    path: str = "/first"
    former: str | None = None
    process: ForkServerProcess | None = None

    @property
    def url(self) -> str:
        return self.url_at(self.path)

    def url_at(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def start(self) -> None:
        ready, said = _CONTEXT.Pipe(duplex=False)
        arguments = (self.folder, self.port, self.path, self.former, said)
        self.process = _CONTEXT.Process(target=self.serve, args=arguments, daemon=True)
        self.process.start()
        assert ready.poll(DEADLINE), "the receiver is not ready"
        ready.recv()
        self.former = None

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.join(DEADLINE)


@contextlib.contextmanager
def a_receiver(folder: Path, serve: Serve) -> Iterator[Receiver]:
    receiver = Receiver(folder, serve, unused_port())
    receiver.start()
    try:
        yield receiver
    finally:
        receiver.kill()


@dataclass
class BadCampaign:
    """The messages of a campaign, and what happens while they are sent."""

    sandbox: Sandbox
    receiver: Receiver
    database: str
    """The file in the receiver's folder that is away at times."""
    seed: int
    devices: int = 2000
    campaign: Simulation = field(init=False)

    def __post_init__(self) -> None:
        self.campaign = Simulation(ACCOUNT, devices=self.devices, failures=0.1, seed=self.seed)
        self._rng = Random(f"bad campaign {self.seed}")

    def truth(self) -> dict[str, str]:
        """The last status of each device, as ThingSpace's report has it."""
        with self.sandbox.client() as client:
            found = client.software_management_reports_v2.iter_campaign_devices(ACCOUNT, self.campaign.campaign_id)
            return {device.device_id or "": device.status or "" for device in found}

    def run(self) -> None:
        """Send everything. What was lost on the way is not sent again."""
        self.sandbox.register(ACCOUNT, self.receiver.url)
        moves = iter(["/second", "/third"])
        troubles: list[Callable[[list[bytes]], None]] = [
            *[lambda bodies: self._kill(bodies)] * (KILLS - MOVES),
            *[lambda bodies: self._kill(bodies, next(moves))] * MOVES,
            *[self._outage] * 2,
            self._slow_answers,
            self._refusals,
            self._drops,
            self._nobody_registered,
        ]
        self._rng.shuffle(troubles)
        bodies = list(grouped(self.campaign))
        size = len(bodies) // (len(troubles) + 1)
        for number, trouble in enumerate(troubles):
            trouble(bodies[number * size : (number + 1) * size])
            self.sandbox.drain(DEADLINE)
        # The last results, after which no message tells what was lost.
        self._refusals(bodies[len(troubles) * size :])
        self.sandbox.drain(DEADLINE)

    def _publish(self, bodies: list[bytes]) -> None:
        if bodies:
            with self.sandbox.operator() as operator:
                operator.publish_batch([BatchMessage(ACCOUNT, body) for body in bodies])

    def _kill(self, bodies: list[bytes], path: str | None = None) -> None:
        """Kill the receiver in the middle of these messages; it comes back, perhaps at another path."""
        before = len(self.sandbox.deliveries())
        self._publish(bodies)
        wanted = self._rng.randint(1, max(1, len(bodies) // 2))
        deadline = time.monotonic() + DEADLINE
        while len(self.sandbox.deliveries()) - before < wanted:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        self.receiver.kill()
        if path is not None:
            self.receiver.path, self.receiver.former = path, self.receiver.path
        self.receiver.start()
        if path is not None:
            with self.sandbox.client() as client:
                client.move_callback(ACCOUNT, self.receiver.url)

    def _outage(self, bodies: list[bytes]) -> None:
        """The receiver's database can be written by nobody for two seconds."""
        with contextlib.closing(sqlite3.connect(self.receiver.folder / self.database, timeout=DEADLINE)) as holder:
            holder.execute("begin immediate")
            self._publish(bodies)
            threading.Event().wait(OUTAGE_SECONDS)
            holder.rollback()

    def _slow_answers(self, bodies: list[bytes]) -> None:
        self.sandbox.faults.delay_deliveries(SLOW_SECONDS, times=5)
        self._publish(bodies)

    def _refusals(self, bodies: list[bytes]) -> None:
        """As if another service stood in front of the receiver: some messages are refused twice, and are lost."""
        self.sandbox.faults.answer_deliveries(503, times=len(bodies) // 2)
        self._publish(bodies)

    def _drops(self, bodies: list[bytes]) -> None:
        self.sandbox.faults.drop_deliveries(times=len(bodies) + len(bodies) // 2)
        self._publish(bodies)

    def _nobody_registered(self, bodies: list[bytes]) -> None:
        with self.sandbox.client() as client:
            client.software_management_callbacks_v2.deregister_callback(ACCOUNT)
            self._publish(bodies[:10])
        self.sandbox.register(ACCOUNT, self.receiver.url)
        self._publish(bodies[10:])


def grouped(campaign: Simulation) -> Iterator[bytes]:
    """The campaign's messages, with several devices in those about devices."""
    waiting: list[Any] = []
    last: Any = None
    for message in campaign:
        content = msgspec.json.decode(message.body)
        part = content.get("upgradeProgress")
        if part is None:
            yield from _end(last, waiting)
            yield message.body
            waiting = []
            continue
        waiting += part["deviceList"]
        last = content
        if len(waiting) == GROUP:
            yield from _end(last, waiting)
            waiting = []


def _end(content: Any, devices: list[Any]) -> Iterator[bytes]:
    if devices:
        part = {**content["upgradeProgress"], "deviceList": devices}
        yield msgspec.json.encode({**content, "upgradeProgress": part})


def append(file: Path, *facts: object) -> None:
    """Add a line to a file that several processes write, one after the other."""
    descriptor = os.open(file, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    try:
        os.write(descriptor, msgspec.json.encode(facts) + b"\n")
    finally:
        os.close(descriptor)


def listen(folder: Path, port: int, path: str, former: str | None, ready: Connection) -> None:
    """A listener whose handler notes what it sees."""
    listener = Listener(
        f"sqlite:///{folder}/inbox.db",
        path=path,
        sources=("thingspace",),
        trusted_proxies=("127.0.0.1/32",),
        schedule=(0, 0, 0),
    )

    @listener.on_any
    async def note(message: CallbackMessage, context: Context) -> None:
        seen = [(device.device_id, device.status, device.stale) for device in message.devices]
        append(folder / "handled", context.id, message.source, seen)

    async def run() -> None:
        url, previous = (f"http://127.0.0.1:{port}{each}" for each in (path, former or path))
        with socket.create_server(("127.0.0.1", port)) as bound:
            async with listener.running(), serving(listener, bound):
                await listener.move(ACCOUNT, previous, url)
                ready.send(None)
                await asyncio.Event().wait()

    asyncio.run(run())


async def reconcile(campaign: BadCampaign, folder: Path) -> tuple[int, int, dict[str, str | None]]:
    """Compare the inbox with the report: how much was repaired now and ever, and the ledger then."""
    inbox, campaign_id = f"sqlite:///{folder}/inbox.db", campaign.campaign.campaign_id
    listener, found, after = Listener(inbox), dict[str, str | None](), ""
    async with listener.running():
        with campaign.sandbox.client() as client:
            repaired = await listener.reconcile(client, ACCOUNT, campaign_id)
            assert await listener.reconcile(client, ACCOUNT, campaign_id) == 0
        while page := await listener.ledger_devices(ACCOUNT, campaign_id, after=after):
            found |= {device.device: device.status for device in page}
            after = page[-1].device
        counted = (await listener.ledger(ACCOUNT, campaign_id)).repaired
    store = await open_store(inbox)
    async with asyncio.timeout(DEADLINE):
        # The receiver's process handles what was repaired.
        while (await store.backlog()).pending:  # noqa: ASYNC110  # what is waited for is another process
            await asyncio.sleep(0.01)
    await store.close()
    return repaired, counted, found

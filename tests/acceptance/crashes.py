"""Services that are killed, publishers that do not give up, a receiver that remembers, and what must hold."""

import asyncio
import base64
import contextlib
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Final

from fotahook.client import AsyncOperatorClient
from fotahook.contract.errors import TransportError
from fotahook.service import DEV_CLIENT
from fotahook.store import open_store
from fotahook.store.records import Message
from tests.deadlines import DEADLINE

"""Seconds after which something is stuck; nothing here takes a tenth of that."""
ACCOUNTS: Final = ("0000123456-00001", "0000123456-00002", "0000123456-00003")
KEYS: Final = ("device-a", "device-b", None)
SECRET_KEY: Final = base64.urlsafe_b64encode(bytes(32)).decode()
MOST_BACKLOG: Final = 200
"""Messages that publishers are ahead of the receiver; they wait while lanes rest in dead hands."""
READS: Final = 4
LAST_WORDS: Final = 3
"""What each publisher still publishes when there is no more killing to be done."""


async def until(true: Callable[[], object]) -> None:
    """Return when something has become true."""
    async with asyncio.timeout(DEADLINE):
        while not true():  # noqa: ASYNC110  # what is waited for is another process
            await asyncio.sleep(0.002)


class Receiver:
    """Answers every message with 200 and remembers it. `progress` counts what was published and received so far."""

    def __init__(self) -> None:
        self.arrivals: list[tuple[str, bytes]] = []
        self.ids: set[str] = set()
        self.progress = 0
        self.url = ""
        self._connections: set[asyncio.Task[None]] = set()
        self._alarms: list[tuple[int, Callable[[], None]]] = []

    @asynccontextmanager
    async def listening(self) -> AsyncIterator["Receiver"]:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/callbacks"
        try:
            yield self
        finally:
            server.close()
            for task in self._connections:
                task.cancel()
            await asyncio.gather(*self._connections, return_exceptions=True)

    def step(self) -> None:
        """One message more was published or received."""
        self.progress += 1
        due = [alarm for alarm in self._alarms if alarm[0] <= self.progress]
        self._alarms = [alarm for alarm in self._alarms if alarm not in due]
        for _, act in due:
            act()

    def after(self, steps: int, act: Callable[[], None]) -> None:
        """Act, in the middle of everything, when so many more steps were made."""
        self._alarms.append((self.progress + steps, act))

    async def quiet(self) -> None:
        """Return when everything that was sent by processes that are gone has been read."""
        await until(lambda: not self._connections)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                lines = (line.partition(": ") for line in head.decode().split("\r\n"))
                headers = {name.lower(): value for name, _, value in lines}
                body = await reader.readexactly(int(headers["content-length"]))
                self.arrivals.append((headers["webhook-id"], body))
                self.ids.add(headers["webhook-id"])
                self.step()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            self._connections.discard(task)
            writer.close()


@dataclass(eq=False)
class Service:
    """A `fotahook serve` process. `client` is None if it died before it was ready, or takes no calls."""

    process: asyncio.subprocess.Process
    client: AsyncOperatorClient | None
    log: Path

    @property
    def alive(self) -> bool:
        return self.process.returncode is None

    def kill(self) -> None:
        if self.alive:
            self.process.kill()

    async def ended(self) -> int:
        """Wait for the end of the process; its exit code."""
        async with asyncio.timeout(DEADLINE):
            return await self.process.wait()


@dataclass
class World:
    """One store, one receiver, publishers, and services that come and go."""

    store: str
    folder: Path
    receiver: Receiver
    stack: AsyncExitStack
    accounts: tuple[str, ...] = ACCOUNTS
    flags: tuple[str, ...] = ()
    services: list[Service] = field(default_factory=list)
    accepted: dict[str, bytes] = field(default_factory=dict)
    """Body by message id, for everything that was answered with 202."""
    order: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    """Ids in accepted order, by account and ordering key."""
    repeated: int = 0
    """How often the answer to a repeated publication was that it had been accepted before."""
    in_hand: Counter[str] = field(default_factory=Counter)
    """At how many kills of the only service each message was received, but not settled."""
    settled: list[set[str]] = field(default_factory=list)
    """What was settled when one service of several was killed: who had the rest in hand is not known."""
    going: asyncio.Event = field(default_factory=asyncio.Event)
    """Cleared from a kill to the next start, so that a service that lives on is not published to without end."""
    enough: asyncio.Event = field(default_factory=asyncio.Event)

    async def register(self) -> None:
        """Register the receiver for every account."""
        store = await open_store(self.store)
        for account in self.accounts:
            await store.register(account, self.receiver.url, actor="test")
        await store.close()

    async def start(self, fault: str | None = None, role: str = "all") -> Service:
        """A service that is ready, or that a fault point has killed already; without a client if it takes no calls."""
        log = self.folder / f"serve-{len(self.services)}.log"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("FOTAHOOK_")}
        environment["FOTAHOOK_SECRET_KEY"] = SECRET_KEY
        if fault is not None:
            environment["FOTAHOOK_FAULT"] = fault
        with log.open("wb") as stderr:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "fotahook", "serve", "--dev", "--port", "0", "--store", self.store),
                *("--role", role),
                *self.flags,
                cwd=self.folder,
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=stderr,
            )
        self.stack.push_async_callback(_end, process)
        assert process.stdout is not None
        async with asyncio.timeout(DEADLINE):
            ready = (await process.stdout.readline()).decode().split()
        client = None
        if ready and role != "dispatcher":
            client = AsyncOperatorClient(ready[2], *DEV_CLIENT, max_retries=0, proxy="")
            await self.stack.enter_async_context(client)
        service = Service(process, client, log)
        self.services.append(service)
        self.going.set()
        return service

    @asynccontextmanager
    async def publishing(self) -> AsyncIterator[None]:
        """Publishers at work; on leaving they finish, and everything they were promised has arrived."""
        async with asyncio.TaskGroup() as publishers:
            for account in self.accounts:
                for key in KEYS:
                    publishers.create_task(self._publish(account, key))
            yield
            self.enough.set()
            self.going.set()
        with contextlib.suppress(TimeoutError):
            await until(lambda: self.accepted.keys() <= self.receiver.ids)
        assert not self.accepted.keys() - self.receiver.ids, "accepted, but never received"

    @property
    def received(self) -> Counter[str]:
        return Counter(message_id for message_id, _ in self.receiver.arrivals)

    @property
    def backlog(self) -> int:
        """How many messages are accepted and not received so far."""
        return len(self.accepted) - len(self.receiver.ids)

    async def killed(self, service: Service) -> None:
        """Wait until a service was killed, and note what it had in hand then."""
        code = await service.ended()
        self.going.clear()
        assert code == -signal.SIGKILL, service.log.read_text()
        if any(other.alive for other in self.services):
            known = self.accepted.keys() | self.received.keys()
            self.settled.append(known - set(await self._pending(known)))
        else:
            await self.receiver.quiet()
            self.in_hand.update(await self._pending(self.received))

    async def _pending(self, ids: Iterable[str]) -> list[str]:
        store = await open_store(self.store)
        # No more at once than a store has connections: who waits too long for one is refused.
        places = asyncio.Semaphore(READS)

        async def read(message_id: str) -> Message | None:
            async with places:
                return await store.message(message_id)

        try:
            found = await asyncio.gather(*map(read, ids))
        finally:
            await store.close()
        return [message.id for message in found if message is not None and message.deliveries[0].state == "pending"]

    async def _publish(self, account: str, key: str | None) -> None:
        """Publish one message after the other, each until it is accepted."""
        left = LAST_WORDS
        for number in count():
            if self.enough.is_set():
                left -= 1
            if left < 0:
                return
            await self.going.wait()
            await until(lambda: self.backlog < MOST_BACKLOG or self.enough.is_set())
            name = f"{account}/{key}/{number}"
            body = b'{"n": %d, "of": "%s"}' % (number, f"{account} {key}".encode())
            await self._insist(account, key, name, body)

    async def _insist(self, account: str, key: str | None, name: str, body: bytes) -> None:
        ids: set[str] = set()
        async with asyncio.timeout(DEADLINE):
            while not ids:
                # The youngest first: it is the one that is to die.
                for client in [one.client for one in reversed(self.services) if one.alive and one.client]:
                    try:
                        answer = await client.publish(account, body, ordering_key=key, idempotency_key=name)
                    except TransportError:
                        continue
                    ids.add(answer.id)
                    self.repeated += answer.duplicate
                    break
                else:
                    await asyncio.sleep(0.01)
        (message_id,) = ids
        self.accepted[message_id] = body
        if key is not None:
            self.order.setdefault((account, key), []).append(message_id)
        self.receiver.step()

    # What must hold

    async def check(self) -> None:
        """Nothing lost, nothing twice but what was in hand at a kill, first deliveries of a key in accepted order."""
        received = self.received
        assert received.keys() == self.accepted.keys()
        assert dict(self.receiver.arrivals) == self.accepted
        twice = [message_id for message_id, times in received.items() if times > 1 + self._kills_it_was_in(message_id)]
        assert not twice, "received again though it was not in hand at a kill"
        first = list(dict.fromkeys(message_id for message_id, _ in self.receiver.arrivals))
        for ids in self.order.values():
            mine = set(ids)
            assert [message_id for message_id in first if message_id in mine] == ids
        await self._check_settled()

    def _kills_it_was_in(self, message_id: str) -> int:
        return self.in_hand[message_id] + sum(message_id not in settled for settled in self.settled)

    async def _check_settled(self) -> None:
        """A service that is asked to stop has settled everything."""
        for service in self.services:
            if service.alive:
                service.process.terminate()
                assert await service.ended() == 0, service.log.read_text()
        store = await open_store(self.store)
        lanes = [lane for account in self.accounts for lane in await store.lanes(account)]
        await store.close()
        assert [(lane.pending, lane.dead) for lane in lanes] == [(0, 0)] * len(self.accounts)


@asynccontextmanager
async def a_world(store: str, folder: Path, *flags: str, accounts: tuple[str, ...] = ACCOUNTS) -> AsyncIterator[World]:
    """A world in which nothing runs yet but the receiver. Nothing that was started in it outlives it."""
    async with AsyncExitStack() as stack:
        receiver = await stack.enter_async_context(Receiver().listening())
        world = World(store, folder, receiver, stack, accounts, flags)
        await world.register()
        yield world


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.wait()
    # Reads what is left and lets go of the pipe.
    await process.communicate()

"""A whole installation, publishers and receivers around it, and the faults that befall it while they are at work."""

import asyncio
import dataclasses
import random
import signal
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from fotahook.contract.errors import ApiException, AuthenticationError, TransportError
from fotahook.store import open_store
from tests.deadlines import DEADLINE

from .ledger import Ledger, Promise, Verdict, Window
from .links import Link
from .machines import SECRETS, Clock, Databases, Node, grow_limit
from .names import NameServer
from .receivers import Receivers
from .schedule import Engine, Fault, Step

STEADY: Final = ("steady-00001", "steady-00002", "steady-00003")
"""Accounts whose receivers are always well."""
TROUBLED: Final = ("troubled-00001", "troubled-00002", "troubled-00003")
ACCOUNTS: Final = STEADY + TROUBLED
KEYS: Final = ("device-a", "device-b", None)
ATTEMPT_SECONDS: Final = 2.0
LEASE_SECONDS: Final = 7.0
"""The shortest that attempts of two seconds allow."""
FLAGS: Final = (
    *("--lease", f"{LEASE_SECONDS:g}", "--timeout", f"{ATTEMPT_SECONDS:g}", "--connect-timeout", "1"),
    *("--requests-per-minute", "0"),
    # No message is given up in a test.
    *("--schedule", "0", *["1"] * 40),
)
GRACE_SECONDS: Final = ATTEMPT_SECONDS + 1
DAY: Final = 86400.0
MOST_BACKLOG: Final = 60
"""Messages that an account's publishers are ahead of its receiver."""
PUBLISH_SECONDS: Final = 0.1
"""Between two messages of one publisher."""
LAST_WORDS: Final = 2
"""What each publisher still publishes when all faults are over."""

STUCK: Final = "nothing is accepted or received any more"
SLOW: Final = "a slow machine"
"""What explains a duplicate after an attempt that timed out."""
READS: Final = 3
"""How many lost messages are looked up in the store."""
LENGTHS: Final = {
    "SIGKILL": (0.0, 1.0),
    "SIGSTOP": (LEASE_SECONDS + 0.5, LEASE_SECONDS + 1.5),
    "40 days ahead": (0.5, 3.0),
    "40 days back": (0.5, 3.0),
    "full": (0.5, 2.0),
    "hangs": (1.5, 4.0),
    # A former primary that is back before anybody missed it would be left by nobody.
    "failover of a frozen one": (5.0, 6.0),
}
"""Seconds that faults last, by how they are; those that are not here last 0.5 to 3."""


async def until(true: Callable[[], object], seconds: float | None = DEADLINE) -> None:
    """Return when something has become true; TimeoutError if it does not within these seconds."""
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110  # what is waited for is another process
            await asyncio.sleep(0.005)


class World:
    """What runs, and what is noted about it. Made by `a_world`."""

    def __init__(self, folder: Path, stack: AsyncExitStack, accounts: Sequence[str]) -> None:
        self.folder = folder
        self.stack = stack
        self.accounts = accounts
        self.ledger = Ledger(GRACE_SECONDS)
        self.receivers = Receivers(self._arrived)
        self.names = NameServer()
        self.nodes: list[Node] = []
        self.databases: Databases | None = None
        self.links: dict[str, tuple[Link, Link]] = {}
        """To PostgreSQL, by process."""
        self.progress = 0
        """Messages accepted and received so far."""
        self._progressed_at = 0.0
        self.repeated = 0
        """How often the answer to a repeated publication was that it had been accepted before."""
        self._enough = asyncio.Event()
        self._numbers: defaultdict[tuple[str, str | None], Iterator[int]] = defaultdict(count)
        """Of the next message, by account and key."""
        self._restarts: list[asyncio.Task[None]] = []
        self._chance = random.Random(0)

    # Setting up

    async def build(self, engine: Engine, roles: Sequence[str], plant: str | None) -> None:
        shared = Path(self.stack.enter_context(TemporaryDirectory(prefix="fotahook-faults-")))
        # PostgreSQL reads its clock here, as another user.
        shared.chmod(0o755)
        self.clock = Clock(shared)
        await self.stack.enter_async_context(self.receivers.listening())
        await self.stack.enter_async_context(self.names.listening())
        self.steady_link = await self.stack.enter_async_context(Link(self.receivers.port).listening())
        self.troubled_link = await self.stack.enter_async_context(Link(self.receivers.port).listening())
        if engine == "postgres":
            self.databases = Databases(self.clock)
            await self.databases.start()
            self.stack.callback(self.databases.stop)
        await self._register()
        self._plant = plant
        async with asyncio.TaskGroup() as starts:
            for role in roles:
                starts.create_task((await self.add(role)).start())

    async def join(self, role: str, path: str | None = None) -> Node:
        """One more process, which is ready; of the fotahook at another path, if one is given."""
        node = await self.add(role)
        node.path = path or node.path
        await node.start()
        return node

    async def leave(self, node: Node) -> None:
        """A process ends in order, and is not missed."""
        node.client = None
        self.nodes.remove(node)
        assert await node.stop() == 0, node.log.read_text()

    @property
    def store(self) -> str:
        """The URL of the store, without links."""
        if self.databases is None:
            return f"sqlite:///{self.folder}/store.db"
        return self.databases.pair.primary.url

    async def _register(self) -> None:
        store = await open_store(self.store)
        for account in self.accounts:
            link = self.troubled_link if account in TROUBLED else self.steady_link
            await store.register(account, f"http://{_host(account)}:{link.port}/{account}", actor="test")
        await store.close()

    async def add(self, role: str) -> Node:
        """One more process, not started yet."""
        name, url = f"{role}-{len(self.nodes)}", self.store
        if self.databases is not None:
            url, self.links[name] = await self.databases.url_for(self.stack)
        variables = {**SECRETS, "FAULTS_CLOCK": str(self.clock.file), "FAULTS_NAMES": str(self.names.port)}
        if self._plant is not None:
            variables["FAULTS_PLANT"] = self._plant
        node = Node(name, role, url, FLAGS, variables, self.folder)
        self.stack.push_async_callback(node.end)
        self.nodes.append(node)
        return node

    # Publishing

    @asynccontextmanager
    async def publishing(self) -> AsyncIterator[None]:
        """Publishers at work; on leaving they finish."""
        self._enough.clear()
        async with asyncio.TaskGroup() as publishers:
            for account in self.accounts:
                for key in KEYS:
                    publishers.create_task(self._publish(account, key))
            yield
            self._enough.set()

    async def _publish(self, account: str, key: str | None) -> None:
        """One message after the other, each until it is accepted: so a key has an order."""
        left = LAST_WORDS
        for number in self._numbers[account, key]:
            left -= self._enough.is_set()
            if left < 0:
                return
            await until(lambda: self.ledger.backlog(account) < MOST_BACKLOG or self._enough.is_set(), None)
            body = f'{{"type": "fault", "of": "{account} {key}", "number": {number}}}'.encode()
            message_id = await self._insist(account, key, f"{account}/{key}/{number}", body)
            self.ledger.promise(message_id, Promise(account, key, body, time.monotonic()))
            self._progress()
            await asyncio.sleep(PUBLISH_SECONDS)

    async def _insist(self, account: str, key: str | None, name: str, body: bytes) -> str:
        began = time.monotonic()
        while True:
            clients = [node.client for node in self.nodes if node.client is not None]
            for client in self._chance.sample(clients, len(clients)):
                try:
                    answer = await client.publish(account, body, ordering_key=key, idempotency_key=name)
                except (TransportError, AuthenticationError):
                    # A token ends when the clock jumps.
                    continue
                except ApiException as error:
                    if error.status_code < 500:
                        raise
                else:
                    self.repeated += answer.duplicate
                    return answer.id
            assert not self._is_stuck(began), STUCK
            await asyncio.sleep(0.05)

    def _arrived(self, account: str, message_id: str, body: bytes) -> None:
        self.ledger.arrive(time.monotonic(), account, message_id, body)
        self._progress()

    def _progress(self) -> None:
        self.progress += 1
        self._progressed_at = time.monotonic()

    async def progressed(self, steps: int) -> None:
        """Return when so many messages more were accepted or received."""
        goal, began = self.progress + steps, time.monotonic()
        await until(lambda: self.progress >= goal or self._is_stuck(began), None)
        assert self.progress >= goal, STUCK

    def _is_stuck(self, since: float) -> bool:
        """Whether nothing was accepted or received for the deadline of all, which began then."""
        return time.monotonic() > max(since, self._progressed_at) + DEADLINE

    # Faults

    async def run(self, schedule: Sequence[Step]) -> None:
        """One step after the other."""
        began = time.monotonic()
        for step in schedule:
            await self.progressed(step.pause)
            print(f"{time.monotonic() - began:5.1f} s: {step}")
            async with AsyncExitStack() as faults:
                faults.push_async_callback(self._all_restarted)
                for fault in step.faults:
                    await faults.enter_async_context(self.suffering(fault, step.number))
                await asyncio.sleep(max(_length(fault, step.length) for fault in step.faults))

    async def died(self, node: Node) -> None:
        """Return when a process has killed itself at its fault point."""
        began = time.monotonic()
        await until(lambda: node.code is not None or self._is_stuck(began), None)
        assert node.code == -signal.SIGKILL, node.log.read_text()
        node.client = None
        self._close(self.ledger.begin(Fault(node.role, "SIGKILL"), None, time.monotonic()))

    @asynccontextmanager
    async def suffering(self, fault: Fault, number: int = 0) -> AsyncIterator[None]:
        """Inject a fault and note its time; on leaving it is over."""
        inject = {
            "disk": self._disk,
            "clock": self._clock,
            "PostgreSQL": self._postgres,
            "link to PostgreSQL": self._store_link,
            "receiver": self._receiver,
            "link to receivers": self._receiver_link,
            "name server": self._name_server,
        }.get(fault.what, self._process)
        single = fault.what in ("receiver", "link to receivers", "name server")
        window = self.ledger.begin(fault, frozenset(TROUBLED) if single else None, time.monotonic())
        try:
            async with inject(fault, number):
                yield
        finally:
            self._close(window)

    def _close(self, window: Window) -> None:
        window.ended = time.monotonic()

    @asynccontextmanager
    async def _process(self, fault: Fault, number: int) -> AsyncIterator[None]:
        nodes = [node for node in self.nodes if node.role == fault.what]
        node = nodes[number % len(nodes)]
        if fault.how == "SIGKILL":
            await node.kill()
            # At once, as a supervisor does. What it needs may be away as yet.
            self._restarts.append(asyncio.create_task(node.start()))
            yield
        else:
            node.freeze()
            try:
                yield
            finally:
                node.thaw()

    async def _all_restarted(self) -> None:
        restarts, self._restarts = self._restarts, []
        await asyncio.gather(*restarts)

    @asynccontextmanager
    async def _disk(self, fault: Fault, number: int) -> AsyncIterator[None]:
        # Killed at the same time, it must run again.
        await self._all_restarted()
        node = self.nodes[0]
        node.limit_files(grow_limit(self.folder))
        yield
        await self._all_restarted()
        node.limit_files(None)

    @asynccontextmanager
    async def _clock(self, fault: Fault, number: int) -> AsyncIterator[None]:
        self.clock.step(40 * DAY if fault.how == "40 days ahead" else -40 * DAY)
        yield
        self.clock.step(0)

    @asynccontextmanager
    async def _postgres(self, fault: Fault, number: int) -> AsyncIterator[None]:
        databases = self.databases
        assert databases is not None
        if fault.how == "SIGKILL":
            await databases.crash()
            yield
            await databases.restart()
        elif fault.how == "SIGSTOP":
            databases.pair.primary.freeze()
            yield
            databases.pair.primary.thaw()
        elif fault.how == "disk full":
            await databases.fill_disk()
            yield
            await databases.free_disk()
        else:
            await databases.prepare_failover()
            if fault.how == "failover of a dead one":
                await databases.crash()
            else:
                databases.pair.primary.freeze()
            await databases.promote()
            if fault.how == "failover of a frozen one" and number % 2:
                # Nobody may have missed it.
                databases.pair.standby.thaw()
            yield
            await databases.fence()

    @asynccontextmanager
    async def _store_link(self, fault: Fault, number: int) -> AsyncIterator[None]:
        links = self.links[self.nodes[number % len(self.nodes)].name]
        for link in links:
            link.cut(fault.how)
        yield
        for link in links:
            link.heal()

    @asynccontextmanager
    async def _receiver(self, fault: Fault, number: int) -> AsyncIterator[None]:
        self.receivers.lies = dict.fromkeys(TROUBLED, fault.how)
        yield
        self.receivers.lies = {}

    @asynccontextmanager
    async def _receiver_link(self, fault: Fault, number: int) -> AsyncIterator[None]:
        self.troubled_link.cut(fault.how)
        yield
        self.troubled_link.heal()

    @asynccontextmanager
    async def _name_server(self, fault: Fault, number: int) -> AsyncIterator[None]:
        self.names.silent = {_host(account) for account in TROUBLED}
        yield
        self.names.silent = ()

    # The end

    async def settle(self, patience: float = DEADLINE) -> None:
        """Wait until everything has arrived that was promised, or until nothing arrives for so long."""
        seen, since = len(self.ledger.received), time.monotonic()
        while self.ledger.missing and time.monotonic() - since < patience:
            # An operator need not wait for the next probe of a receiver that is well again.
            await self._resume([account for account in TROUBLED if account in self.accounts])
            await asyncio.sleep(0.5)
            if len(self.ledger.received) > seen:
                seen, since = len(self.ledger.received), time.monotonic()

    async def _resume(self, accounts: Sequence[str]) -> None:
        client = next(node.client for node in self.nodes if node.client is not None)
        for account in accounts:
            # One that is too slow is asked again.
            with suppress(TransportError, ApiException):
                await client.resume(account)

    async def verdict(self) -> Verdict:
        """The ledger's, and what the store knows of duplicates without a fault: attempts time out on a slow machine."""
        verdict = self.ledger.verdict()
        if not verdict.unexplained:
            return verdict
        unexplained = []
        store = await open_store(self.store)
        for message_id, times in Counter(verdict.unexplained).items():
            attempts = await store.attempts(message_id)
            late = sum((one.error_code or "").startswith("timeout_") for one in attempts)
            unexplained += [message_id] * (times - late)
        await store.close()
        late = len(verdict.unexplained) - len(unexplained)
        duplicates = {**verdict.duplicates, SLOW: late} if late else verdict.duplicates
        return dataclasses.replace(verdict, unexplained=unexplained, duplicates=duplicates)

    async def check(self) -> Verdict:
        """The verdict, after every process has ended in order with everything settled."""
        verdict = await self.verdict()
        print(verdict)
        if verdict.lost:
            print("of the lost ones, the store says:", await self._states(verdict.lost[:READS]))
        if verdict.holds:
            for node in self.nodes:
                assert await node.stop() == 0, node.log.read_text()
            store = await open_store(self.store)
            lanes = [lane for account in self.accounts for lane in await store.lanes(account)]
            await store.close()
            assert [(lane.pending, lane.dead) for lane in lanes] == [(0, 0)] * len(self.accounts)
        return verdict

    async def _states(self, ids: Sequence[str]) -> list[str]:
        """What became of messages."""
        store = await open_store(self.store)
        try:
            found = [await store.message(message_id) for message_id in ids]
        finally:
            await store.close()
        return [f"{one.deliveries[0]}" if one is not None else "unknown" for one in found]


@asynccontextmanager
async def a_world(
    engine: Engine,
    folder: Path,
    *,
    roles: Sequence[str] | None = None,
    accounts: Sequence[str] = ACCOUNTS,
    plant: str | None = None,
) -> AsyncIterator[World]:
    """A world in which everything runs. Nothing of it outlives the block."""
    usual = ("all",) if engine == "sqlite" else ("api", "api", "dispatcher", "dispatcher")
    async with AsyncExitStack() as stack:
        world = World(folder, stack, accounts)
        await world.build(engine, usual if roles is None else roles, plant)
        yield world


async def live_through(
    world: World, schedule: Sequence[Step], *, steps_after: int = 0, patience: float = DEADLINE
) -> Verdict:
    """Publish while the schedule runs and for some steps after it, and wait for what was promised."""
    async with world.publishing():
        await world.run(schedule)
        await world.progressed(steps_after)
    await world.settle(patience)
    return await world.check()


def _length(fault: Fault, share: float) -> float:
    shortest, longest = LENGTHS.get(fault.how, (0.5, 3.0))
    return shortest + share * (longest - shortest)


def _host(account: str) -> str:
    return f"{account}.test"

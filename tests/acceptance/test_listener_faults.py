"""SIGKILL to a listener at every step boundary and at random: what was answered 200 is handled, once if it can be.

Between its start and its end a message passes: the request came, its bytes were read, it was committed, answered, shown
to the handler, handled, settled. FAULT_ROUNDS=20 adds so many random seeds, told in the tests' names; FAULT_SEEDS="7 8"
repeats some.
"""

import asyncio
import contextlib
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Final

import aiohttp
import pytest

from fotahook.cli import main
from fotahook.store import open_store
from tests.cli.processes import FOTAHOOK, environment
from tests.deadlines import DEADLINE
from tests.faults.machines import end
from tests.faults.schedule import seeds
from tests.faults.world import until

ACCOUNT: Final = "0000123456-00001"
CAMPAIGNS: Final = ("c-1", "c-2", None)
LAST_WORDS: Final = 3

HANDLERS: Final = """
import os
import fotahook

listener = fotahook.Listener(inbox="sqlite:///inbox.db", schedule=(0, 0, 0))
ledger = os.open("ledger", os.O_CREAT | os.O_APPEND | os.O_WRONLY)

@listener.on_any
async def note(message, context):
    os.write(ledger, context.id.encode() + b"\\n")
"""


@dataclass
class World:
    """One inbox, senders that do not give up, a ledger of what was handled, and listeners that come and go."""

    folder: Path
    stack: AsyncExitStack
    url: str = ""
    process: asyncio.subprocess.Process | None = None
    answered: dict[str, str] = field(default_factory=dict)
    """The name of each message by its id, in the order of the answers."""
    repeated: int = 0
    in_hand: Counter[str] = field(default_factory=Counter)
    """At how many kills each message was handled, but not settled."""
    enough: asyncio.Event = field(default_factory=asyncio.Event)
    kill_at: int | None = None
    """The number of answers at which the listener is killed."""

    @property
    def handled(self) -> list[str]:
        ledger = self.folder / "ledger"
        return ledger.read_text().split() if ledger.exists() else []

    async def start(self, fault: str | None = None) -> None:
        """A listener that is ready."""
        variables = {"FOTAHOOK_FAULT": fault} if fault else {}
        with (self.folder / "listen.log").open("ab") as stderr:
            process = await asyncio.create_subprocess_exec(
                *(*FOTAHOOK, "listen", "handlers:listener", "--port", "0", "--dev"),
                cwd=self.folder,
                env=environment(**variables),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=stderr,
            )
        self.stack.push_async_callback(end, process)
        assert process.stdout is not None
        async with asyncio.timeout(DEADLINE):
            ready = (await process.stdout.readline()).decode().split()
        # A point of the dispatcher may be passed before the listener is ready.
        self.url = ready[2] if ready else ""
        self.process = process

    async def killed(self) -> None:
        """Wait until the listener was killed, and note what it had in hand then."""
        assert self.process is not None
        async with asyncio.timeout(DEADLINE):
            code = await self.process.wait()
        assert code == -signal.SIGKILL, (self.folder / "listen.log").read_text()
        self.url = ""
        self.in_hand.update(await self._unsettled())

    def kill_after(self, answers: int) -> None:
        self.kill_at = len(self.answered) + answers

    @asynccontextmanager
    async def sending(self) -> AsyncIterator[None]:
        """Senders at work; on leaving they finish, and everything that was answered with 200 has been handled."""
        async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as senders:
            for campaign in CAMPAIGNS:
                for sender in range(2):
                    # Two senders of one campaign would have no order between them.
                    if campaign is None or sender == 0:
                        senders.create_task(self._send(session, campaign, sender))
            yield
            self.enough.set()
        with contextlib.suppress(TimeoutError):
            await until(lambda: set(self.answered) <= set(self.handled))
        assert not set(self.answered) - set(self.handled), "answered with 200, but never handled"

    async def _send(self, session: aiohttp.ClientSession, campaign: str | None, sender: int) -> None:
        left = LAST_WORDS
        for number in count():
            left -= self.enough.is_set()
            if left < 0:
                return
            await self._insist(session, campaign, f"{campaign}/{sender}/{number}")

    async def _insist(self, session: aiohttp.ClientSession, campaign: str | None, name: str) -> None:
        body = {"accountName": ACCOUNT, "name": name, "campaign": {"id": campaign} if campaign else None}
        async with asyncio.timeout(DEADLINE):
            while True:
                try:
                    async with session.post(self.url, json=body, headers={"webhook-id": name}) as answer:
                        assert answer.status == 200, await answer.text()
                        content = await answer.json()
                except (aiohttp.ClientError, ConnectionError, ValueError):
                    await asyncio.sleep(0.005)
                    continue
                self.answered[content["id"]] = name
                self.repeated += content["duplicate"]
                self._maybe_kill()
                return

    def _maybe_kill(self) -> None:
        if self.kill_at is not None and len(self.answered) >= self.kill_at and self.process is not None:
            self.kill_at = None
            self.process.kill()

    async def _unsettled(self) -> list[str]:
        store = await open_store(f"sqlite:///{self.folder}/inbox.db")
        try:
            found = [await store.message(message_id) for message_id in dict.fromkeys(self.handled)]
        finally:
            await store.close()
        return [message.id for message in found if message is not None and message.deliveries[0].state == "pending"]

    async def check(self) -> None:
        """All handled, none twice but what was in hand at a kill, each campaign in order, and all of it settled."""
        handled = Counter(self.handled)
        assert set(handled) == set(self.answered)
        twice = {message_id: times for message_id, times in handled.items() if times > 1 + self.in_hand[message_id]}
        assert not twice, "handled again though it was not in hand at a kill"
        for campaign in filter(None, CAMPAIGNS):
            names = [self.answered[message_id] for message_id in dict.fromkeys(self.handled)]
            numbers = [int(name.split("/")[2]) for name in names if name.startswith(f"{campaign}/")]
            assert numbers == list(range(len(numbers)))
        assert self.process is not None
        self.process.terminate()
        async with asyncio.timeout(DEADLINE):
            assert await self.process.wait() == 0
        store = await open_store(f"sqlite:///{self.folder}/inbox.db")
        lanes = await store.lanes(ACCOUNT)
        await store.close()
        assert [(lane.consumer, lane.pending, lane.dead) for lane in lanes] == [("handlers", 0, 0)]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A world in which nothing runs yet. Nothing that is started in it outlives it."""
    (tmp_path / "handlers.py").write_text(HANDLERS)
    async with AsyncExitStack() as stack:
        yield World(tmp_path, stack)


async def live_through(world: World, *faults: str) -> None:
    """One listener after the other, each killed at its fault point, and a last one that lives."""
    await world.start(faults[0])
    async with world.sending():
        for following in (*faults[1:], None):
            await world.killed()
            await world.start(following)


# The numbers let each process get well under way before it dies.
async def test_a_kill_between_the_request_and_its_answer(world: World) -> None:
    await live_through(world, "answer.before:20", "accept.before:20", "accept.after:20", "answer.after:20")
    # Committed, but not answered: the sender asks again, and learns that it was taken.
    assert world.repeated >= 1
    await world.check()


async def test_a_kill_between_the_handler_and_the_settlement(world: World) -> None:
    await live_through(world, "deliver.before:15", "deliver.after:15", "settle.before:8", "settle.after:8")
    # Handled, but not settled: at least that one comes again.
    assert max(Counter(world.handled).values()) >= 2
    await world.check()


async def test_without_a_kill_everything_is_handled_exactly_once(world: World) -> None:
    await world.start()
    async with world.sending():
        await until(lambda: len(world.answered) >= 200)
    await world.check()
    assert set(Counter(world.handled).values()) == {1}


@pytest.mark.parametrize("seed", seeds())
async def test_kills_of_a_listener_at_random_moments(seed: int, world: World) -> None:
    chance = random.Random(seed)
    await world.start()
    async with world.sending():
        for _ in range(2):
            world.kill_after(chance.randint(1, 200))
            await world.killed()
            await world.start()
    await world.check()


@pytest.mark.parametrize(("flags", "says"), [(["--dev"], "one of accept.before, accept.after"), ([], "need --dev")])
def test_a_fault_point_that_cannot_be_meant_is_a_usage_error(
    flags: list[str], says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("FOTAHOOK_FAULT", "accept.afterwards")
    monkeypatch.chdir(tmp_path)
    assert main(["listen", *flags]) == 2
    assert says in capsys.readouterr().err
    assert not list(tmp_path.iterdir())

"""What can fail: processes of fotahook, their clock, their disk, and PostgreSQL with its standby."""

import asyncio
import contextlib
import resource
import signal
import struct
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import aiohttp
import asyncpg

from fotahook.client import AsyncOperatorClient
from fotahook.service.credentials import DEV_CLIENT
from fotahook.store import open_store
from fotahook.store.postgres.connection import migrate
from fotahook.store.records import NewMessage, StoreFull, StoreUnavailable
from tests.cli.processes import environment
from tests.deadlines import DEADLINE
from tests.postgres import LOG_FILE, Pair, store_now_from

from .links import Link

ROOT: Final = Path(__file__).parents[2]
CLIENT_SECONDS: Final = 3.0
"""How long a publisher waits for an answer before it asks another process."""


class Clock:
    """The time of all machines, wrong by what `step` says. Processes read it from one file, PostgreSQL from another."""

    def __init__(self, folder: Path) -> None:
        self.file, self.text = folder / "clock", folder / "clock.txt"
        self.file.write_bytes(bytes(8))
        self.step(0)

    def step(self, seconds: float) -> None:
        fresh = self.text.with_suffix(".new")
        fresh.write_text(repr(seconds))
        fresh.chmod(0o644)
        fresh.replace(self.text)
        with self.file.open("r+b") as file:
            file.write(struct.pack("d", seconds))


@dataclass(eq=False)
class Node:
    """One `fotahook serve`, started again whenever it was killed."""

    name: str
    role: str
    store: str
    flags: Sequence[str]
    variables: Mapping[str, str]
    folder: Path
    path: str = str(ROOT)
    """Where it is imported from, before what is installed."""
    url: str = ""
    client: AsyncOperatorClient | None = None
    """None while it takes no calls."""
    starts: int = 0
    _process: asyncio.subprocess.Process | None = None
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}-{self.starts}.log"

    async def start(self, point: str | None = None) -> None:
        """Return when it is ready. `point`: a fault point, where it kills itself: that may be before it is ready."""
        # Several start at once.
        async with asyncio.timeout(3 * DEADLINE):
            if not (ready := await self._launch({} if point is None else {"FOTAHOOK_FAULT": point})):
                code = await self._launched().wait()
                killed = point is not None and code == -signal.SIGKILL
                assert killed, f"{self.name} ended with {code} before it was ready:\n{self.log.read_text()}"
                return
        self.url = ready[2]
        if self.role != "dispatcher":
            client = AsyncOperatorClient(self.url, *DEV_CLIENT, timeout=CLIENT_SECONDS, max_retries=0, proxy="")
            self.client = await self._stack.enter_async_context(client)

    async def _launch(self, variables: Mapping[str, str]) -> list[str]:
        """The words of its ready line; none if it ended instead."""
        self.starts += 1
        with self.log.open("wb") as stderr:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.faults.entry", "serve", "--dev", "--port", "0"),
                *("--role", self.role, *self.flags),
                cwd=self.folder,
                env=environment(**self.variables, **variables, FOTAHOOK_STORE=self.store, PYTHONPATH=self.path),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=stderr,
            )
        assert self._process.stdout is not None
        return (await self._process.stdout.readline()).decode().split()

    @property
    def code(self) -> int | None:
        """Its exit code, once it has ended."""
        return self._launched().returncode

    async def kill(self) -> None:
        self.client = None
        process = self._running()
        process.kill()
        await process.wait()

    def freeze(self) -> None:
        self._running().send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._running().send_signal(signal.SIGCONT)

    def limit_files(self, most: int | None) -> None:
        """No file may grow beyond so many bytes, as on a disk that is full; None lifts the limit."""
        limit = resource.RLIM_INFINITY if most is None else most
        resource.prlimit(self._running().pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    async def stop(self) -> int:
        """Ask it to end; the exit code."""
        process = self._running()
        process.terminate()
        async with asyncio.timeout(DEADLINE):
            return await process.wait()

    async def get(self, path: str) -> tuple[int, str]:
        """Status and text of one of the pages for machines: /readyz, /metrics."""
        async with aiohttp.ClientSession() as session, session.get(self.url + path) as response:
            return response.status, await response.text()

    async def end(self) -> None:
        """However it is: nothing outlives the test."""
        await self._stack.aclose()
        if self._process is not None:
            await end(self._process)

    def _launched(self) -> asyncio.subprocess.Process:
        assert self._process is not None, f"{self.name} was not started"
        return self._process

    def _running(self) -> asyncio.subprocess.Process:
        process = self._launched()
        assert process.returncode is None, f"{self.name} ended with {process.returncode}:\n{self.log.read_text()}"
        return process


async def end(process: asyncio.subprocess.Process) -> None:
    """Kill a process that still runs."""
    if process.returncode is None:
        process.kill()
    # Reads what is left and lets go of the pipe.
    await process.communicate()


_BALLAST: Final = NewMessage(account="ballast", body=bytes(1988))
"""Nobody delivers it. Four rows with such bodies fill a page."""


class Databases:
    """PostgreSQL: a primary and a synchronous standby, which each process reaches over links of its own."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._folder = tempfile.TemporaryDirectory(prefix="fotahook-postgres-")
        self._copies = 0
        self._is_paired = True
        self._links: list[tuple[Link, Link]] = []

    async def start(self) -> None:
        self.pair = await asyncio.to_thread(Pair, Path(self._folder.name))
        self._servers = [self.pair.primary, self.pair.standby]
        db = await asyncpg.connect(self.pair.primary.url)
        await migrate(db, self.pair.primary.url)
        await db.execute(store_now_from(self._clock.text, since="extract(epoch from now())::double precision"))
        await db.close()
        await self.pair.make_synchronous()

    def stop(self) -> None:
        self.pair.stop()
        self._folder.cleanup()

    async def url_for(self, stack: AsyncExitStack) -> tuple[str, tuple[Link, Link]]:
        """A URL that leads to both servers, over two new links."""
        first, second = [await stack.enter_async_context(Link(server.port).listening()) for server in self._servers]
        self._links.append((first, second))
        return f"postgresql://postgres@127.0.0.1:{first.port},127.0.0.1:{second.port}/postgres", (first, second)

    async def crash(self) -> None:
        await asyncio.to_thread(self.pair.primary.stop, signal.SIGKILL)

    async def restart(self) -> None:
        await asyncio.to_thread(self.pair.primary.start)

    async def fill_disk(self) -> None:
        """No file may grow any more, and those that messages go to are as large as they may be."""
        await asyncio.to_thread(self.pair.primary.limit_files, LOG_FILE)
        store = await open_store(self.pair.primary.url)
        with contextlib.suppress(StoreFull):
            async with asyncio.timeout(DEADLINE):
                while True:
                    with contextlib.suppress(StoreUnavailable):
                        await store.accept([_BALLAST] * 200)
        await store.close()

    async def free_disk(self) -> None:
        await asyncio.to_thread(self.pair.primary.limit_files, None)

    async def prepare_failover(self) -> None:
        """A standby that may be promoted, instead of a primary that failed earlier."""
        if self._is_paired:
            return
        self._copies += 1
        place = self._servers.index(self.pair.standby)
        await asyncio.to_thread(self.pair.replace, f"copy-{self._copies}")
        self._servers[place] = self.pair.standby
        for links in self._links:
            links[place].target = self.pair.standby.port
        await self.pair.make_synchronous()
        self._is_paired = True

    async def fence(self) -> None:
        """End the former primary, which may be frozen: a process that starts would take it for the present one."""
        await asyncio.to_thread(self.pair.standby.stop, signal.SIGKILL)

    async def promote(self) -> None:
        await asyncio.to_thread(self.pair.promote)
        self._is_paired = False


def grow_limit(folder: Path) -> int:
    """The size of the largest file, beyond which a disk that is full lets none grow."""
    return max(file.stat().st_size for file in folder.iterdir() if file.is_file())


SECRETS: Final = {"FOTAHOOK_SECRET_KEY": "A" * 43 + "="}

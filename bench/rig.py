"""Helpers of all sections: separate processes, rounds, figures. Everything stays on 127.0.0.1 and stops on its own."""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.postgres import Server

RUN_SECONDS = 120.0
"""Timeout of one process."""

Found = dict[str, float]


@contextmanager
def receiver() -> Iterator[str]:
    """The URL of a receiver that runs in a separate process."""
    command = [sys.executable, "-m", "bench.receiver"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            # It serves until its stdin closes.
            process.stdin.close()


class Postgres:
    """A PostgreSQL server on 127.0.0.1, started on first use."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._server: Server | None = None
        self._databases = 0

    def fresh(self) -> tuple[str, int]:
        """The URL of an empty database, and the server's process id."""
        url = self.fresh_database()
        assert self._server is not None
        return url, self._server.pid

    def cpu_seconds(self) -> float:
        """The CPU that the server has used so far."""
        assert self._server is not None
        return server_cpu_seconds(self._server.pid)

    def fresh_database(self) -> str:
        """The URL of an empty database."""
        if self._server is None:
            from tests.postgres import Server

            self._server = Server(self._directory)
            self._server.start()
        self._databases += 1
        name = f"bench{self._databases}"
        asyncio.run(_create_database(self._server.url, name))
        return self._server.url.removesuffix("/postgres") + f"/{name}"

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop()


async def _create_database(url: str, name: str) -> None:
    import asyncpg

    connection = await asyncpg.connect(url)
    await connection.execute(f"create database {name}")
    await connection.close()


@contextmanager
def postgres() -> Iterator[Postgres]:
    with tempfile.TemporaryDirectory(prefix="fotahook-bench-") as directory:
        server = Postgres(Path(directory))
        try:
            yield server
        finally:
            server.stop()


def run(module: str, *arguments: object, seconds: float = RUN_SECONDS) -> Found:
    """Run `python -m module …` and return the JSON object it prints; RuntimeError with its last line of stderr."""
    command = [sys.executable, "-W", "ignore", "-m", module, *map(str, arguments)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"timed out after {seconds:.0f} s") from None
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "it failed")
    found: Found = json.loads(done.stdout)
    return found


def cpu_seconds(pid: int) -> float:
    """The CPU that a process has used so far, all its threads together."""
    ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


def scheduled_seconds(pid: int) -> float:
    """The same by the scheduler's clock, of the threads that there are: exact where the ticks are too coarse."""
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(each.read_text().split()[0]) for each in threads) / 1e9


def server_cpu_seconds(pid: int) -> float:
    """The same for a PostgreSQL server: with its processes, those that ended too."""
    ticks = 0
    for one in (pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())):
        try:
            ticks += sum(map(int, Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()[11:15]))
        except FileNotFoundError:
            continue  # it ended just now, and is counted with its parent next time
    return ticks / os.sysconf("SC_CLK_TCK")


def by_name(rounds: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    """What each contestant reached in the rounds."""
    return {name: [one[name] for one in rounds] for name in rounds[0]}


def ratios(rounds: Sequence[Mapping[str, float]], ours: str, theirs: str) -> list[float]:
    """The ratio in each round: a slow moment of the machine affects both sides."""
    return [one[ours] / one[theirs] for one in rounds]

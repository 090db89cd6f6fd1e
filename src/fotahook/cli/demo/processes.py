"""Processes of our own that the demo starts: each is waited for until it is ready, and ended by its id."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..shared.configuration import PREFIX
from ..shared.errors import Failure

READY_SECONDS: Final = 30
STOP_SECONDS: Final = 10
LOG_LINES: Final = 10


@dataclass(frozen=True, kw_only=True)
class Child:
    """A fotahook process that is ready at a URL."""

    name: str
    url: str
    process: asyncio.subprocess.Process
    log: Path

    async def died(self) -> Failure:
        """Wait for the process to end by itself; what to raise then."""
        return _death(self.name, await self.process.wait(), self.log)


@contextlib.asynccontextmanager
async def child(name: str, *arguments: str, folder: Path) -> AsyncIterator[Child]:
    """`fotahook NAME ARGUMENTS…` at work in a folder, ended on leaving. Failure if it does not become ready."""
    log = folder / f"{name}.log"
    with log.open("wb") as stderr:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "fotahook", name, *arguments),
            cwd=folder,
            env=_environment(os.environ),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=stderr,
        )
    try:
        yield Child(name=name, url=await _ready_url(name, process, log), process=process, log=log)
    finally:
        await _end(process)


def _environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Ours without what would configure the child: it is to do what its arguments say."""
    return {name: value for name, value in variables.items() if not name.startswith(PREFIX)}


async def _ready_url(name: str, process: asyncio.subprocess.Process, log: Path) -> str:
    assert process.stdout is not None  # it is a pipe
    try:
        async with asyncio.timeout(READY_SECONDS):
            line = (await process.stdout.readline()).decode()
            if not line:
                raise _death(name, await process.wait(), log)
    except TimeoutError as error:
        raise Failure(f"fotahook {name} was not ready within {READY_SECONDS} s", details=_last_lines(log)) from error
    return line.split()[2]


async def _end(process: asyncio.subprocess.Process) -> None:
    try:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_SECONDS):
                await process.wait()
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()


def _death(name: str, code: int, log: Path) -> Failure:
    how = f"by signal {-code}" if code < 0 else f"with {code}"
    return Failure(f"fotahook {name} ended by itself {how}; the lines above are its last", details=_last_lines(log))


def _last_lines(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()[-LOG_LINES:]
    return "\n".join(lines) or f"({log.stem} logged nothing)"

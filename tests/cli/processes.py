"""fotahook as a process of its own, for what only a process shows: exit codes, signals, what is printed where."""

import contextlib
import os
import selectors
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.deadlines import DEADLINE

FOTAHOOK: Final = (sys.executable, "-m", "fotahook")


def environment(**variables: str) -> dict[str, str]:
    """Ours without what would configure fotahook, and with these."""
    foreign = ("FOTAHOOK_", "THINGSPACE_", "VZ_M2M_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return kept | {"NO_PROXY": "127.0.0.1"} | variables


def fotahook(
    *arguments: str, cwd: Path | None = None, stdin: bytes = b"", **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    return _finish([*FOTAHOOK, *arguments], cwd, stdin, variables)


def in_shell(
    before: str, *arguments: str, after: str = "", cwd: Path | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run one command to its end in a shell, which does something to its streams or its limits first."""
    line = f"{before} exec {shlex.join([*FOTAHOOK, *arguments])} {after}"
    # A limit on the size of files would cut the bytecode that others load.
    return _finish(["/bin/sh", "-c", line], cwd, b"", {"PYTHONDONTWRITEBYTECODE": "1", **variables})


def _finish(
    command: Sequence[str], cwd: Path | None, stdin: bytes, variables: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command,
        cwd=cwd,
        env=environment(**variables),
        input=stdin,
        capture_output=True,
        timeout=DEADLINE,
        check=False,
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


@dataclass
class Running:
    """A service or a listener that result it is ready."""

    process: subprocess.Popen[str]
    ready: str
    log: Path

    @property
    def url(self) -> str:
        return self.ready.split()[2]

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait; the exit code."""
        self.process.send_signal(number)
        return self.process.wait(DEADLINE)

    def read_line(self) -> str:
        """The next line that it prints."""
        return _read_line(self.process)


def start(*arguments: str, cwd: Path, before: str = "", **variables: str) -> Running:
    """Start a command that goes on, and wait until it is ready. Whoever starts it ends it.

    `before`: what a shell does first, in the same process.
    """
    log = cwd / f"{arguments[0]}.log"
    with log.open("a") as stderr:
        process = subprocess.Popen(
            ["/bin/sh", "-c", f"{before} exec {shlex.join([*FOTAHOOK, *arguments])}"],
            cwd=cwd,
            env=environment(**variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    try:
        ready = _read_line(process)
        assert ready.startswith("fotahook ready "), log.read_text()
    except BaseException:
        end(process)
        raise
    return Running(process, ready, log)


@contextlib.contextmanager
def running(*arguments: str, cwd: Path, before: str = "", **variables: str) -> Iterator[Running]:
    """A command that goes on until the block ends."""
    started = start(*arguments, cwd=cwd, before=before, **variables)
    try:
        yield started
    finally:
        end(started.process)


def end(process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> None:
    """Kill the process if it still runs, and close what we had of it."""
    process.kill()
    process.wait(DEADLINE)
    if process.stdout is not None:
        process.stdout.close()


def _read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        assert selector.select(DEADLINE), "nothing was printed"
    return process.stdout.readline()

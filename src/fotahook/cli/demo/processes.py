"""Child processes of the demo."""

import contextlib
import os
import select
import subprocess
import sys
from collections.abc import Iterator
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
    process: subprocess.Popen[str]
    log: Path

    def check(self) -> None:
        """Raise Failure if the process has ended."""
        if (code := self.process.poll()) is not None:
            raise _ended(self.name, code, self.log)


@contextlib.contextmanager
def child(name: str, *arguments: str, folder: Path) -> Iterator[Child]:
    """`fotahook NAME ARGUMENTS…` in a folder, stopped on leaving. Failure if it does not become ready, or ends."""
    log = folder / f"{name}.log"
    # Without the variables that would configure it: it is to do what its arguments say.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    with (
        log.open("wb") as stderr,
        subprocess.Popen(
            [sys.executable, "-m", "fotahook", name, *arguments],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        ) as process,
    ):
        try:
            started = Child(name=name, url=_ready_url(name, process, log), process=process, log=log)
            try:
                yield started
            except Exception:
                # Often a consequence of the process's end, which says more.
                started.check()
                raise
        finally:
            process.terminate()
            try:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(STOP_SECONDS)
            finally:
                process.kill()


def _ready_url(name: str, process: subprocess.Popen[str], log: Path) -> str:
    assert process.stdout is not None  # it is a pipe
    if not select.select([process.stdout], [], [], READY_SECONDS)[0]:
        raise Failure(f"fotahook {name} was not ready within {READY_SECONDS} s", details=_last_lines(log))
    line = process.stdout.readline()
    if not line:
        raise _ended(name, process.wait(), log)
    return line.split()[2]


def _ended(name: str, code: int, log: Path) -> Failure:
    how = f"by signal {-code}" if code < 0 else f"with {code}"
    text = f"fotahook {name} ended by itself {how}; the lines above are the last of its log"
    return Failure(text, details=_last_lines(log))


def _last_lines(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()[-LOG_LINES:]
    return "\n".join(lines) or f"({log.stem} logged nothing)"

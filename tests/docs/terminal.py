"""A reader's terminal: one shell per page, in its own folder, with a service and a listener on free ports."""

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.deadlines import DEADLINE

"""Seconds after which a block is stuck."""

WIDTH: Final = 100
_DONE: Final = "\x1dcode"
_PIECES: Final = re.compile(r"\x1b\[(?P<count>[0-9;?]*)(?P<order>[a-zA-Z])|\x1b\][^\x07]*\x07|(?P<text>[^\x1b])")

# Replaces the command. `fotahook serve` and `listen` keep running after their block, one of each at a time. Commands
# that call a service get its URL, because the port in the pages may be in use.
_COMMAND: Final = r"""#!/bin/bash
keep_running() {
  if [ -e "$STATE/$1.pid" ]; then
    kill "$(cat "$STATE/$1.pid")"
    while kill -0 "$(cat "$STATE/$1.pid")" 2>/dev/null; do sleep 0.02; done
  fi
  FOTAHOOK_PORT=$2 "$FOTAHOOK" "$1" "${@:3}" >"$STATE/$1.out" 2>"$STATE/$1.log" </dev/null &
  echo $! >"$STATE/$1.pid"
  until [ -s "$STATE/$1.out" ]; do
    kill -0 $! 2>/dev/null || { cat "$STATE/$1.log"; exit 1; }
    sleep 0.02
  done
  cat "$STATE/$1.out"
}
case "$*" in
  *--explain*|*--help*|*--base-url*|*--to\ *|demo*|doctor*|admin*|completion*) exec "$FOTAHOOK" "$@" ;;
  ledger\ expect*|ledger\ show*) exec "$FOTAHOOK" "$@" ;;
  serve*) keep_running serve "$SERVICE_PORT" "${@:2}" ;;
  listen*) keep_running listen "$LISTENER_PORT" --base-url "$SERVICE" "${@:2}" ;;
  *) exec "$FOTAHOOK" "$@" --base-url "$SERVICE" ;;
esac
"""


@dataclass(frozen=True)
class Printed:
    """The result of a block: its exit code, the terminal's output, and stderr."""

    code: int
    out: str
    err: str


class Terminal:
    """A shell whose stdout is a terminal and whose stderr is a file."""

    def __init__(self, folder: Path, state: Path, environment: Mapping[str, str], not_run: Iterable[str]) -> None:
        self._state = state
        self._stuck = False
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, WIDTH, 0, 0))
        self._shell = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=folder,
            env={**environment, "STATE": str(state), "PATH": f"{self._commands(not_run)}:{environment['PATH']}"},
            stdin=subprocess.PIPE,
            stdout=slave,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        os.close(slave)

    def _commands(self, not_run: Iterable[str]) -> Path:
        folder = self._state / "bin"
        folder.mkdir()
        for name, script in {"fotahook": _COMMAND, **dict.fromkeys(not_run, "#!/bin/sh\n")}.items():
            (folder / name).write_text(script)
            (folder / name).chmod(0o755)
        return folder

    def run(self, block: str) -> Printed:
        """Run a block. TimeoutError if it does not end; from then on every block raises it at once."""
        if self._stuck:
            raise TimeoutError("a block before this one is still running")
        script, beside = self._state / "block.sh", self._state / "stderr"
        script.write_text(block)
        assert self._shell.stdin is not None
        self._shell.stdin.write(f"source '{script}' </dev/null 2>'{beside}'; printf '\\035code%s\\n' $?\n")
        self._shell.stdin.flush()
        code, printed = self._read()
        return Printed(code, on_screen(printed), beside.read_text())

    def _read(self) -> tuple[int, str]:
        printed, end = b"", time.monotonic() + DEADLINE
        while _DONE.encode() not in printed or not printed.endswith(b"\n"):
            if not select.select([self._master], [], [], max(0.0, end - time.monotonic()))[0]:
                self._stuck = True
                raise TimeoutError(f"still running after {DEADLINE:.0f} s, having printed: {printed.decode()}")
            printed += os.read(self._master, 65536)
        text, _, code = printed.decode().rpartition(_DONE)
        return int(code), text

    def log(self) -> str:
        """The logs of the service and the listener."""
        return "".join(path.read_text() for path in sorted(self._state.glob("*.log")))

    def close(self) -> None:
        """End the shell and everything it started."""
        for file in self._state.glob("*.pid"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(file.read_text()), signal.SIGKILL)
        self._shell.kill()
        assert self._shell.stdin is not None
        self._shell.stdin.close()
        self._shell.wait(DEADLINE)
        os.close(self._master)


def on_screen(printed: str) -> str:
    """The final content of the screen: of a progress bar, its last state."""
    lines, row, column = [""], 0, 0
    for piece in _PIECES.finditer(printed):
        match piece["order"] or piece["text"]:
            case "A" if piece["order"]:
                row = max(0, row - int(piece["count"] or 1))
            case "K" if piece["order"]:
                lines[row] = "" if piece["count"] == "2" else lines[row][:column]
            case "\n":
                row += 1
                lines += [""] * (row == len(lines))
            case "\r":
                column = 0
            case str(text) if piece["text"]:
                lines[row] = lines[row][:column].ljust(column) + text + lines[row][column + 1 :]
                column += 1
    return "\n".join(lines)


def reader_environment() -> dict[str, str]:
    """Our environment without fotahook's variables, with its command first on the path, and without colour."""
    foreign = ("FOTAHOOK_", "THINGSPACE_", "VZ_M2M_", "COLUMNS")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    commands = Path(sys.executable).parent
    ours = {"PATH": f"{commands}:{kept['PATH']}", "FOTAHOOK": str(commands / "fotahook")}
    # A reader's pytest does not load the plugins of our own tests.
    ours["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    return kept | ours | {"NO_COLOR": "1", "NO_PROXY": "127.0.0.1", "TERM": "xterm"}

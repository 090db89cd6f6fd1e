"""Commands run in this process where nothing of a process is at stake."""

import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cyclopts import App

from fotahook.cli import commands, main
from fotahook.testing import Sandbox


@dataclass(frozen=True)
class CommandResult:
    """Exit code and output of a command."""

    code: int
    out: str
    err: str


Run = Callable[..., CommandResult]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs one command line in an empty folder, with nothing of fotahook's in the environment."""
    for name in os.environ:
        if name.startswith(("FOTAHOOK_", "THINGSPACE_", "VZ_M2M_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.chdir(tmp_path)
    # What commands change for the process that is theirs.
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(logging.root, "handlers", [*logging.root.handlers])
    monkeypatch.setattr(logging.root, "level", logging.root.level)

    def run(*arguments: str) -> CommandResult:
        capsys.readouterr()
        code = main(arguments)
        result = capsys.readouterr()
        return CommandResult(code, result.out, result.err)

    return run


def every_command(app: App = commands.app, *before: str) -> Iterator[tuple[str, ...]]:
    """The words of each command that does something."""
    for name in app:
        if not name.startswith("-"):
            command = app[name]
            if command.default_command is not None:
                yield (*before, name)
            yield from every_command(command, *before, name)


COMMANDS = tuple(every_command())


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as sandbox:
        yield sandbox


CURL = """\
import sys, urllib3
arguments = sys.argv[1:]
headers = dict(value.split(": ", 1) for flag, value in zip(arguments, arguments[1:]) if flag == "-H")
assert arguments[:3] == ["-sS", "--data-binary", "@-"]
urllib3.request("POST", arguments[-1], body=sys.stdin.buffer.read(), headers=headers)
"""
"""What stands in for curl on a machine that has none."""


@pytest.fixture
def curl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("curl") is None:
        script = tmp_path / "curl"
        script.write_text(f"#!{sys.executable}\n{CURL}")
        script.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)


@pytest.fixture
def service(sandbox: Sandbox) -> Sandbox:
    """The same, as new."""
    sandbox.reset()
    return sandbox


@pytest.fixture
def call(run: Run, service: Sandbox) -> Run:
    """Runs a command that calls the service."""

    def call(*arguments: str) -> CommandResult:
        return run(*arguments, "--base-url", service.base_url, "--dev")

    return call


def is_one_line(text: str) -> bool:
    """Whether a command complained as it should."""
    return text.startswith("fotahook: ") and text.endswith("\n") and text.count("\n") == 1

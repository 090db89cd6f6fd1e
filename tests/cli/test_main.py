"""The command line as a whole."""

import subprocess
import sys

import pytest

from fotahook.contract.version import VERSION

from .conftest import COMMANDS, Run, is_one_line
from .processes import fotahook


def test_help_names_every_command(run: Run) -> None:
    result = run("--help")
    assert result.code == 0
    assert all(command in result.out for command, *_ in COMMANDS)


def test_the_version_is_the_distributions(run: Run) -> None:
    assert run("--version").out.strip() == VERSION


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_shows_an_example(run: Run, command: tuple[str, ...]) -> None:
    result = run(*command, "--help")
    assert result.code == 0
    assert f"Example: fotahook {' '.join(command)}" in result.out


@pytest.mark.parametrize(
    "arguments",
    [("nothing",), ("serve", "--prot", "1"), ("serve", "--port", "x"), ("demo", "--devices"), ("callbacks", "list")],
    ids=" ".join,
)
def test_a_usage_error_is_one_line(run: Run, arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert result.code == 2
    assert is_one_line(result.err)
    assert "--help" in result.err


@pytest.mark.parametrize("columns", ["0", "1", "2", "x", "9" * 30])
def test_help_ends_whatever_the_width(run: Run, monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    result = run("why", "--help")
    assert (result.code, result.err) == (0, "")
    assert "--base-url" in result.out


def test_an_unknown_command_is_told_that_there_are_more(run: Run) -> None:
    assert ", ...; see fotahook --help" in run("frob").err


def test_help_loads_nothing_heavy() -> None:
    code = "import sys; from fotahook.cli import main; main(['--help']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert loaded.isdisjoint({"aiohttp", "uvicorn", "starlette", "structlog", "nacl", "sqlite3", "trustme"})
    assert loaded.isdisjoint({"asyncio", "msgspec", "socket", "urllib3", "fotahook.client", "fotahook.store"})


def test_commands_about_a_service_load_no_store_and_no_event_loop() -> None:
    code = "import sys; from fotahook.cli import main; main(['messages', 'list', '--help']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()).isdisjoint({"asyncio", "sqlite3", "fotahook.store", "fotahook.service"})


def test_a_reader_that_goes_away_is_no_fault() -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", f"{sys.executable} -m fotahook serve --explain | true"], capture_output=True, check=True
    )
    assert done.stderr == b""


def test_python_m_fotahook_is_the_same() -> None:
    done = fotahook("--version")
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, VERSION, "")

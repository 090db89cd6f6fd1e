"""Every command in every trouble: one clear line, the right exit code, nothing half-written."""

import contextlib
import io
import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import pytest

from fotahook.cli import main
from fotahook.testing import Sandbox
from tests.deadlines import DEADLINE
from tests.modes import modes_bind

from .conftest import COMMANDS, Run, is_one_line
from .processes import FOTAHOOK, environment, fotahook, in_shell

Command = tuple[str, ...]
Done = subprocess.CompletedProcess[str]

ACCOUNT = "0000123456-00001"
ARGUMENTS = {
    "ACCOUNT": ACCOUNT,
    "URL": "http://127.0.0.1:9/",
    "ID": "01a21416-540a-7000-8af5-177c1aff8ad1",
    "NAME": "somebody",
    "CAMPAIGN": "c-1",
}
"""What each of the words in a usage line may be."""
MORE: dict[Command, Command] = {
    ("publish",): ("m.json",),
    ("redeliver",): (ARGUMENTS["ID"],),
    ("import",): ("m.jsonl",),
    ("simulate",): ("--devices", "3"),
    ("export",): ("exported.jsonl",),
}
"""What a command needs besides."""
EXPORTED = {
    "id": "x",
    "account": ACCOUNT,
    "body": "{}",
    "sha256": "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
}
STDOUT_IS_FULL = "fotahook: cannot write: No space left on device; make room and run it again\n"


@cache
def help_of(command: Command) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert main([*command, "--help"]) == 0
    return printed.getvalue()


def whole(command: Command) -> Command:
    """A command line that is complete, by the usage line of the command's help."""
    usage = help_of(command).splitlines()[0].partition("[OPTIONS]")[2]
    words = (ARGUMENTS[word] for word in usage.split() if word.isupper() and "[" not in word)
    return (*command, *words, *MORE.get(command, ()))


@pytest.fixture
def clients() -> list[Command]:
    """Complete command lines of all commands that call a service and end by themselves.

    One calls it only about what is in an inbox.
    """
    serving = {("listen",), ("tail",), ("mcp",), ("ledger", "reconcile")}
    calling = [command for command in COMMANDS if "--base-url" in help_of(command)]
    return [whole(command) for command in calling if command not in serving]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where commands find the files that they read."""
    (tmp_path / "m.json").write_text("{}")
    (tmp_path / "m.jsonl").write_text(json.dumps(EXPORTED))
    return tmp_path


def side_by_side(commands: Sequence[Command], run_one: Callable[[Command], Done]) -> Iterator[tuple[str, Done]]:
    with ThreadPoolExecutor(8) as threads:
        yield from zip(map(" ".join, commands), threads.map(run_one, commands), strict=True)


def files(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


def test_the_table_covers_all_commands_that_call_a_service(clients: list[Command]) -> None:
    assert len(clients) >= 16
    assert ("messages", "show", ARGUMENTS["ID"]) in clients


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_an_unknown_flag_is_reported(run: Run, command: Command) -> None:
    result = run(*whole(command), "--no-such-flag")
    assert (result.code, result.out) == (2, "")
    assert is_one_line(result.err)
    assert "--no-such-flag" in result.err
    assert f"see fotahook {' '.join(command)} --help" in result.err


def test_an_invalid_base_url_is_reported_by_its_flag(run: Run, folder: Path, clients: list[Command]) -> None:
    for command in (*clients, ("listen",), ("tail",)):
        for url in ("foo", "https://somebody:hunter2@h.example/", "http://["):
            result = run(*command, "--base-url", url)
            assert (result.code, result.out) == (2, ""), command
            assert is_one_line(result.err), command
            assert result.err.startswith("fotahook: --base-url "), command
            assert "hunter2" not in result.err
    assert files(folder) == {"m.json", "m.jsonl"}


def test_missing_credentials_are_reported_by_their_variable(run: Run, folder: Path, clients: list[Command]) -> None:
    for command in clients:
        result = run(*command)
        assert (result.code, result.out) == (2, ""), command
        assert is_one_line(result.err), command
        assert "set THINGSPACE_OAUTH_OAUTH_CLIENT_ID" in result.err
        assert "--dev" in result.err
    assert files(folder) == {"m.json", "m.jsonl"}


def test_an_unreachable_service_is_reported(run: Run, folder: Path, clients: list[Command]) -> None:
    for command in clients:
        result = run(*command, "--dev", "--base-url", "http://127.0.0.1:9")
        assert result.code == 3, (command, result.err)
        assert is_one_line(result.err), (command, result.err)
        assert "http://127.0.0.1:9" in result.err
        assert "check --base-url, and that the service runs" in result.err
    assert files(folder) == {"m.json", "m.jsonl"}


def test_refused_credentials_are_reported(
    run: Run, sandbox: Sandbox, folder: Path, clients: list[Command], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THINGSPACE_OAUTH_OAUTH_CLIENT_ID", "dev")
    monkeypatch.setenv("THINGSPACE_OAUTH_OAUTH_CLIENT_SECRET", "not-the-secret")
    monkeypatch.setenv("VZ_M2M_USERNAME", "dev")
    monkeypatch.setenv("VZ_M2M_PASSWORD", "not-the-password")
    for command in clients:
        result = run(*command, "--base-url", sandbox.base_url)
        assert result.code == 4, (command, result.err)
        assert is_one_line(result.err), (command, result.err)
        assert "not-the-secret" not in result.err
    assert files(folder) == {"m.json", "m.jsonl"}


def test_ctrl_c_in_the_middle_leaves_nothing_half_written(folder: Path, clients: list[Command]) -> None:
    def interrupt(command: Command) -> Done:
        """Ctrl-C, or SIGTERM, while the service, which never answers, has the request."""
        with socket.create_server(("127.0.0.1", 0)) as deaf:
            deaf.settimeout(DEADLINE)
            url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
            process = subprocess.Popen(
                [*FOTAHOOK, *command, "--dev", "--base-url", url],
                cwd=folder,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            with deaf.accept()[0] as taken:
                assert taken.recv(1)
                process.send_signal(signal.SIGTERM if command[0] in ("export", "callbacks") else signal.SIGINT)
                out, err = process.communicate(timeout=DEADLINE)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    for command, done in side_by_side(clients, interrupt):
        assert done.returncode == 130, (command, done.stderr)
        assert re.fullmatch(r"fotahook: interrupted(; 0 of \d+ messages were sent)?\n", done.stderr), command
        assert done.stdout.splitlines()[1:] in ([], ["0\t0\t0"]), command
    assert files(folder) == {"m.json", "m.jsonl"}


# No room


@pytest.fixture
def known(sandbox: Sandbox, clients: list[Command]) -> list[Command]:
    """The same command lines, about messages that the service has."""
    sandbox.reset()
    sandbox.register(ACCOUNT)
    message_id = sandbox.publish(ACCOUNT, {"type": "x"})
    sandbox.wait_delivered(message_id)
    remote = ("--dev", "--base-url", sandbox.base_url)
    return [(*(message_id if word == ARGUMENTS["ID"] else word for word in one), *remote) for one in clients]


def test_a_full_disk_behind_stdout_is_reported(folder: Path, known: list[Command]) -> None:
    for command, done in side_by_side(known, lambda one: in_shell("", *one, after="> /dev/full", cwd=folder)):
        assert (done.returncode, done.stderr) == (1, STDOUT_IS_FULL), command


def test_help_that_cannot_be_printed_is_reported() -> None:
    for arguments in (("--help",), ("--version",), ("serve", "--help"), ("serve", "--explain")):
        done = in_shell("", *arguments, after="> /dev/full")
        assert (done.returncode, done.stderr) == (1, STDOUT_IS_FULL), arguments


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("serve", "--port", "0"), "disk"),
        (("listen", "--port", "0"), "disk"),
        (("admin", "client", "create", "x"), "disk"),
        (("admin", "migrate"), "disk"),
        (("demo", "--devices", "1"), "cannot write: File too large; make room"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_a_full_disk_of_a_store_is_reported(tmp_path: Path, arguments: Command, complaint: str) -> None:
    """A limit on the size of files stands for a full disk: it needs no rights, and is met at the same places."""
    done = in_shell("ulimit -f 1;", *arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout.partition("fotahook ready")[2] == ""
    last = done.stderr.splitlines(keepends=True)[-1]
    assert is_one_line(last)
    assert complaint in last


def test_a_read_only_store_is_reported(run: Run, tmp_path: Path) -> None:
    assert run("admin", "migrate").code == 0
    (tmp_path / "fotahook.db").chmod(0o444)
    with modes_bind():
        result = run("serve", "--port", "0")
    assert (result.code, result.out, is_one_line(result.err)) == (1, "", True)
    assert result.err.startswith("fotahook: cannot open the store fotahook.db: attempt to write a readonly database")
    assert "the right to write to fotahook.db" in result.err


def test_an_export_that_finds_no_room_leaves_the_old_file(sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.reset()
    for number in range(20):
        sandbox.publish(ACCOUNT, {"n": number, "padding": "x" * 200})
    (tmp_path / "m.jsonl").write_text("old")
    arguments = ("export", ACCOUNT, "m.jsonl", "--force", "--dev", "--base-url", sandbox.base_url)
    for blocks in (1, 12):  # of 512 bytes: room for nothing, and for what was listed
        done = in_shell(f"ulimit -f {blocks};", *arguments, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == "fotahook: m.jsonl: File too large; nothing of it was written\n"
        assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {"m.jsonl": "old"}
    assert in_shell("ulimit -f 100;", *arguments, cwd=tmp_path).returncode == 0


# Streams


def test_a_reader_that_goes_away_in_the_middle_is_no_fault(sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.reset()
    for _ in range(200):
        sandbox.publish(ACCOUNT, {})
    listing = ("messages", "list", ACCOUNT, "--limit", "0", "--dev", "--base-url", sandbox.base_url)
    done = in_shell("{ ", *listing, after="; echo $? > code; } | head -1", cwd=tmp_path)
    assert done.stdout.startswith("id\tstate")
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""


def test_commands_do_without_the_streams_that_are_closed(sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.reset()
    sandbox.register(ACCOUNT)
    remote = ("--dev", "--base-url", sandbox.base_url)
    done = in_shell("", "publish", ACCOUNT, *remote, after="<&-", cwd=tmp_path)
    assert done.returncode == 2
    assert is_one_line(done.stderr)
    assert "stdin: the body is not JSON" in done.stderr
    done = in_shell("", "messages", "list", ACCOUNT, *remote, after=">&-", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    for closed in ("2>&-", "2> /dev/full", ">&- 2>&- <&-"):
        done = in_shell("", "messages", "list", ACCOUNT, "--limit", "-1", *remote, after=closed, cwd=tmp_path)
        assert (done.returncode, done.stdout, done.stderr) == (2, "", "")


def test_unencodable_characters_are_escaped_and_json_stays_json(sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.reset()
    sandbox.publish(ACCOUNT, {"type": "é€😀"})
    listing = ("messages", "list", ACCOUNT, "--dev", "--base-url", sandbox.base_url)
    done = fotahook(*listing, cwd=tmp_path, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\\xe9\\u20ac\\U0001f600" in done.stdout
    done = fotahook(*listing, "--json", cwd=tmp_path, PYTHONIOENCODING="ascii")
    assert done.stdout.isascii()
    assert json.loads(done.stdout)["type"] == "é€😀"


def test_a_command_line_that_is_not_utf8_is_reported() -> None:
    done = subprocess.run(
        [*map(os.fsencode, FOTAHOOK), b"accounts", b"show", b"\xff", b"--dev"],
        env=environment(),
        capture_output=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 2
    assert is_one_line(done.stderr.decode())

"""`fotahook completion` in a real shell."""

import subprocess
from pathlib import Path

import pytest

from tests.deadlines import DEADLINE

from .conftest import COMMANDS, Run
from .processes import fotahook

COMPLETE = """
source ./fotahook.bash
COMP_WORDS=(fotahook "$@")
COMP_CWORD=$#
_fotahook
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the script for bash."""
    folder = tmp_path_factory.mktemp("completion")
    done = fotahook("completion", "bash")
    assert (done.returncode, done.stderr) == (0, "")
    (folder / "fotahook.bash").write_text(done.stdout)
    (folder / "messages.jsonl").touch()
    return folder


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("mess",), ["messages"]),
        (("messages", ""), ["list", "show"]),
        (("admin", "client", "gr"), ["grant"]),
        (("messages", "list", "1", "--sta"), ["--state"]),
        (("messages", "list", "1", "--state", ""), ["pending", "delivered", "dead"]),
        (("messages", "show", "x", "--as", ""), ["curl"]),
        (("import", "mes"), ["messages.jsonl"]),
        (("publish", "1", "mes"), ["messages.jsonl"]),
        (("serve", "--faul"), [""]),
        (("completion", ""), ["bash", "zsh", "fish"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_bash_completes_commands_flags_and_values(script: Path, words: tuple[str, ...], offered: list[str]) -> None:
    command = ["bash", "--norc", "-c", COMPLETE, "bash", *words]
    done = subprocess.run(command, cwd=script, capture_output=True, text=True, check=True, timeout=DEADLINE)
    assert done.stderr == ""
    assert done.stdout.removesuffix("\n").split("\n") == offered


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_command_is_known_to_every_shell(run: Run, shell: str) -> None:
    result = run("completion", shell)
    assert result.code == 0
    assert all(command[-1] in result.out for command in COMMANDS)

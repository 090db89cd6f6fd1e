"""docs/cli.md names every command and every flag, and no others."""

import re
from pathlib import Path

import pytest

from .conftest import COMMANDS, Run

DOCS = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]*")


@pytest.fixture
def flags(run: Run) -> set[str]:
    """The flags of all commands, as their help tells them."""
    return {flag for command in COMMANDS for flag in FLAG.findall(run(*command, "--help").out)}


def test_every_flag_is_documented_and_every_documented_flag_exists(flags: set[str]) -> None:
    # What is printed may name flags of another's command.
    text = re.sub(r"```text\n.*?```", "", DOCS, flags=re.DOTALL)
    assert set(FLAG.findall(text)) - {"--help"} == flags - {"--help", "--version"}


def test_every_command_is_documented() -> None:
    documented = DOCS.replace("\\|", "|")
    for command in COMMANDS:
        words = " ".join(rf"(?:[a-z]+\|)*{word}(?:\|[a-z]+)*" for word in command)
        assert re.search(rf"`fotahook {words}[ `]", documented), command


def test_every_command_has_a_session_that_was_recorded() -> None:
    """tests/docs records them anew, at a terminal, and compares."""
    run = "".join(re.findall(r"```sh\n(.*?)```", DOCS, re.DOTALL))
    for command in COMMANDS:
        assert re.search(rf"^(while |timeout -s INT \d+ )?fotahook {' '.join(command)}\b", run, re.MULTILINE), command


def test_the_configuration_in_the_docs_is_one(run: Run, tmp_path: Path) -> None:
    (block,) = re.findall(r"```toml\n(.*?)```", DOCS, re.DOTALL)
    (tmp_path / "fotahook.toml").write_text(block)
    result = run("serve", "--config", "fotahook.toml", "--explain")
    assert result.code == 0
    assert "--port\t8443\tfotahook.toml" in result.out.replace(f"{tmp_path}/", "")

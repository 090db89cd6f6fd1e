"""The README is true as printed: its commands and its Python run, and print what it says they print."""

import contextlib
import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fotahook.testing import Sandbox

README = (Path(__file__).parents[2] / "README.md").read_text()
BLOCK = re.compile(r"```python\n(.*?)```\n(?:```text\n(.*?)```)?", re.DOTALL)
SDK, LISTENER, TESTS = BLOCK.findall(README)


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as sandbox:
        yield sandbox


def test_the_sdk_example_prints_what_the_readme_prints(sandbox: Sandbox) -> None:
    code, printed = SDK
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(compile(code.replace("http://127.0.0.1:8080", sandbox.base_url), "README.md", "exec"), {})
    assert output.getvalue() == printed


def test_the_example_of_tests_prints_what_the_readme_prints() -> None:
    code, printed = TESTS
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(compile(code, "README.md", "exec"), {})
    assert output.getvalue() == printed


def test_the_listener_example_is_a_module_that_can_be_listened_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fotahook import Listener
    from fotahook.cli.listen import load_listener

    (tmp_path / "handlers.py").write_text(LISTENER[0])
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert isinstance(load_listener("handlers:listener"), Listener)
    del sys.modules["handlers"]


def test_every_file_and_command_the_readme_names_exists() -> None:
    root = Path(__file__).parents[2]
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", README):
        assert link.startswith("https://") or (root / link).exists(), link
    makefile = (root / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", README, re.MULTILINE):
        assert f"\n{target}:" in makefile

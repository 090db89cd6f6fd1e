"""Rules that are tests need no guardian: versions agree, the lock has no addresses, nothing names a machine."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import fotahook
from fotahook.contract.version import VERSION

ROOT = Path(__file__).parent.parent
SRC = ROOT / "src" / "fotahook"


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def test_the_version_is_one() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    top = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert top is not None
    assert project["version"] == VERSION == top[1]


def test_locks_have_hashes_and_no_addresses() -> None:
    for name in ("bootstrap.lock", "requirements.lock"):
        text = (ROOT / name).read_text()
        assert "--hash=sha256:" in text
        assert "://" not in text


def test_all_is_sorted_and_holds() -> None:
    assert list(fotahook.__all__) == sorted(fotahook.__all__)
    for name in fotahook.__all__:
        assert getattr(fotahook, name) is not None


def test_no_file_names_a_machine() -> None:
    places = re.compile("/" + r"root/\.|/" + "work/main|/" + "tmp/" + "bash")
    guilty = [path for path in tracked() if path.suffix != ".lock" and places.search(path.read_text(errors="ignore"))]
    assert guilty == []


def test_only_the_command_line_and_from_environment_read_the_environment() -> None:
    readers = {
        str(path.relative_to(SRC))
        for path in SRC.rglob("*.py")
        if any(word in path.read_text() for word in ("os.environ", "getenv"))
    }
    assert {reader for reader in readers if not reader.startswith("cli/")} <= {"client/_environment.py"}


def test_the_contract_needs_only_msgspec_and_nacl() -> None:
    allowed = {"fotahook", "msgspec", "nacl", *sys.stdlib_module_names}
    for path in (SRC / "contract").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert {name.split(".")[0] for name in names} <= allowed, path.name

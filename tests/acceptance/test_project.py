"""A user's project passes its own tests with nothing of this tree but the wheel."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.deadlines import DEADLINE

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree, built without a network and unpacked as an installer would."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=3 * DEADLINE)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "installed")
    return folder / "installed"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    ignored = shutil.ignore_patterns("__pycache__", ".pytest_cache")
    return shutil.copytree(ROOT / "examples" / "project", tmp_path / "project", ignore=ignored)


def run(*arguments: str, cwd: Path, installed: Path) -> str:
    """Run Python there, with the wheel's files before everything else; what it prints."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("COV_", "PYTEST_"))}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=variables | {"PYTHONPATH": str(installed), "NO_PROXY": "127.0.0.1"},
        capture_output=True,
        text=True,
        timeout=3 * DEADLINE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_its_tests_pass_with_the_wheel_alone(unpacked: Path, project: Path) -> None:
    code = "import fotahook, fotahook.testing.plugin as plugin; print(fotahook.__file__); print(plugin.__file__)"
    for imported in run("-c", code, cwd=project, installed=unpacked).splitlines():
        assert Path(imported).is_relative_to(unpacked)
    printed = run("-m", "pytest", "-p", "no:cacheprovider", cwd=project, installed=unpacked)
    assert "3 passed" in printed

"""The install lines of the README work in an empty environment, without a network.

The wheel is installed by uv with the index switched off. The dependencies come from our own environment: an installed
distribution is linked into the new one if, and only if, the extras of the line require it.
"""

import re
import shlex
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator, Mapping
from importlib.metadata import Distribution, PathDistribution, distribution
from pathlib import Path
from typing import Final

import pytest
from packaging.requirements import Requirement

from .blocks import ROOT, blocks_of

UV: Final = Path(sys.executable).with_name("uv")
SITE: Final = f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
SECTION: Final = (ROOT / "README.md").read_text().partition("\n## Install\n")[2].partition("\n## ")[0]
LINES: Final = re.findall(r"^pip install \S+", SECTION, re.MULTILINE)
PROMISES: Final[Mapping[frozenset[str], str]] = {
    # All of these extras together: what works then.
    frozenset(): "import fotahook; fotahook.Client().close()",
    frozenset({"async"}): "import asyncio, fotahook; asyncio.run(fotahook.AsyncClient().aclose())",
    frozenset({"service"}): "from fotahook.service import build_app; import fotahook.delivery",
    frozenset({"postgres"}): (
        "import asyncio; from fotahook.store import open_store; from fotahook.store.records import StoreUnavailable\n"
        "try: asyncio.run(open_store('postgresql://127.0.0.1:1/none'))\n"
        "except StoreUnavailable: pass"
    ),
    frozenset(
        {"listener"}
    ): "import fotahook; fotahook.Listener(inbox='sqlite:///inbox.db').on_any(lambda message: None)",
    frozenset({"cli"}): "from fotahook.cli.commands import run; raise SystemExit(run(['--help']))",
    frozenset({"service", "cli"}): "from fotahook.cli.commands import run; raise SystemExit(run(['serve', '--help']))",
    frozenset(
        {"listener", "cli"}
    ): "from fotahook.cli.commands import run; raise SystemExit(run(['listen', '--help']))",
    frozenset({"mcp"}): "from fotahook.cli.commands import run; raise SystemExit(run(['mcp', '--local']))",
    frozenset({"service", "listener", "testing"}): (
        "from pathlib import Path; from fotahook.testing import Sandbox, make_certificates\n"
        "with Sandbox() as sandbox: sandbox.client().close(); make_certificates(Path('.'), 'localhost')"
    ),
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make wheel` builds."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=60)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def metadata(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Distribution:
    """The wheel's own metadata, with the requirements of its extras."""
    unpacked = tmp_path_factory.mktemp("unpacked")
    subprocess.run([sys.executable, "-m", "zipfile", "-e", str(wheel), str(unpacked)], check=True)
    (info,) = unpacked.glob("*.dist-info")
    return PathDistribution(info)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where each environment is made: what was compiled in one is of use in the next."""
    return tmp_path_factory.mktemp("environment") / "venv"


@pytest.fixture
def environment(place: Path) -> Path:
    """An empty environment: Python, and no package."""
    run(str(UV), "venv", "--quiet", "--clear", "--offline", "--no-config", "--python", sys.executable, str(place))
    return place


def run(*command: str, cwd: Path = ROOT) -> None:
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}{done.stderr}"


def extras_of(line: str) -> frozenset[str]:
    """The extras that a `pip install` line names."""
    named = re.search(r"\[(.*)\]", line)
    return frozenset(named[1].split(",")) if named else frozenset()


def required(found: Distribution, extras: frozenset[str]) -> Iterator[tuple[str, frozenset[str]]]:
    """What a distribution with these extras requires on this machine: names, each with its extras."""
    for text in found.requires or ():
        one = Requirement(text)
        if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in extras | {""}):
            yield one.name.lower().replace("_", "-"), frozenset(one.extras)


def closure(metadata: Distribution, extras: frozenset[str]) -> set[str]:
    """The names of all distributions that fotahook with these extras requires, directly or not."""
    names: set[str] = set()
    seen = set[tuple[str, frozenset[str]]]()
    waiting = [("fotahook", extras)]
    while waiting:
        name, wanted = waiting.pop()
        if (name, wanted) in seen:
            continue
        seen.add((name, wanted))
        if name != "fotahook":
            names.add(name)
        waiting += required(metadata if name == "fotahook" else distribution(name), wanted)
    return names


def link(name: str, site: Path) -> None:
    """Make a distribution of our own environment visible in another one."""
    found = distribution(name)
    for file in found.files or ():
        target = site / file
        if ".." in file.parts or "__pycache__" in file.parts:
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(Path(str(found.locate_file(file))))


def test_the_readme_names_every_extra() -> None:
    extras = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    assert {extra for line in LINES for extra in extras_of(line)} == extras
    assert {extra for promise in PROMISES for extra in promise} == extras - {"all"}


def test_the_wheel_has_what_is_not_code(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as opened:
        assert {"examples/demo.py", "agents/SKILL.md", "agents/llms.txt"} <= {
            name.removeprefix("fotahook/") for name in opened.namelist()
        }


# Of lines with the same extras one is enough: it is always this wheel that is installed.
@pytest.mark.parametrize("line", {extras_of(line): line for line in LINES}.values())
def test_an_install_line_gives_what_it_promises(
    line: str, wheel: Path, metadata: Distribution, environment: Path, tmp_path: Path
) -> None:
    extras = extras_of(line)
    for name in closure(metadata, extras):
        link(name, environment / SITE)
    python = environment / "bin" / "python"
    compiled = f"pycache_prefix={environment.with_name('bytecode')}"
    source = f"{wheel}[{','.join(sorted(extras))}]" if extras else str(wheel)
    run(str(UV), "pip", "install", "--quiet", "--no-config", "--no-index", "--python", str(python), source)
    for wanted, code in PROMISES.items():
        if wanted <= extras or "all" in extras:
            run(str(python), "-I", "-X", compiled, "-c", code, cwd=tmp_path)
    if "cli" in extras:
        run(str(environment / "bin" / "fotahook"), "--version", cwd=tmp_path)


def test_the_wheel_has_the_name_that_the_readme_gives_it(wheel: Path) -> None:
    assert f"'dist/{wheel.name}[all]'" in SECTION
    (block,) = [block for block in blocks_of("README.md") if block.text.startswith("make wheel")]
    assert wheel.name in block.text


def test_make_wheel_runs_the_same_build() -> None:
    planned = subprocess.run(["make", "--dry-run", "wheel"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "hatchling build --target wheel" in planned.stdout

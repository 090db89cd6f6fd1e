"""The units and container files of docs/examples: what systemd thinks of them, and that every step of them works."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.cli.processes import Running, fotahook, running

from .blocks import ROOT
from .test_install import wheel  # noqa: F401  # a fixture

EXAMPLES: Final = ROOT / "docs" / "examples"
UNITS: Final = sorted(path.name for path in EXAMPLES.glob("*.service"))
CONFIG: Final = {
    "fotahook.service": 'host = "0.0.0.0"\nport = 8443\nstore = "sqlite:////var/lib/fotahook/fotahook.db"\n',
    "fota-listener.service": 'host = "0.0.0.0"\npath = "/hooks/0123456789abcdef"\nsource = ["thingspace"]\n',
}


def setting(unit: str, name: str) -> str:
    (value,) = re.findall(rf"^{name}=(.*)$", (EXAMPLES / unit).read_text(), re.M)
    assert isinstance(value, str)
    return value


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
@pytest.mark.parametrize("unit", UNITS)
def test_systemd_takes_a_unit_and_calls_it_safe(unit: str, tmp_path: Path) -> None:
    installed = (EXAMPLES / unit).read_text().replace("/opt/fotahook/bin/fotahook", sys.executable)
    (tmp_path / unit).write_text(installed)
    checked = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", tmp_path / unit], capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
    # 10 is no protection at all, 2 is "OK".
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=20", str(tmp_path / unit)]
    rated = subprocess.run(command, capture_output=True, text=True, check=False)
    assert rated.returncode == 0, rated.stdout


@pytest.mark.parametrize("unit", UNITS)
def test_the_command_of_a_unit_exists(unit: str, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(CONFIG[unit])
    program, *arguments = shlex.split(setting(unit, "ExecStart"))
    assert program == "/opt/fotahook/bin/fotahook"
    arguments[-1] = str(config)
    done = fotahook(*arguments, "--explain", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "0.0.0.0" in done.stdout


SHIMS: Final = {
    "pip": """\
import subprocess, sys
command, option, requirement = sys.argv[1:]
assert (command, option) == ("install", "--no-cache-dir"), sys.argv
path, _, extras = requirement.rstrip("]").partition("[")
assert extras in ("all", "listener,cli"), requirement
arguments = ["--quiet", "--offline", "--no-deps", "--no-build-isolation", "--target", {target!r}, path]
subprocess.run([{uv!r}, "pip", "install", "--python", sys.executable, *arguments], check=True)
""",
    "useradd": """\
import pathlib, sys
assert sys.argv[1:3] == ["--system", "--home"] and sys.argv[4] == "--create-home", sys.argv
pathlib.Path({root!r} + sys.argv[3]).mkdir(parents=True)
""",
}


def build(file: str, root: Path, context: Path) -> dict[str, list[str]]:
    """Do what a container file says, below a folder; its instructions by name."""
    text = (EXAMPLES / file).read_text().replace("\\\n", " ")
    steps: dict[str, list[str]] = {}
    shims = root / "shims"
    shims.mkdir(parents=True)
    values = {"root": str(root), "target": str(root / "installed"), "uv": str(Path(sys.executable).with_name("uv"))}
    for name, code in SHIMS.items():
        (shims / name).write_text(f"#!{sys.executable}\n{code.format(**values)}")
        (shims / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{shims}{os.pathsep}{os.environ['PATH']}"}
    for line in text.splitlines():
        name, _, rest = line.partition(" ")
        steps.setdefault(name, []).append(rest)
        if name == "COPY":
            source, target = rest.split()
            (found,) = context.glob(source)
            below = root / target.strip("/")
            if found.is_dir():
                shutil.copytree(found, below)
            else:
                below.mkdir(parents=True, exist_ok=True)
                shutil.copy(found, below)
        elif name == "RUN":
            subprocess.run(["/bin/sh", "-ec", rest.replace("/tmp/", f"{root}/tmp/")], env=environment, check=True)
        elif name == "WORKDIR":
            assert (root / rest.strip("/")).is_dir()
    assert list((root / "installed").glob("fotahook-*.dist-info"))
    return steps


def check_container(steps: dict[str, list[str]], root: Path, **variables: str) -> None:
    """Start what an image would start, ask for its health as it would, and stop it as docker does."""
    assert "3.12" in steps["FROM"][0]
    program, *arguments = json.loads(steps["ENTRYPOINT"][0])
    assert program == "fotahook"
    folder = root / steps["WORKDIR"][0].strip("/")
    with running(*arguments, "--port", "0", cwd=folder, PYTHONPATH=str(root / "opt/handlers"), **variables) as server:
        check_health(steps, server)
        assert server.stop() == 0


def check_health(steps: dict[str, list[str]], server: Running) -> None:
    _, option, code = json.loads(steps["HEALTHCHECK"][0].removeprefix("CMD "))
    port = server.url.rstrip("/").rpartition(":")[2]
    assert f":{steps['EXPOSE'][0]}/healthz" in code
    subprocess.run([sys.executable, option, code.replace(f":{steps['EXPOSE'][0]}", f":{port}")], check=True)


def test_the_container_of_the_service(tmp_path: Path, wheel: Path) -> None:  # noqa: F811
    context = tmp_path / "context"
    (context / "dist").mkdir(parents=True)
    shutil.copy(wheel, context / "dist")
    root = tmp_path / "root"
    check_container(build("Containerfile", root, context), root)


def test_the_container_of_a_listener(tmp_path: Path) -> None:
    context = tmp_path / "context"
    skipped = shutil.ignore_patterns(".*", "build", "dist", "tests", "node_modules", "__pycache__")
    shutil.copytree(ROOT, context / "fotahook", ignore=skipped)
    (context / "handlers.py").write_text("import fotahook\n\nlistener = fotahook.Listener()\n")
    root = tmp_path / "root"
    steps = build("listener.Containerfile", root, context)
    inbox = dict(shlex.split(steps["ENV"][0])[n].split("=", 1) for n in (0, 1))["FOTAHOOK_INBOX"]
    assert inbox == "sqlite:////var/lib/fota-listener/inbox.db"
    check_container(steps, root, FOTAHOOK_INBOX=f"sqlite:///{root}/var/lib/fota-listener/inbox.db")
